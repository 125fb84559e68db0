"""A listener on streams: the events of the file, in time, with clips."""

import io
import json
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from htsat_sed.audio import AudioStream, stream_of
from htsat_sed.audio.forward import Pipe, open_forward
from htsat_sed.detection.detector import Detector
from htsat_sed.detection.events import Event, PostProcessing
from htsat_sed.errors import AudioError
from htsat_sed.live.clips import Clips
from htsat_sed.live.events import Rules
from htsat_sed.live.feed import Clock
from htsat_sed.live.listener import Listener, Pace, Report, Saving, measured_hop

RATE = 32_000
START = datetime(2026, 1, 1, tzinfo=UTC)


class Sender(io.BytesIO):
    """Hands out half a second at a time, each when all sound so far has been computed."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.turn = threading.Semaphore(1)

    def read(self, size: int | None = -1) -> bytes:
        assert self.turn.acquire(timeout=60)
        return super().read(RATE)

    def next(self) -> None:
        if self.turn._value == 0:
            self.turn.release()


class Heard:
    """What a listener reports, and the seconds of sound that had come."""

    def __init__(self, detector: Detector, rules: Rules | None = None, **how: object) -> None:
        self.reports: list[Report] = []
        self.times: list[float] = []
        self.listener = Listener(
            detector,
            rules or Rules(detector.labels, detector.post_processing),
            how.pop("pace", Pace(hop=detector._hop_tokens, slack=1.0, drop=False)),
            clock=Clock(START),
            report=self.take,
            **how,
        )

    def take(self, report: Report) -> None:
        self.reports.append(report)
        self.times.append(self.listener._ring.end / RATE)

    def listen(self, data: bytes) -> None:
        sender = Sender(data)

        def source(stack: ExitStack) -> AudioStream:
            return stream_of(open_forward(Pipe(sender), stack), "-", RATE)

        self.listener.listen(source, sender.next)

    def final(self) -> list[Event]:
        return sorted(
            Event(report.onset, report.offset, report.label, report.score)
            for report in self.reports
            if report.state == "final"
        )


def test_final_events_are_those_of_the_file_and_come_in_time(detector: Detector, street: Path) -> None:
    expected = detector.detect(street)
    assert len(expected) > 5
    heard = Heard(detector)
    heard.listen(street.read_bytes())
    assert heard.final() == expected
    rules = Rules(detector.labels, detector.post_processing)
    begun: set[int] = set()
    for report, came in zip(heard.reports, heard.times, strict=True):
        if report.state == "begin":
            begun.add(report.number)
        elif report.state == "final":
            assert report.number in begun
            latest = report.offset + detector.config.window_seconds + detector.hop + rules.look_ahead(0.3125)
            assert came <= latest + 1.0
    first = min(zip(heard.times, heard.reports, strict=True), key=lambda each: each[0])
    assert first[0] <= 10.5  # with the first window


@pytest.mark.parametrize("form", ["flac", "ogg"])
def test_compressed_streams(detector: Detector, samples: np.ndarray, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"street.{form}"
    soundfile.write(path, samples[: 21 * RATE], RATE)
    heard = Heard(detector)
    heard.listen(path.read_bytes())
    assert heard.final() == detector.detect(path)


def test_windows_are_left_out_where_computing_falls_behind(detector: Detector, street: Path) -> None:
    heard = Heard(detector, pace=Pace(hop=2, slack=3.0, drop=True))
    data = io.BytesIO(street.read_bytes())

    def source(stack: ExitStack) -> AudioStream:
        return stream_of(open_forward(Pipe(data), stack), "-", RATE)

    # All of it is there at once: far more than the slack.
    heard.listener.listen(source)
    counts = heard.listener.counts
    assert 0 < counts.dropped < counts.windows
    assert counts.seconds == pytest.approx(36.3)


def test_clips_have_the_sound_with_rolls(detector: Detector, street: Path, tmp_path: Path) -> None:
    clips = Clips(tmp_path / "clips", RATE)
    heard = Heard(detector, saving=Saving(clips, before=0.5, after=1.5, longest=4.0))
    heard.listen(street.read_bytes())
    assert heard.final() == detector.detect(street)
    whole, _ = soundfile.read(street, dtype="float32")
    finals = [report for report in heard.reports if report.state == "final"]
    assert len({report.clip for report in finals}) == len(finals)
    for report in finals:
        found, rate = soundfile.read(report.clip, dtype="float32")
        first = max(report.onset, report.offset - 4.0) - 0.5
        expected = whole[round(max(0.0, first) * RATE) : round((report.offset + 1.5) * RATE)]
        assert rate == RATE
        np.testing.assert_allclose(found, expected, atol=1 / 32768)
    first_clip = Path(finals[0].clip).name
    assert first_clip.startswith(f"{finals[0].begin:%Y%m%dT%H%M%S}.")


def test_a_full_disk_costs_the_clip_alone(
    detector: Detector,
    street: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clips = Clips(tmp_path, RATE)
    calls = iter(range(1000))

    def full(handle: int) -> None:
        if next(calls) < 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("htsat_sed.whole_file.sync", full)
    heard = Heard(detector, saving=Saving(clips, 0.0, 0.0, 60.0))
    heard.listen(street.read_bytes())
    assert heard.final() == detector.detect(street)
    finals = [report for report in heard.reports if report.state == "final"]
    assert [report.clip is None for report in finals] == [True, True] + [False] * (len(finals) - 2)
    assert clips.failed == 2
    assert [record.message for record in caplog.records if "clips" in record.message] == [
        f"{finals_path(tmp_path, finals[0])}: cannot be written: No space left on device; events are reported without clips",
        f"{tmp_path}: writing clips again; 2 are missing",
    ]


def finals_path(folder: Path, report: Report) -> Path:
    label = report.label.replace(", ", "_")
    return folder / f"{report.begin:%Y%m%dT%H%M%S}.{report.begin.microsecond // 1000:03d}_{label}.wav"


def test_a_source_that_breaks_off_finishes_the_open_events(detector: Detector, street: Path) -> None:
    heard = Heard(detector)

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 20 * RATE * 2:
                raise OSError(5, "Input/output error")
            return super().read(RATE)

    def source(stack: ExitStack) -> AudioStream:
        return stream_of(open_forward(Pipe(Broken(street.read_bytes())), stack), "-", RATE)

    with pytest.raises(AudioError, match="cannot be read: Input/output error"):
        heard.listener.listen(source)
    assert heard.final()
    assert max(report.offset for report in heard.reports if report.state == "final") <= 20.5


def test_a_source_that_cannot_be_opened(detector: Detector) -> None:
    def source(stack: ExitStack) -> AudioStream:
        raise AudioError("http://nowhere", "cannot be opened")

    with pytest.raises(AudioError, match="http://nowhere: cannot be opened"):
        Heard(detector).listener.listen(source)


def test_other_rules_count_from_the_next_window_on(detector: Detector, street: Path) -> None:
    heard = Heard(detector)
    take = heard.take
    silent = Rules(("Dog",), PostProcessing(threshold=1.0))

    def change(report: Report) -> None:
        heard.listener.change(silent)
        take(report)

    heard.listener._report = change
    heard.listen(street.read_bytes())
    assert heard.final() != detector.detect(street)
    assert max(event.offset for event in heard.final()) <= 12.0


def test_stop_finishes_the_open_events(detector: Detector, street: Path) -> None:
    heard = Heard(detector)
    take = heard.take

    def stop(report: Report) -> None:
        heard.listener.stop()
        take(report)

    heard.listener._report = stop
    heard.listen(street.read_bytes())
    states: dict[int, str] = {report.number: report.state for report in heard.reports}
    assert set(states.values()) <= {"final", "withdrawn"}
    assert heard.listener.counts.seconds < 15.0


def test_a_report_is_one_line_of_json() -> None:
    report = Report("final", 3, "Rain, light", 1.25, 2.5, START, START.replace(second=2), 0.98765432, "a.wav")
    assert json.loads(report.json()) == {
        "state": "final", "number": 3, "label": "Rain, light", "onset": 1.25, "offset": 2.5,
        "begin": "2026-01-01T00:00:00.000+00:00", "end": "2026-01-01T00:00:02.000+00:00",
        "score": 0.987654, "clip": "a.wav",
    }  # fmt: skip
    assert "\n" not in report.json()


def test_the_measured_hop_is_what_was_wanted_where_the_machine_keeps_up(detector: Detector) -> None:
    hop, taken = measured_hop(detector, 4.0)
    assert hop == max(4.0, 2.0 * taken)
    assert measured_hop(detector, 10.0)[0] == 10.0
