"""Outputs in an S3 store: the same bytes as on a disk, resumed on another machine, with connections that break."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from planted import BATCH, Run, plant
from s3_made import Bucket

from htsat_sed import remote
from htsat_sed.runs import remote_output
from htsat_sed.whole_file import whole_file

# The program with copies every 0.05 s, and its temporary files where the test can count them.
QUICK = "from htsat_sed.runs import remote_output; remote_output._EVERY = 0.05; from htsat_sed.cli import main; main()"
RECORD = ".htsat-sed.outputs"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote_output, "_EVERY", 0.05)
    monkeypatch.setattr(remote, "_PAUSE", 0.01)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    plant(folder, ["0.wav", "day 1/é ☂.wav"])
    plant(folder, ["2.wav", "3.wav"], silent=True)
    (folder / "empty.wav").write_bytes(b"")
    return folder


def below(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "command",
    [("detect", "a.csv"), ("tag", "a.tsv", "--wide"), ("detect", "labels", "-f", "audacity", "-f", "csv")],
    ids=str,
)
def test_an_output_in_s3_has_the_bytes_of_one_on_a_disk(
    command: tuple[str, ...], run: Run, checkpoint: Path, folder: Path, bucket: Bucket, tmp_path: Path
) -> None:
    name, out, *more = command
    (tmp_path / "local").mkdir()
    first = (name, folder, *BATCH, "-c", checkpoint, *more)
    assert run(*first, "-o", tmp_path / "local" / out)[0] == 1
    bucket.concerned = lambda request: request.startswith("PUT")
    bucket.busy, bucket.cut = 3, 2
    code, printed, err = run(
        *first, "-o", f"{bucket.address}/out/{out}", "--json-summary", tmp_path / "s.json"
    )
    assert (code, printed, bucket.busy, bucket.cut) == (1, "", 0, 0), err
    assert bucket.files("out") == below(tmp_path / "local")
    assert str(tmp_path) not in err.replace(str(folder), "")
    assert f'"failures": "{bucket.address}/out/' in (tmp_path / "s.json").read_text()
    assert not list((tmp_path / "temporary").iterdir())
    (folder / "empty.wav").write_bytes((folder / "0.wav").read_bytes())
    code, _, err = run(*first, "-o", f"{bucket.address}/out/{out}")
    assert (code, "4 of 5 recordings are done already" in err) == (0, True), err
    assert f"{bucket.address}/out/" in err
    assert run(*first, "-o", tmp_path / "local" / out)[0] == 0
    assert bucket.files("out") == below(tmp_path / "local")  # no list of failures any more, and no journal


def test_a_killed_run_goes_on_elsewhere(
    run: Run, checkpoint: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "in", [f"{i}.wav" for i in range(60)])
    command = (
        "detect",
        tmp_path / "in",
        "-c",
        checkpoint,
        "--batch-size",
        "1",
        "-f",
        "csv",
        "-f",
        "audacity",
    )
    out = ("-o", f"{bucket.address}/out")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    process = subprocess.Popen([sys.executable, "-c", QUICK, *map(str, command), *out])
    parts = f"PUT /{bucket.name}/out/htsat-sed.journal.parts/"
    while sum(each.startswith(parts) for each in bucket.asked) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    left = bucket.files("out")
    assert "events.csv" not in left
    assert sum(name.startswith("htsat-sed.journal.parts/") for name in left) >= 2
    code, _, err = run(*command, *out)
    assert (code, "of 60 recordings are done already" in err) == (0, True), err
    assert "note: 0 of 60" not in err
    assert run(*command, "-o", tmp_path / "local")[0] == 0
    assert bucket.files("out") == below(tmp_path / "local")


def test_objects_of_others_stay(run: Run, checkpoint: Path, folder: Path, bucket: Bucket) -> None:
    import s3fs

    s3fs.S3FileSystem().pipe_file(f"{bucket.name}/a.csv", b"not ours")
    command = ("detect", folder, *BATCH, "-c", checkpoint, "-o", f"{bucket.address}/a.csv")
    code, _, err = run(*command)
    assert (code, "a.csv: exists already" in err, err.count("\n")) == (2, True, 1)
    assert bucket.files("") == {"a.csv": b"not ours"}
    assert run(*command, "--overwrite")[0] == 1
    assert s3fs.S3FileSystem().cat_file(f"{bucket.name}/a.csv").startswith(b"filename")


def test_an_archive_of_embeddings_in_s3(
    run: Run, checkpoint: Path, folder: Path, bucket: Bucket, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    first = ("embed", folder, *BATCH, "-c", checkpoint)
    for _ in range(2):
        assert run(*first, "-o", tmp_path / "local")[0] == 1
        code, _, err = run(*first, "-o", f"{bucket.address}/archive")
        assert code == 1, err
        parts = {name: data for name, data in below(tmp_path / "local").items() if name.startswith("part-")}
        stored = bucket.files("archive")
        assert {name: data for name, data in stored.items() if name.startswith("part-")} == parts
        assert set(stored) == {*parts, "failures.csv"}
        plant(folder / "more", ["new.wav"])
    assert len(parts) == 2


def test_a_store_that_takes_nothing_is_one_line_before_any_work(
    run: Run, checkpoint: Path, folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = ("detect", folder, *BATCH, "-c", checkpoint)

    def refused(out: str, *more: str, code: int = 1) -> str:
        found, printed, err = run(*command, "-o", out, *more)
        *_, line = err.splitlines()
        assert (found, printed, line.startswith("error: ")) == (code, "", True), err
        assert not list((tmp_path / "temporary").iterdir())
        return line

    assert "s3://no-such-bucket/a.csv" in (line := refused("s3://no-such-bucket/a.csv"))
    assert "bucket" in line
    assert "outputs can be written to a disk" in refused("https://example.org/a.csv", code=2)
    assert "names no bucket" in refused("s3://", code=2)
    assert "use --shard" in refused(f"{bucket.address}/a", "-f", "audacity", "--skip-existing", code=2)
    assert "can be a URL" in refused(f"{bucket.address}/a.csv", "--scores", "s3://archive/maps")
    bucket.concerned, bucket.busy = (lambda request: request.startswith("PUT")), 1_000_000
    assert "cannot be written" in (line := refused(f"{bucket.address}/a.csv"))
    bucket.busy = 0
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    line = refused(f"{bucket.address}/a.csv")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "redentials" in line


def test_a_store_that_is_lost_amid_the_run_keeps_what_was_done(
    run: Run, checkpoint: Path, folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All is computed, and the store takes no table: it is kept on this machine, and the next run has the journal."""
    bucket.concerned, bucket.busy = (lambda request: request.endswith("a.csv")), 1_000_000
    monkeypatch.setattr(remote, "_ATTEMPTS", 2)
    monkeypatch.setattr(remote_output, "_ROUNDS", 2)
    command = ("detect", folder, *BATCH, "-c", checkpoint)
    out = ("-o", f"{bucket.address}/a.csv")
    bucket.busy, bucket.concerned = 1_000_000, (lambda request: request == f"PUT /{bucket.name}/a.csv")
    code, _, err = run(*command, *out)
    assert (code, "all outputs are in" in err) == (1, True), err
    (kept,) = (tmp_path / "temporary").iterdir()
    bucket.busy = 0
    code, _, err = run(*command, *out)
    assert (code, "4 of 5 recordings are done already" in err) == (1, True), err
    assert run(*command, "-o", tmp_path / "a.csv")[0] == 1
    assert bucket.files("")["a.csv"] == (tmp_path / "a.csv").read_bytes() == (kept / "a.csv").read_bytes()


def test_files_come_before_the_journal_that_names_them_and_a_second_run_is_found_out(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_output, "_EVERY", 3600.0)
    one, other = (remote_output.RemoteOutput(f"{bucket.address}/labels") for _ in range(2))
    with one, other:
        for each in (one, other):
            each.path.mkdir(exist_ok=True)
            (each.path / "htsat-sed.journal").write_bytes(b"header\n")
        one.start(one.path / "htsat-sed.journal")
        with whole_file(one.path / "a.txt") as file:
            file.write("a")
        with (one.path / "htsat-sed.journal").open("ab") as journal:
            journal.write(b"line of a\nline of b that is not who")
        bucket.asked.clear()
        one._copy()
        put = [each.rpartition("/")[2][:8] for each in bucket.asked if each.startswith("PUT")]
        assert put == ["a.txt", "00000002"]
        assert one.holds(one.path / "a.txt")
        assert not (one.path / "a.txt").exists()
        stored = bucket.files("labels")
        assert (
            b"".join(stored[name] for name in sorted(stored) if ".parts/" in name) == b"header\nline of a\n"
        )
        with pytest.raises(Exception, match="another run is writing there"):
            other.start(other.path / "htsat-sed.journal")


@pytest.mark.long
def test_two_thousand_recordings_in_s3_and_results_in_s3(
    run: Run,
    checkpoint: Path,
    bucket: Bucket,
    thousands: Path,
    by_one_process: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import s3fs

    monkeypatch.setattr(remote_output, "_EVERY", 5.0)
    s3fs.S3FileSystem().put(f"{thousands}/", f"{bucket.name}/in/", recursive=True)
    source, out = f"{bucket.address}/in/", f"{bucket.address}/out/a.csv"
    code, printed, err = run("detect", source, *BATCH, "-c", checkpoint, "-o", out)
    assert (code, printed) == (1, ""), err
    found = bucket.files("out")
    assert set(found) == set(by_one_process) - {RECORD}
    # The journal has an ETag of each recording where that of a disk has its time of change.
    for name in ("a.csv", "a.csv.failures.csv"):
        assert found[name] == by_one_process[name]
