"""Streams over HTTP that break off, and sources that cannot be opened."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from recordings_made import wav

from htsat_sed.audio.remote import Remote
from htsat_sed.detection.detector import Detector
from htsat_sed.errors import AudioError, UsageError
from htsat_sed.live.events import Rules
from htsat_sed.live.feed import Clock
from htsat_sed.live.listener import Listener, Pace, Report
from htsat_sed.live.sources import Origin, raw_layout

RATE = 32_000


class Radio:
    """A server whose stream breaks off after so many seconds of sound each time, then refuses.

    Attributes:
        address: of the stream.
        asked: how often it was opened.
    """

    def __init__(self, samples: np.ndarray, breaks: int, *, refusals: tuple[int, ...] = ()) -> None:
        radio, parts = self, np.array_split(samples, breaks + 1)
        self.asked = self.served = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                radio.asked += 1
                if radio.asked in refusals or radio.served > breaks:
                    self.send_error(503)
                    return
                part = parts[radio.served]
                radio.served += 1
                self.send_response(200)
                self.send_header("Content-Type", "audio/wav")
                self.end_headers()
                self.wfile.write(wav(part, stated=0xFFFFFFFF, riff=0xFFFFFFFF, rate=RATE))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/live.wav"

    def __enter__(self) -> "Radio":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def sound() -> np.ndarray:
    time = np.arange(12 * RATE) / RATE
    return (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def test_a_stream_that_breaks_off_five_times_goes_on(
    sound: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    gaps: list[tuple[float, float]] = []
    with Radio(sound, 5, refusals=(3,)) as radio, ExitStack() as stack:
        remote = Remote(radio.address, stack, gap=lambda at, seconds: gaps.append((at, seconds)))
        heard: list[np.ndarray] = []
        for block in remote.samples():
            heard.append(block[0])
            if len(gaps) == 5 and np.count_nonzero(np.concatenate(heard)) > 11.9 * RATE:
                break
    whole = np.concatenate(heard)
    assert radio.served == 6
    assert len(gaps) == 5
    assert "interrupted at 2.00 s" in caplog.text
    assert "reconnected after" in caplog.text
    # Silence stands where the gaps are stamped, sound everywhere else; one refusal took half a second.
    assert gaps[0][0] == pytest.approx(2.0)
    assert gaps[1][1] >= 0.5
    total = sum(seconds for _, seconds in gaps)
    assert gaps[-1][0] == pytest.approx(10.0 + total - gaps[-1][1], abs=1e-3)
    for at, seconds in gaps:
        assert not whole[round(at * RATE) + 1 : round((at + seconds) * RATE) - 1].any()
    expected = np.round(sound * 32768) / 32768
    parts = np.array_split(expected, 6)
    for part, begin in zip(parts, [0.0, *(at + seconds for at, seconds in gaps)], strict=True):
        there = whole[round(begin * RATE) :][: len(part)]
        np.testing.assert_allclose(there, part[: len(there)], atol=1e-4)


def test_gaps_are_among_the_reports(detector: Detector, sound: np.ndarray) -> None:
    reports: list[Report] = []
    with Radio(sound, 2) as radio:
        origin = Origin(source=radio.address)
        assert not origin.waits
        listener = Listener(
            detector,
            Rules(detector.labels, detector.post_processing),
            Pace(hop=8, slack=60.0, drop=True),
            clock=Clock(),
            report=reports.append,
        )

        def idle() -> None:
            if radio.served == 3 and listener.counts.seconds >= 10.0:
                listener.stop()

        listener.listen(lambda stack: origin.open(RATE, stack, listener.gap), idle)
    gaps = [report for report in reports if report.state == "gap"]
    assert [round(report.onset) for report in gaps] == [4, 8]
    assert all(report.end > report.begin and report.offset > report.onset for report in gaps)


def test_without_reconnection_a_break_is_the_end(sound: np.ndarray) -> None:
    with Radio(sound, 2) as radio, ExitStack() as stack:
        stream = Origin(source=radio.address, reconnect=False).open(RATE, stack, lambda *_: None)
        assert sum(len(block) for block in stream.blocks()) == 4 * RATE
    assert radio.asked == 1


def test_an_address_that_nobody_answers() -> None:
    with ExitStack() as stack, pytest.raises(AudioError, match="cannot be opened: Connection refused"):
        Remote("http://127.0.0.1:9/nothing", stack)


def test_a_stream_without_sound() -> None:
    with Radio(np.zeros(0, np.float32), 0) as radio, ExitStack() as stack, pytest.raises(AudioError):
        Remote(radio.address, stack, reconnect=False)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    return str(tmp_path_factory.mktemp("folder"))


def test_a_folder_is_refused(folder: str) -> None:
    with ExitStack() as stack, pytest.raises(AudioError, match="is a folder"):
        Origin(source=folder).open(RATE, stack, lambda *_: None)


def test_raw_samples_by_hand() -> None:
    assert raw_layout("s24be", 8000, 2)[:4] == (8000, 2, "PCM_24", True)
    with pytest.raises(UsageError, match="wanted raw samples as one of"):
        raw_layout("s16", 8000, 1)
    with pytest.raises(UsageError, match="raw samples come from standard input"):
        Origin(source="http://host/", raw=raw_layout("u8", 8000, 1))
