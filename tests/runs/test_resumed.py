"""What a stopped run goes on from, and what it refuses to go on with."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from planted import BATCH, Run, plant

from htsat_sed.annotations import read_events, read_presence_map
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig


def test_finished_runs_do_not_hold_others_up(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    (few / "bad.wav").touch()
    for threshold in (0.4, 0.6):
        code, _, err = run(
            "detect", few, *BATCH, "-c", checkpoint, "-o", tmp_path / "a.csv", "--threshold", threshold
        )
        assert code == 1
        assert "done already" not in err
        rows = (tmp_path / "a.csv").read_text().splitlines()[1:]
        assert all(float(row.rsplit(",", 1)[1] or 1) > threshold for row in rows)


class Stopped(BaseException):
    """As a kill: nothing may catch it."""


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """End the next run with an exception when so many recordings are in the journal."""
    from htsat_sed.runs.journal import Journal

    add = Journal.add

    def stop(recordings: int) -> None:
        left = iter(range(recordings))

        def counted(self: Journal, *arguments: object) -> None:
            if next(left, None) is None:
                monkeypatch.setattr(Journal, "add", add)
                raise Stopped
            add(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Journal, "add", counted)

    return stop


def half_done(run: Run, stop_after: Callable[[int], None], recordings: int, *arguments: object) -> None:
    stop_after(recordings)
    with suppress(Stopped):
        run(*arguments)
        raise AssertionError("the run was not stopped")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--threshold", "0.3"], "threshold: 0.3 was 0.45"),
        (["--threshold", "Dog=0.3"], "threshold of Dog: 0.3 was none"),
        (["--median-filter", "0.9"], "median_filter: 0.9 was 0"),
        (["--edge-level", "0.5"], "edge_level: 0.5 was 0"),
        (["--hop", "5"], "hop: 5 was 10"),
        (["--labels", "Dog"], 'labels: ["Dog"] was ["Dog", "Cat", "Rain, light", "Owl"]'),
        (["-f", "jsonl"], "format: jsonl was csv"),
        (["--scores", "maps"], "scores: "),
        (["-c", "other"], "checkpoint: other.safetensors (sha256 "),
    ],
)
def test_changed_settings_are_refused(
    run: Run,
    checkpoint: Path,
    few: Path,
    tmp_path: Path,
    stop_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    changed: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["detect", few, "-c", checkpoint, "-o", "out.csv", *BATCH]
    half_done(run, stop_after, 2, *command)
    if changed == ["-c", "other"]:
        model = HTSAT(
            HTSATConfig(classes=4, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4)), tuple("abcd")
        )
        save_checkpoint("other.safetensors", model)
        changed = ["-c", "other.safetensors"]
        command[2:4] = []
    journal = Path("out.csv.journal").read_bytes()
    code, out, err = run(*command, *changed)
    assert (code, out) == (2, "")
    assert err.startswith("error: out.csv.journal: the unfinished run of 2 recordings here differs in ")
    assert message in err
    assert "--restart" in err
    assert Path("out.csv.journal").read_bytes() == journal
    assert not Path("out.csv").exists()
    code, _, err = run(*command, *changed, "--restart")
    assert (code, err) == (0, "")
    assert not Path("out.csv.journal").exists()


def test_other_recordings_are_refused_and_some_that_left_are_told(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    out = tmp_path / "out.csv"
    command = [*BATCH, "-c", checkpoint, "-o", out]
    half_done(run, stop_after, 3, "detect", few, *command)
    plant(tmp_path / "others", ["a.wav"])
    code, _, err = run("detect", tmp_path / "others", *command)
    assert code == 2
    assert err.startswith(f"error: {out}.journal: the unfinished run here is of 3 other recordings")
    assert "--restart" in err
    (few / "1.wav").unlink()
    code, _, err = run("detect", few, *command)
    note = "2 of 5 recordings are done already; 1 more in the journal are not part of this run"
    assert (code, err) == (0, f"note: {note}: {out}.journal\n")
    assert list(read_events(out)) == ["0.wav", "2.wav", "3.wav", "4.wav", "5.wav"]


def test_tag_goes_on_and_refuses_likewise(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    assert run("tag", few, *BATCH, "-c", checkpoint, "-o", tmp_path / "a.csv", "--wide")[0] == 0
    out = tmp_path / "b.csv"
    half_done(run, stop_after, 4, "tag", few, *BATCH, "-c", checkpoint, "-o", out, "--wide")
    code, _, err = run("tag", few, *BATCH, "-c", checkpoint, "-o", out, "--pool", "mean")
    assert (code, "differs in pool: mean was max. " in err) == (2, True)
    code, _, err = run("tag", few, *BATCH, "-c", checkpoint, "-o", out, "--wide")
    assert (code, err) == (0, f"note: 4 of 6 recordings are done already: {out}.journal\n")
    assert out.read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_what_changed_or_is_missing_is_done_again(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    out = tmp_path / "out"
    command = [
        "detect",
        few,
        "-c",
        checkpoint,
        "-o",
        out,
        "-f",
        "csv",
        "-f",
        "audacity",
        "--scores",
        out / "maps",
    ]
    half_done(run, stop_after, 5, *command)
    plant(few, ["1.wav"], silent=True)  # another recording now
    (out / "2.wav.txt").unlink()
    (out / "3.wav.txt").write_text("mended by hand\n")
    (out / "maps" / "4.wav.npz").unlink()
    code, _, err = run(*command)
    assert (code, err) == (0, f"note: 2 of 6 recordings are done already: {out}/htsat-sed.journal\n")
    assert read_events(out / "events.csv")["1.wav"] == []
    assert (out / "2.wav.txt").exists()
    assert (out / "3.wav.txt").read_text() == "mended by hand\n"
    assert {path.name for path in (out / "maps").glob("[!.]*")} == {f"{i}.wav.npz" for i in range(6)}
    assert read_presence_map(out / "maps" / "4.wav.npz").labels == ("Dog", "Cat", "Rain, light", "Owl")
    assert not (out / "htsat-sed.journal").exists()


def test_raven_boxes_stay_within_each_recording(
    run: Run, checkpoint: Path, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    """Raven refuses frequencies beyond half the sample rate of the recording."""
    highest = {8_000: "4000.0", 11_025: "5512.5", 16_000: "8000.0", 28_000: "14000.0", 44_100: "14000.0"}
    (tmp_path / "audio").mkdir()
    for rate in highest:
        samples = np.random.default_rng(0).normal(0.0, 0.1, rate // 2)
        soundfile.write(tmp_path / "audio" / f"{rate}.wav", samples, rate)
    arguments = ["detect", tmp_path / "audio", *BATCH, "-c", checkpoint, "-f", "raven", "--threshold", "0"]
    half_done(run, stop_after, 2, *arguments, "-o", tmp_path / "out")
    code, _, err = run(*arguments, "-o", tmp_path / "out")
    assert (code, "2 of 5 recordings are done already" in err) == (0, True)
    for rate, high in highest.items():
        text = (tmp_path / "out" / f"{rate}.wav.selections.txt").read_text()
        rows = [row.split("\t") for row in text.splitlines()]
        at = rows[0].index("High Freq (Hz)")
        assert {row[at] for row in rows[1:]} == {high}
        assert run(*arguments[:1], tmp_path / "audio" / f"{rate}.wav", *arguments[2:])[1] == text


def test_a_device_takes_a_table_without_a_journal(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path
) -> None:
    _, expected, _ = run("detect", few, *BATCH, "-c", checkpoint, "-f", "csv")
    reader, writer = os.pipe()
    code, _, _ = run("detect", few, *BATCH, "-c", checkpoint, "-o", f"/dev/fd/{writer}", "-f", "csv")
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert (code, pipe.read()) == (0, expected)
