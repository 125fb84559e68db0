"""Many processes, one folder."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from planted import BATCH, PROGRAM, Run, failures, plant

from htsat_sed.annotations import read_events, read_presence_map


def test_skip_existing(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        "detect",
        few,
        *BATCH,
        "-c",
        checkpoint,
        "-o",
        out,
        "-f",
        "audacity",
        "-f",
        "raven",
        "--skip-existing",
    ]
    (out).mkdir()
    (out / "1.wav.txt").write_text("kept\n")
    (out / "1.wav.selections.txt").write_text("kept\n")
    (out / "2.wav.txt").write_text("not alone\n")
    (few / "bad.wav").touch()
    code, _, err = run(*command)
    assert code == 1
    assert err.splitlines()[0].startswith(f"error: {few}/bad.wav: ")
    assert (out / "1.wav.txt").read_text() == "kept\n"
    assert (out / "2.wav.txt").read_text() == "not alone\n"  # --overwrite was not given
    assert len(list(out.glob("[!.]*"))) == 2 * 6 + 1  # failures.csv
    (few / "bad.wav").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix == ".txt"}
    assert run(*command) == (0, "", "")
    assert {path: path.stat().st_mtime_ns for path in out.glob("[!.]*")} == before


def test_defects_stay_listed_when_what_exists_is_skipped(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path
) -> None:
    cut_off = (few / "1.wav").read_bytes()[:9000]
    (few / "1.wav").write_bytes(cut_off)
    (few / "bad.wav").touch()
    command = (
        "detect",
        few,
        *BATCH,
        "-c",
        checkpoint,
        "-o",
        tmp_path / "out",
        "-f",
        "raven",
        "--skip-existing",
    )
    assert run(*command)[0] == 1
    listed = failures(tmp_path / "out" / "failures.csv")
    assert list(listed) == ["bad.wav", "1.wav"]
    (few / "bad.wav").unlink()
    assert run(*command)[0] == 0
    assert failures(tmp_path / "out" / "failures.csv") == {"1.wav": listed["1.wav"]}


def test_a_recording_too_short_for_a_score_has_its_files_too(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(1, np.float32), 96_000)
    folders = ("-f", "audacity", "-o", tmp_path / "out", "--scores", tmp_path / "maps", "--skip-existing")
    assert run("detect", tmp_path / "a.wav", "-c", checkpoint, *folders)[0] == 0
    presence = read_presence_map(tmp_path / "maps" / "a.wav.npz")
    assert (presence.scores.shape, presence.duration) == ((0, 4), 1 / 96_000)
    (tmp_path / "out" / "a.wav.txt").write_text("kept\n")
    assert run("detect", tmp_path / "a.wav", "-c", checkpoint, *folders)[0] == 0
    assert (tmp_path / "out" / "a.wav.txt").read_text() == "kept\n"


def test_skip_existing_is_not_for_tables(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    for more in (["-o", tmp_path / "out.csv"], ["-o", tmp_path / "out", "-f", "webvtt", "-f", "csv"], []):
        code, _, err = run("detect", few, "-c", checkpoint, "--skip-existing", *more)
        assert code == 2
        assert "works only with a folder for formats with one file per recording" in " ".join(
            err.replace("│", "").split()
        )
    folder = ("-o", tmp_path / "out", "-f", "webvtt", "--skip-existing", "--restart")
    code, _, err = run("detect", few, "-c", checkpoint, *folder)
    assert (code, "wanted --restart or --skip-existing, not both" in err) == (2, True)


@pytest.mark.long
def test_processes_that_share_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    plant(tmp_path / "many", [f"{i:02d}.wav" for i in range(16)])
    out = tmp_path / "out"
    command = [
        *PROGRAM,
        "detect",
        str(tmp_path / "many"),
        "-c",
        str(checkpoint),
        "-o",
        str(out),
        "-f",
        "webvtt",
    ]
    both = [
        subprocess.Popen([*command, "--skip-existing"], stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate()[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(path.name for path in out.glob("[!.]*")) == [f"{i:02d}.wav.vtt" for i in range(16)]
    assert len(read_events(out)) == 16
