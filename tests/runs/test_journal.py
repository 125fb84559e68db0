"""The journal of a run: what it remembers after any end, and what it refuses."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htsat_sed.detection.events import Event
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.runs.event_files import for_journal, is_in_journal_form
from htsat_sed.runs.journal import Journal, Stamp, line_of, stamp

SETTINGS = {"threshold": 0.5, "hop": 10.0, "labels": ["Dog", "Cat"]}
ONE, TWO = Stamp(100, 1), Stamp(200, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a journal with the recordings ``a`` and ``b\\n\\udcff``."""
    path = tmp_path / "events.tsv.journal"
    with Journal(path, SETTINGS) as journal:
        journal.add("a", ONE, {"events": [[0.1, 0.2, "Dog", 0.30000000000000004]]})
        journal.add("b\n\udcff", TWO, [1, 2])
    return path


def test_goes_on_where_it_was_left(path: Path) -> None:
    with Journal(path, SETTINGS) as journal:
        assert journal.resumed == len(journal) == 2
        assert journal.done("a", ONE)
        assert journal.done("b\n\udcff", TWO)
        assert not journal.done("c", ONE)
        assert journal.result("a") == {"events": [[0.1, 0.2, "Dog", 0.30000000000000004]]}
        journal.add("c", ONE, None)
        assert journal.result("c") is None
        assert journal.result("b\n\udcff") == [1, 2]
    with Journal(path, SETTINGS) as journal:
        assert [name in journal for name in ("a", "b\n\udcff", "c", "d")] == [True, True, True, False]


def test_a_recording_that_changed_is_not_done(path: Path) -> None:
    with Journal(path, SETTINGS) as journal:
        assert not journal.done("a", Stamp(100, 2))
        assert not journal.done("a", Stamp(101, 1))
        assert not journal.done("a", None)
        journal.add("a", TWO, "anew")
    with Journal(path, SETTINGS) as journal:
        assert journal.resumed == 2
        assert journal.done("a", TWO)
        assert journal.result("a") == "anew"


def test_stamps(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"12345")
    os.utime(file, ns=(7, 7))
    assert stamp(file) == (5, 7)
    assert stamp("-") is None
    with Journal(tmp_path / "journal", {}) as journal:
        journal.add("stdin", None, 1)
        assert not journal.done("stdin", None)
    with Journal(tmp_path / "journal", {}) as journal:
        assert journal.result("stdin") == 1


@settings(max_examples=40)
@given(cut=st.integers(0, 400), zeros=st.integers(0, 20))
def test_whatever_was_torn_off_is_not_done_and_the_rest_is(tmp_path_factory, cut, zeros) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("torn") / "journal"
    ends = []
    with Journal(path, {}) as journal:
        ends.append(path.stat().st_size)
        for i in range(4):
            journal.add(f"recording {i}", ONE, [i] * 5)
            ends.append(path.stat().st_size)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] + bytes(zeros))
    expected = sum(end <= cut for end in ends[1:])
    with Journal(path, {}) as journal:
        assert journal.resumed == expected
        for i in range(expected, 4):
            journal.add(f"recording {i}", ONE, [i] * 5)
        assert [journal.result(f"recording {i}") for i in range(4)] == [[i] * 5 for i in range(4)]
    assert path.read_bytes() == whole


def test_other_settings_are_refused_with_the_choice_spelt_out(path: Path) -> None:
    before = path.read_bytes()
    others = {"threshold": 0.3, "hop": 10.0, "labels": ["Dog"], "map": "desed"}
    with pytest.raises(ValueError, match="unfinished run of 2 recordings here differs in") as refused:
        Journal(path, others)
    assert str(refused.value) == (
        f"{path}: the unfinished run of 2 recordings here differs in threshold: 0.3 was 0.5; "
        'labels: ["Dog"] was ["Dog", "Cat"]; map: desed was none. Give the same values to resume it, '
        "--restart to start again, or another --output"
    )
    assert path.read_bytes() == before
    with Journal(path, others, restart=True) as journal:
        assert len(journal) == 0
        journal.add("a", ONE, 1)
    with Journal(path, others) as journal:
        assert journal.resumed == 1


def test_many_differences_are_told_briefly(tmp_path: Path) -> None:
    classes = ("Bark", "Cat", "Dog of war")
    before = {"command": "detect", "hop": 10.0} | {f"threshold of {label}": 0.1234567 for label in classes}
    with Journal(tmp_path / "x.journal", {**before, "median_filter of Cat": 1.23456789}) as journal:
        journal.add("a", ONE, 1)
    with pytest.raises(ValueError, match="differs in") as refused:
        Journal(tmp_path / "x.journal", {"command": "detect", "hop": 5.0})
    told = str(refused.value).partition("differs in ")[2]
    assert told.startswith(
        "hop: 5 was 10; threshold of 3 classes; median_filter of Cat: none was 1.23457. Give"
    )
    with pytest.raises(ValueError, match=r"differs in command: tag was detect\. Give"):
        Journal(tmp_path / "x.journal", {"command": "tag", "pool": "max"})


def test_restart_forgets_the_same_settings_too(path: Path) -> None:
    with Journal(path, SETTINGS, restart=True) as journal:
        assert len(journal) == 0


def test_finished_goes_away_or_no_longer_refuses(path: Path) -> None:
    with Journal(path, SETTINGS) as journal:
        journal.finish(keep=True)
    with Journal(path, SETTINGS) as journal:
        assert journal.resumed == 2
        journal.finish(keep=True)
    with Journal(path, {"threshold": 0.1}) as journal:
        assert len(journal) == 0
        journal.add("a", ONE, 1)
        journal.finish(keep=False)
    assert not path.exists()


def test_one_that_went_on_after_it_was_finished_is_unfinished(path: Path) -> None:
    with Journal(path, SETTINGS) as journal:
        journal.finish(keep=True)
        journal.add("c", ONE, 1)
    with pytest.raises(ValueError, match="unfinished run of 3 recordings"):
        Journal(path, {})


def test_nothing_done_leaves_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", SETTINGS):
        assert (tmp_path / "journal").exists()
    assert list(tmp_path.iterdir()) == []


def test_without_a_name_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Journal(None, SETTINGS) as journal:
        journal.add("a", ONE, [1])
        journal.add("b", ONE, [2])
        assert journal.result("a") == [1]
        journal.finish(keep=True)
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    for text in (
        "filename,onset\na.wav,0\n",
        "a note",
        '{"journal": 0',
        '{"journal": 0, "settings": {}}\n',
        "[]\n",
    ):
        (tmp_path / "journal").write_text(text)
        with pytest.raises(
            ValueError, match=r"journal: is not a journal of this version \(2\): move it away"
        ):
            Journal(tmp_path / "journal", SETTINGS, restart=True)
        assert (tmp_path / "journal").read_text() == text


def test_two_processes_do_not_share_one(path: Path) -> None:
    script = (
        "import sys; from htsat_sed.runs.journal import Journal\n"
        "from htsat_sed.errors import HtsatSedError\n"
        "try: Journal(__import__('pathlib').Path(sys.argv[1]), {})\n"
        "except HtsatSedError as error: print(error.reason)"
    )
    with Journal(path, SETTINGS):
        other = subprocess.run(
            [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
        )
    assert other.stdout == "another run is writing here: wait for it, or name another --output\n"
    with Journal(path, SETTINGS) as journal:  # the lock ends with its process
        assert journal.resumed == 2


def test_full_disk_leaves_it_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    with Journal(path, SETTINGS) as journal:

        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            patch.setattr("htsat_sed.runs.journal._SYNC_EVERY", 0.0)
            with pytest.raises(HtsatSedError, match="journal: cannot be written: No space left on device"):
                journal.add("c", ONE, 1)
        assert path.read_bytes() == before
        journal.add("d", ONE, 2)
        assert journal.result("d") == 2
        assert "c" not in journal


def test_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(HtsatSedError, match="cannot be written: No such file or directory"):
        Journal(tmp_path / "nowhere" / "journal", {})


def test_lines_are_json(path: Path) -> None:
    header, *lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    assert all(re.fullmatch("[0-9a-f]{8}", line.pop("crc32")) for line in (header, *lines))
    assert header == {"journal": 2, "settings": SETTINGS}
    assert [line["name"] for line in lines] == ["a", "b\n\udcff"]
    assert lines[1] == {"name": "b\n\udcff", "size": 200, "modified": 2, "result": [1, 2]}


def test_a_changed_line_is_done_again_and_the_others_are_not(path: Path) -> None:
    """One digit that has changed on the disk gave an onset of 5.1 s instead of 0.1 s."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"[[0.1,", b"[[5.1,")
    path.write_bytes(b"".join(lines))
    with Journal(path, SETTINGS) as journal:
        assert [name in journal for name in ("a", "b\n\udcff")] == [False, True]
        assert journal.result("b\n\udcff") == [1, 2]
        journal.add("a", ONE, "anew")
    with Journal(path, SETTINGS) as journal:
        assert (journal.resumed, journal.result("a"), journal.result("b\n\udcff")) == (2, "anew", [1, 2])


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"name": 3, "size": 1, "modified": 1, "result": 1},
        {"name": ["c"], "failed": True},
        {"name": "c"},
        {"name": "c", "size": "1", "modified": 1, "result": 1},
        {"name": "c", "size": 1, "result": 1},
        {"name": "c", "size": 1, "modified": 1, "result": 1, "defect": {}},
        {"name": "c", "size": 1, "modified": 1, "result": "of another form"},
    ],
    ids=str,
)
def test_odd_lines_have_no_effect(path: Path, entry: dict[str, object]) -> None:
    with path.open("ab") as file:
        file.write(line_of(entry))
    with Journal(path, SETTINGS, is_result=lambda result: not isinstance(result, str)) as journal:
        assert (journal.resumed, "c" in journal) == (2, False)


def test_a_journal_of_the_version_before_is_refused_or_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    header = json.dumps({"journal": 1, "settings": SETTINGS}) + "\n"
    done = json.dumps({"name": "a", "size": 1, "modified": 1, "result": 1}) + "\n"
    path.write_text(header + done)
    with pytest.raises(UsageError, match="unfinished run here is of an earlier version of htsat-sed"):
        Journal(path, SETTINGS)
    assert path.read_text() == header + done
    for text, restart in (
        (header + done, True),
        (header + done + '{"finished": true}\n', False),
        (header, False),
    ):
        path.write_text(text)
        with Journal(path, SETTINGS, restart=restart) as journal:
            assert journal.resumed == 0
            journal.add("a", ONE, 1)
        assert path.read_bytes().count(b"crc32") == 2


def test_results_of_detect_have_a_form() -> None:
    events = [Event(0.0, 1.0, "Dog", 0.5)]
    assert is_in_journal_form(json.loads(json.dumps(for_journal(events, 2.0))))
    assert is_in_journal_form(for_journal([], 0.0))
    for odd in (
        None,
        [],
        {},
        {"duration": 1.0},
        {"duration": "1", "events": []},
        {"duration": 1.0, "events": [[]]},
    ):
        assert not is_in_journal_form(odd)
