"""`htsat-sed segments` on real files: what it writes, says and exits with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from htsat_sed import Event
from htsat_sed.annotations import read_events, read_heard, write_events
from htsat_sed.cli import main

RATE = 8_000
TABLE = {
    "street.wav": [
        Event(1, 2, "Dog", 0.9),
        Event(3, 4.5, "Baby cry, infant cry", 0.7),
        Event(5, 6, "Dog", 0.6),
    ],
    "yard.flac": [Event(0.5, 1, "Dog", 0.8)],
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `htsat-sed segments ...` beside recordings and events: exit code, standard output and error."""
    (tmp_path / "audio").mkdir()
    sound = 0.1 * np.random.default_rng(2).standard_normal(10 * RATE)
    soundfile.write(tmp_path / "audio/street.wav", sound, RATE)
    soundfile.write(tmp_path / "audio/yard.flac", sound, RATE)
    write_events(tmp_path / "events.csv", TABLE, "csv")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["htsat-sed", "segments", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


def clips() -> list[str]:
    return sorted(path.as_posix() for path in Path("clips").rglob("*.*"))


def test_events_of_channels_keep_them_in_the_index(run: Run) -> None:
    soundfile.write("audio/street.wav", np.zeros((10 * RATE, 2)), RATE)
    events = [Event(1, 2, "Dog", 0.9, 1), Event(1, 2, "Dog", 0.7, 2), Event(3, 4, "Cat", 0.5)]
    write_events("events.csv", {"street.wav": events}, "csv")
    assert run("events.csv", "--audio", "audio", "-o", "clips")[0] == 0
    header = Path("clips/clips.csv").read_text().partition("\n")[0]
    columns = "clip,filename,onset,offset,event_label,score,channel,clip_onset,clip_offset,heard"
    assert header == columns
    assert read_events("clips/clips.csv") == {"street.wav": sorted(events)}
    assert read_heard("clips/clips.csv") is not None


def test_events_become_clips_and_an_index(run: Run) -> None:
    assert run("events.csv", "--audio", "audio", "-o", "clips") == (
        0,
        "",
        "4 clips of 2 classes from 2 recordings, listed in clips/clips.csv\n",
    )
    assert clips() == [
        "clips/Baby-cry-infant-cry/street_00003.000_00004.500_Baby-cry-infant-cry_0.700.wav",
        "clips/Dog/street_00001.000_00002.000_Dog_0.900.wav",
        "clips/Dog/street_00005.000_00006.000_Dog_0.600.wav",
        "clips/Dog/yard_00000.500_00001.000_Dog_0.800.wav",
        "clips/clips.csv",
    ]


def test_choice_padding_format_and_rate(run: Run) -> None:
    options = ["-n", 1, "--labels", "Dog", "--padding", "0.25,1", "-f", "flac", "--sample-rate", 16_000]
    assert run("events.csv", "-a", "audio", "-o", "clips", *options)[0] == 0
    assert clips() == ["clips/Dog/street_00001.000_00002.000_Dog_0.900.flac", "clips/clips.csv"]
    information = soundfile.info(clips()[0])
    assert (information.samplerate, information.frames) == (16_000, 2.25 * 16_000)
    options = ["--min-score", 0.75, "--choose", "random", "--spread", "--overwrite"]
    assert run("events.csv", "-a", "audio", "-o", "clips", *options)[0] == 0
    listed = [line.partition(",")[0] for line in Path("clips/clips.csv").read_text().splitlines()]
    assert [clip for clip in listed[1:] if clip] == [
        "Dog/street_00001.000_00002.000_Dog_0.900.wav",
        "Dog/yard_00000.500_00001.000_Dog_0.800.wav",
    ]


def test_a_label_track_and_its_recording(run: Run) -> None:
    Path("my labels.txt").write_text("1.0\t2.0\tDog\n")
    code, _, err = run("my labels.txt", "-a", "audio/street.wav", "-o", "clips")
    assert (code, err) == (0, "1 clip of 1 class from 1 recording, listed in clips/clips.csv\n")
    assert clips()[0] == "clips/Dog/my-labels_00001.000_00002.000_Dog_1.000.wav"


def test_what_is_missing_or_broken_is_counted_and_the_rest_is_cut(run: Run) -> None:
    Path("audio/yard.flac").write_bytes(b"")
    more = {"gone.wav": [Event(0, 1, "Dog")], "street.wav": [Event(1, 2, "Dog"), Event(70, 80, "Dog")]}
    write_events("events.csv", TABLE | more, "csv")
    code, out, err = run("events.csv", "-a", "audio", "-o", "clips")
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "error: audio: holds no recordings for 1 of the 3 names: gone.wav",
        "warning: audio/street.wav: 1 event begins after its end at 10.00 s: no clip",
        "error: audio/yard.flac: is empty (0 bytes): record or copy it again",
        "1 clip of 1 class from 1 recording, listed in clips/clips.csv",
    ]


@pytest.mark.parametrize("accepted", ["all", "none of yard", "relabelled"])
def test_only_what_was_heard_is_scored(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], accepted: str
) -> None:
    more = {
        "yard.flac": [
            *TABLE["yard.flac"],
            Event(1, 1.25, "Dog", 0.3),
            Event(2, 3, "Baby cry, infant cry", 0.1),
        ]
    }
    write_events("events.csv", TABLE | more, "csv")
    assert run("events.csv", "-a", "audio", "-o", "clips", "-n", 2, "--padding", 1)[0] == 0
    lines = Path("clips/clips.csv").read_text().splitlines(keepends=True)
    kept = {
        "all": lines,
        "none of yard": [line for line in lines if not line.startswith("Dog/yard")],
        "relabelled": [
            line.replace(",Dog,", ",Cat,") if line.startswith("Dog/yard") else line for line in lines
        ],
    }
    Path("corrected.csv").write_text("".join(kept[accepted]))
    command = ["htsat-sed", "evaluate", "corrected.csv", "events.csv", "--json", "found.json"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        main()
    err = capsys.readouterr().err
    (metric,) = [
        each
        for each in json.loads(Path("found.json").read_text())["metrics"]
        if each["name"] == "intersection"
    ]
    counts = metric["totals"]
    dogs = {"all": 2, "none of yard": 1, "relabelled": 1}[accepted]
    assert (counts["tp"], counts["fp"]) == (2 + dogs, 2 - dogs)
    assert "2 estimated events that nobody listened to: left out" in err


def test_names_that_leave_the_folder_are_refused(run: Run) -> None:
    for outside in (Path("secret"), Path("elsewhere")):
        outside.mkdir()
        soundfile.write(outside / "s.wav", np.zeros(RATE), RATE)
    absolute = Path("elsewhere/s.wav").absolute()
    write_events(
        "trav.tsv", {"../secret/s.wav": [Event(0, 1, "Dog")], str(absolute): [Event(0, 1, "Dog")]}, "tsv"
    )
    code, _, err = run("trav.tsv", "-a", "audio", "-o", "clips")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: audio: holds no recordings for 2 of the 2 names: ../secret/s.wav, ")
    assert not Path("clips").exists()


def test_names_from_the_root_are_taken_below_the_folder_alone(run: Run) -> None:
    write_events("e.tsv", {str(Path("audio/street.wav").absolute()): [Event(0, 1, "Dog")]}, "tsv")
    assert run("e.tsv", "-a", "audio", "-o", "clips")[0] == 0
    write_events("e.tsv", {"/old/place/street.wav": [Event(0, 1, "Dog")]}, "tsv")
    assert run("e.tsv", "-a", "audio", "-o", "others")[0] == 0


def test_a_name_in_another_composition_is_the_same_recording(run: Run) -> None:
    Path("audio/yard.flac").rename("audio/cafe\u0301.flac")
    write_events("e.tsv", {"caf\u00e9.flac": [Event(0, 1, "Dog")]}, "tsv")
    assert run("e.tsv", "-a", "audio", "-o", "clips")[0] == 0


def test_an_offset_that_no_recording_has_is_one_line(run: Run) -> None:
    code, _, err = run(Path(__file__).parent.parent / "data/labels/big.tsv", "-a", "audio", "-o", "clips")
    assert (code, err.count("\n")) == (1, 1)
    assert "big.tsv: line 2: offset 1e+308 is beyond any recording" in err


def test_the_wrong_folder_leaves_nothing_behind(run: Run) -> None:
    Path("empty").mkdir()
    assert run("events.csv", "-a", "empty", "-o", "clips") == (
        1,
        "",
        "error: empty: holds no recordings for 2 of the 2 names: street.wav, yard.flac\n",
    )
    assert not Path("clips").exists()


def test_events_past_the_end_alone_fail_too(run: Run) -> None:
    write_events("events.csv", {"street.wav": [Event(1, 2, "Dog"), Event(70, 80, "Dog")]}, "csv")
    assert run("events.csv", "-a", "audio", "-o", "clips")[0] == 1


def test_clips_that_may_have_been_labelled_are_not_replaced_unasked(run: Run) -> None:
    arguments = ["events.csv", "-a", "audio", "-o", "clips"]
    run(*arguments)
    Path("clips/clips.csv").write_text("labelled for hours")
    code, _, err = run(*arguments)
    assert code == 2
    assert "clips/clips.csv exists" in err
    assert Path("clips/clips.csv").read_text() == "labelled for hours"
    Path("clips/Dog/mine.txt").touch()
    assert run(*arguments, "--overwrite")[0] == 0
    assert Path("clips/clips.csv").read_text().startswith("clip,filename,")
    assert Path("clips/Dog/mine.txt").exists()


def test_no_events_make_an_empty_index(run: Run) -> None:
    assert run("events.csv", "-a", "audio", "-o", "clips", "--min-score", 1)[0] == 0
    assert clips() == ["clips/clips.csv"]
    assert len(Path("clips/clips.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--padding", "1,2,3"], 2, "wanted seconds such as 1"),
        (["--padding=-1"], 2, "wanted seconds such as 1"),
        (["--labels", "dog"], 2, "events.csv; did you mean 'Dog'?"),
        (["-a", "audio/street.wav"], 2, "audio/street.wav is one recording, but the table has 2"),
        (["-a", "nowhere"], 1, "error: nowhere: cannot be listed: No such file or directory"),
    ],
)
def test_mistakes_are_told(run: Run, options: list[str], code: int, reason: str) -> None:
    found, _, err = run("events.csv", "-a", "audio", "-o", "clips", *options)
    assert found == code
    assert reason in " ".join(err.replace("│", " ").split())
    assert not Path("clips").exists()


def test_what_a_killed_run_half_wrote_goes(run: Run, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(32_000, np.float32), 32_000)
    (tmp_path / "events.csv").write_text("filename,onset,offset,event_label,score\na.wav,0,0.5,Dog,0.5\n")
    (tmp_path / "clips" / "Dog").mkdir(parents=True)
    part = tmp_path / "clips" / "Dog" / ".0123456789ab-0123456789ab.part"
    part.write_bytes(b"RIFF")
    code, _, _ = run(tmp_path / "events.csv", "-a", tmp_path, "-o", tmp_path / "clips")
    assert (code, part.exists()) == (0, False)
