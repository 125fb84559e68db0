"""Shards of a run, joined: the same bytes as one run, and every way in which they are not a whole."""

from __future__ import annotations

import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import BATCH, PROGRAM, Run, plant

from htsat_sed.errors import UsageError
from htsat_sed.runs import shards
from htsat_sed.runs.journal import Stamp
from htsat_sed.runs.recordings import Recording
from htsat_sed.runs.shards import Done, Header, Shard, part_of, write_shard

DETECT = {"formats": ["csv"], "maps": None, "labels": ["Dog"], "token_seconds": 0.3125, "safe_cells": False}
KIND = {"model": "x", "checkpoints": ["x"], "window": 2.5, "hop": 2.5, "dimensions": 2}
TAG = {"wide": False, "top": None, "labels": ["Dog"], "safe_cells": False}


@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(1, 9))
def test_shards_are_disjoint_complete_and_even(sizes: list[int], count: int) -> None:
    recordings = [Recording(f"{i}", f"{i}.wav") for i in range(len(sizes))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "stamp", lambda path: Stamp(sizes[int(path)], 0))
        parts = [part_of(recordings, Shard(number, count)) for number in range(1, count + 1)]
    assert sorted(place for part in parts for place in part.places) == list(range(len(sizes)))
    loads = []
    for part in parts:
        assert [each.name for each in part.recordings] == [f"{place}.wav" for place in part.places]
        assert list(part.places) == sorted(part.places)
        loads.append(sum(sizes[place] for place in part.places))
    # Graham (1969): within 4/3 of the best, which is no less than the mean and the largest.
    ordered = sorted(sizes, reverse=True)
    pair = ordered[count - 1] + ordered[count] if len(sizes) > count else 0
    best = max(sum(sizes) / count, max(sizes, default=0), pair)
    assert max(loads) <= best * 4 / 3 + 1e-9
    assert len({part.names_sha256 for part in parts}) == 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/3/5", "-1/3", "१/3", "1 / 3"])
def test_what_is_no_shard(text: str, run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wanted a shard"):
        Shard.parse(text)
    code, _, err = run("detect", tmp_path, "--shard", text, "-o", tmp_path / "a.csv")
    assert (code, "wanted a shard" in err) == (2, True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings, one of which is damaged and two of which are none."""
    folder = tmp_path / "recordings"
    plant(folder, ["0.wav", 'day/2 "☂".wav'])
    plant(folder, ["1.wav", "3.wav", "20240501_053000.wav", "5.wav", "6.wav"], silent=True)
    whole = (folder / "0.wav").read_bytes()
    (folder / "a cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "day" / "text.flac").write_bytes(b"no sound")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_shards(run: Run, count: int, out: str, *command: object) -> None:
    """Run a command once a shard; ``{}`` in arguments and in the output stands for its number."""
    for number in range(1, count + 1):
        arguments = [str(each).replace("{}", str(number)) for each in command]
        shard = f"{number}/{count}"
        assert run(*arguments, "--shard", shard, "-o", out.replace("{}", str(number)))[0] in (0, 1)


@pytest.mark.parametrize(
    "command",
    [
        ("detect", "out.csv"),
        pytest.param(("tag", "out.csv"), marks=pytest.mark.long),
        ("tag", "out.tsv", "--wide"),
    ],
    ids=str,
)
def test_merged_tables_are_those_of_one_run(
    command: tuple[str, ...], run: Run, checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    name, out, *more = command
    first = (name, folder, *BATCH, "-c", checkpoint, *more)
    (tmp_path / "one").mkdir()
    (tmp_path / "shards").mkdir()
    (tmp_path / "merged").mkdir()
    assert run(*first, "-o", tmp_path / "one" / out)[0] == 1
    in_shards(run, 2, str(tmp_path / "shards" / f"{{}}{out}"), *first)
    code, printed, err = run("merge", tmp_path / "shards", "-o", tmp_path / "merged" / out)
    assert (code, printed) == (0, ""), err
    assert err == f"8 recordings of 2 shards, 2 failures: {tmp_path / 'merged' / out}\n"
    one = contents(tmp_path / "one")
    assert set(one) == {out, f"{out}.journal", f"{out}.failures.csv", ".htsat-sed.outputs"}
    assert contents(tmp_path / "merged") == one


def test_merged_folders_are_those_of_one_run(
    run: Run, checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    formats = [part for name in ("csv", "audacity", "raven") for part in ("-f", name)]
    first = ("detect", folder, *BATCH, "-c", checkpoint, *formats)
    result = tmp_path / "result"
    assert run(*first, "-o", result, "--scores", result / "maps")[0] == 1
    one = contents(result)
    assert b"2024-05-01" in one["20240501_053000.wav.selections.txt"] or b"clock" in one["events.csv"]
    assert len([name for name in one if name.endswith(".npz")]) == 8
    result.rename(tmp_path / "one")
    in_shards(run, 3, str(tmp_path / "s" / "{}"), *first, "--scores", tmp_path / "m{}")
    shards = [tmp_path / "s" / str(number) for number in (3, 1, 2)]
    code, _, err = run("merge", *shards, "-o", result, "--scores", result / "maps")
    assert code == 0, err
    records = [name for name in one if name.endswith(".htsat-sed.outputs")]
    for found in (one, merged := contents(result)):
        for name in records:  # a line a file, in the order in which they were written
            found[name] = b"\n".join(sorted(found[name].splitlines()))
    assert merged == one


def test_merged_archives_are_those_of_one_run(
    run: Run, checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    first = ("embed", folder, *BATCH, "-c", checkpoint)
    assert run(*first, "-o", tmp_path / "one")[0] == 1
    in_shards(run, 2, str(tmp_path / "s" / "{}"), *first)
    assert set(contents(tmp_path / "s" / "1")) <= {"htsat-sed.shard", "htsat-sed.journal", "failures.csv"}
    code, _, err = run("merge", tmp_path / "s", "-o", tmp_path / "merged")
    assert (code, "of 2 shards, 2 failures" in err) == (0, True), err
    one, merged = (
        {name: data for name, data in contents(tmp_path / of).items() if not name.startswith(".")}
        for of in ("one", "merged")
    )
    assert any(name.startswith("part-") for name in one)
    assert merged == one
    code, _, err = run("merge", tmp_path / "s", "-o", tmp_path / "one")
    assert (code, "is an archive already" in err) == (2, True)
    code, _, err = run(*first, "--shard", "1/2", "-o", tmp_path / "one")
    assert (code, "needs a folder of its own" in err) == (2, True)
    code, _, err = run("merge", tmp_path / "s" / "1", "-o", tmp_path / "half")
    assert (code, "1 of 2 shards is missing: 2/2" in err, (tmp_path / "half").exists()) == (1, True, False)


def test_what_is_not_the_whole_is_named_and_nothing_is_written(
    run: Run, checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    for name in ("0.wav", 'day/2 "☂".wav', "a cut.wav"):
        (folder / name).unlink()  # what is left does not pass the model
    first = ("detect", folder, *BATCH, "-c", checkpoint)
    in_shards(run, 3, str(tmp_path / "{}.csv"), *first)
    one, two, three = (tmp_path / f"{number}.csv" for number in (1, 2, 3))
    out = tmp_path / "all.csv"

    def refused(*given: object) -> str:
        code, _, err = run("merge", *given, "-o", out)
        assert code == 1
        assert not list(tmp_path.glob("all.csv*"))
        (line,) = err.splitlines()
        return line

    assert refused(one, three).endswith("1 of 3 shards is missing: 2/3")
    assert f"{two}.shard: is shard 2/3, and so is {two}.shard" in refused(one, two, two, three)
    assert f"{tmp_path / 'no shards'}: no such file or folder" in refused(tmp_path / "no shards")
    (tmp_path / "4.csv").write_text("no output of a shard")
    assert f"{tmp_path / '4.csv.shard'}: does not exist: its shard is not finished" in refused(
        one, two, tmp_path / "4.csv"
    )
    assert "contains no finished shard" in refused(folder)
    assert run(*first, "--shard", "3/3", "-o", tmp_path / "other.csv", "--threshold", "0.9")[0] in (0, 1)
    assert "differs from" in (line := refused(one, two, tmp_path / "other.csv"))
    assert "threshold" in line
    assert run(*first, "--shard", "3/4", "-o", tmp_path / "other.csv", "--overwrite", "--restart")[0] in (
        0,
        1,
    )
    assert "is one of 4 shards" in refused(one, two, tmp_path / "other.csv")
    (folder / "more.wav").write_bytes((folder / "3.wav").read_bytes())
    assert run(*first, "--shard", "3/3", "-o", tmp_path / "other.csv", "--restart")[0] in (0, 1)
    assert "is a part of 8 recordings" in refused(one, two, tmp_path / "other.csv")
    data = (tmp_path / "3.csv.shard").read_bytes()
    (tmp_path / "3.csv.shard").write_bytes(data.replace(b'"place": ', b'"place": 1', 1))
    assert "is damaged: run its shard again with --restart" in refused(one, two, three)
    (tmp_path / "3.csv.shard").write_bytes(data[: len(data) // 2])
    assert "is damaged" in refused(one, two, three)
    (tmp_path / "3.csv.shard").write_bytes(b"no shard\n")
    refused(one, two, three)


@pytest.mark.parametrize(
    ("settings", "outputs", "result"),
    [
        ({"command": "embed"}, {}, []),
        ({"command": "embed"}, {"kind": {"model": "x"}}, []),
        ({"command": "embed"}, {"kind": KIND | {"dimensions": "2"}}, []),
        ({"command": "embed"}, {"kind": KIND}, {"starts": [0.0], "ends": [1.0], "embeddings": ""}),
        ({}, {}, []),
        ({"command": "detect"}, {"formats": "csv"}, {}),
        ({"command": "detect"}, {"formats": ["csv", 3]}, {}),
        ({"command": "detect"}, DETECT | {"formats": ["no such format"]}, {}),
        ({"command": "detect"}, DETECT, {"duration": 1.0, "events": [["a", 0.0, "Dog", 1.0]]}),
        ({"command": "detect"}, DETECT, None),
        ({"command": "tag"}, TAG | {"top": "3"}, [0.5]),
        ({"command": "tag"}, TAG, [0.5, 0.5]),
        ({"command": "tag"}, TAG, ["x"]),
    ],
)
def test_a_shard_of_any_content_is_one_line(
    settings: dict[str, object], outputs: dict[str, object], result: object, run: Run, tmp_path: Path
) -> None:
    header = Header(Shard(1, 1), 1, "", settings, outputs, [])
    write_shard(tmp_path / "1.csv.shard", header, [Done(0, "a.wav", result=result)])
    code, out, err = run("merge", tmp_path / "1.csv", "-o", tmp_path / "all.csv")
    assert (code, out, err.count("\n"), "1.csv.shard" in err or "all.csv" in err) == (1, "", 1, True)
    assert not (tmp_path / "all.csv").exists()


def test_more_shards_than_recordings(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    plant(tmp_path / "in", ["a.wav"], silent=True)
    first = ("detect", tmp_path / "in", *BATCH, "-c", checkpoint)
    assert run(*first, "-o", tmp_path / "one.csv")[0] == 0
    in_shards(run, 2, str(tmp_path / "{}.csv"), *first)
    assert run("merge", *(tmp_path / f"{i}.csv" for i in (1, 2)), "-o", tmp_path / "all.csv")[0] == 0
    assert (tmp_path / "all.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_a_shard_needs_a_place_of_its_own(run: Run, checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    first = ("detect", folder, *BATCH, "-c", checkpoint, "--shard", "1/3")
    code, _, err = run(*first)
    assert (code, "needs a file or folder as --output" in err) == (2, True)
    code, _, err = run(*first, "-o", tmp_path / "labels", "-f", "audacity", "--skip-existing")
    assert (code, "not both" in err) == (2, True)


@pytest.mark.long
def test_two_thousand_recordings_in_seven_shards_each_killed(
    run: Run, checkpoint: Path, thousands: Path, by_one_process: dict[str, bytes], tmp_path: Path
) -> None:
    """Each shard is killed at a random moment and given again."""
    rng = random.Random(time.time_ns())
    for name in ("shards", "merged"):
        (tmp_path / name).mkdir()
    for number in range(1, 8):
        out = tmp_path / "shards" / f"{number}.csv"
        shard = ["detect", thousands, *BATCH, "-c", checkpoint, "--shard", f"{number}/7", "-o", out]
        process = subprocess.Popen(
            [*PROGRAM, *map(str, shard)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(3, 8))
        process.kill()
        process.wait()
        assert run(*shard)[0] in (0, 1)
    assert run("merge", tmp_path / "shards", "-o", tmp_path / "merged" / "a.csv")[0] == 0
    assert contents(tmp_path / "merged") == by_one_process
