"""What somebody has corrected is not overwritten unless it is asked for."""

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest
from planted import BATCH, Run

from htsat_sed.runs import event_files
from htsat_sed.runs.output_hashes import RECORD, check_replaceable, is_replaceable, recording_outputs
from htsat_sed.whole_file import whole_file


def test_a_file_is_replaceable_as_long_as_it_is_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert is_replaceable(path)
    path.touch()
    assert is_replaceable(path)
    path.write_text("by hand")
    assert not is_replaceable(path)
    for text in ("first", "second"):
        with recording_outputs(), whole_file(path) as file:
            file.write(text)
        assert is_replaceable(path)
    path.write_text("corrected")
    assert not is_replaceable(path)
    path.write_text("first")  # the correction is undone
    assert is_replaceable(path)
    with whole_file(path) as file:  # outside of the block, nothing is recorded
        file.write("third")
    assert not is_replaceable(path)


def test_a_record_that_is_torn_or_odd_is_no_traceback(tmp_path: Path) -> None:
    record, path = tmp_path / RECORD, tmp_path / "a.txt"
    record.write_bytes(b'\xff\xfe\n[1]\n{"name": [], "sha256": 3}\n{"name": {}}\n{"name": "a.txt", "sha2')
    path.write_text("by hand")
    assert not is_replaceable(path)
    with recording_outputs(), whole_file(path) as file:
        file.write("text")
    assert is_replaceable(path)
    assert json.loads(record.read_bytes().splitlines()[-1])["name"] == "a.txt"


def test_corrected_labels_are_kept_and_named(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    command = ["detect", few, *BATCH, "-c", checkpoint, "-f", "raven", "-f", "csv", "-o", out]
    assert run(*command)[0] == 0
    files = sorted(out.glob("*.txt"))
    before = [path.read_bytes() for path in files]
    assert (len(files), run(*command)[::2]) == (6, (0, ""))
    assert [path.read_bytes() for path in files] == before
    files[0].write_text("corrected\n")
    files[1].unlink()
    code, _, err = run(*command)
    assert code == 0
    assert err.splitlines() == [
        f"kept: {files[0]}: was edited since it was written, or written by another program",
        "note: files kept as they are: 1; --overwrite replaces them",
    ]
    assert [path.read_bytes() for path in files] == [b"corrected\n", *before[1:]]
    assert run(*command, "--overwrite")[::2] == (0, "")
    assert [path.read_bytes() for path in files] == before


def test_corrected_presence_maps_are_kept(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    command = ["detect", few / "0.wav", "-c", checkpoint, "-o", tmp_path / "out.csv", "--scores", maps]
    assert run(*command)[0] == 0
    (maps / "0.wav.npz").write_bytes(b"another program's")
    assert f"kept: {maps / '0.wav.npz'}: " in run(*command)[2]
    assert (maps / "0.wav.npz").read_bytes() == b"another program's"


@pytest.mark.parametrize("command", ["detect", "tag"])
def test_a_table_made_by_hand_is_refused_before_the_first_recording(
    command: str, run: Run, checkpoint: Path, few: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    given = (command, few, *BATCH, "-c", checkpoint, "-o", table)
    table.write_text("mine\n")
    code, out, err = run(*given)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {table}: exists, ")
    assert "--overwrite" in err
    assert table.read_text() == "mine\n"
    assert run(*given, "--overwrite")[0] == 0
    written = table.read_bytes()
    assert run(*given)[0] == 0
    assert table.read_bytes() == written
    table.write_bytes(written + b"\n")
    assert run(*given)[0] == 2


def test_an_output_folder_that_is_removed_ends_the_run_in_a_line(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "labels"
    note = event_files.for_journal

    def removed(*given: object) -> object:
        shutil.rmtree(out)  # after the first recording
        return note(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(event_files, "for_journal", removed)
    code, _, err = run("detect", few, *BATCH, "-c", checkpoint, "-f", "raven", "-o", out)
    assert (code, out.exists()) == (1, False)
    reason = "was removed while the run was writing here; 1 of 6 recordings are done"
    assert err == f"error: {out}: {reason}\n"


def test_what_an_output_needs_is_checked_before_the_first_recording(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detected(*_: object, **__: object) -> None:
        raise AssertionError("a recording was read")

    def full(**given: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("htsat_sed.detection.detector.Detector.detections", detected)
    monkeypatch.setattr("htsat_sed.detection.detector.Detector.all_clip_scores", detected)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        code, _, err = run("detect", few, "-c", checkpoint, "-o", tmp_path / "events.parquet")
        assert (code, "pyarrow" in err, len(err.splitlines())) == (2, True, 1)
    monkeypatch.setattr("htsat_sed.runs.output_checks.TemporaryFile", full)
    for command in (
        ["detect", few, "-c", checkpoint, "-o", tmp_path / "out.csv"],
        ["detect", few, "-c", checkpoint, "-f", "tsv", "--scores", tmp_path / "maps"],
        ["tag", few, "-c", checkpoint, "-o", tmp_path / "out.csv"],
        ["plot", few / "0.wav", "-c", checkpoint, "-o", tmp_path / "out.png"],
    ):
        code, _, err = run(*command)
        assert (code, err) == (1, f"error: {tmp_path}: is not writable: Read-only file system\n"), command


def test_single_outputs_of_other_commands(run: Run, tmp_path: Path) -> None:
    labels = tmp_path / "labels.tsv"
    labels.write_text("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\n")
    home = tmp_path / "home.safetensors"
    shutil.copy(Path(__file__).parents[2] / "checkpoints" / "home.safetensors", home)
    for output, command in (
        ("all.json", ["evaluate", labels, labels, "--json"]),
        ("all.csv", ["evaluate", labels, labels, "--csv"]),
        ("half.safetensors", ["checkpoints", "convert", home, "--float16"]),
    ):
        path = tmp_path / output
        path.write_text("mine\n")
        code, _, err = run(*command, path)
        assert (code, f"{path}: exists, " in err) == (2, True), output
        assert path.read_text() == "mine\n"
        assert run(*command, path, "--overwrite")[0] == 0
        assert run(*command, path)[0] == 0
        check_replaceable(path, overwrite=False)
