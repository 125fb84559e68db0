"""Which recordings are taken, `--dry-run`, and `--channel all`."""

import csv

import numpy as np
import pytest
import soundfile
import torch

from htsat_sed.annotations import read_events
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig

RATE = 8000
NAMES = (
    "20260511_233000.WAV",
    "20260512_043000.WAV",
    "20260512_120000.WAV",
    "20260513_043000.WAV",
    "unnamed.wav",
)


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    sound = 0.1 * np.random.default_rng(1).normal(size=(3 * RATE, 2))
    for index, name in enumerate(NAMES):
        soundfile.write(folder / name, sound[: (index + 1) * RATE // 2], RATE, format="WAV")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small checkpoint whose scores are about a half."""
    torch.manual_seed(1)
    config = HTSATConfig(classes=2, embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1))
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_checkpoint(path, HTSAT(config, ("Dog", "Rain")))
    return path


def taken(run, card, *arguments, command="detect"):
    code, out, err = run(command, card, "--dry-run", *arguments)
    assert code == 0, err
    rows = list(csv.DictReader(out.splitlines(), delimiter="\t"))
    return [NAMES.index(row["filename"]) for row in rows], rows, " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), [0, 1, 2, 3, 4]),
        (("--since", "2026-05-12"), [1, 2, 3]),
        (("--since", "2026-05-12T04:30", "--until", "2026-05-13"), [1, 2]),
        (("--until", "2026-05-12T04:30:00"), [0]),
        (("--since", "04:00", "--until", "06:00"), [1, 3]),
        (("--since", "22:00", "--until", "5:00"), [0, 1, 3]),
        (("--since", "06:00"), [0, 2]),
        (("--since", "2026-05-12T02:30+00:00", "--timezone", "Europe/Berlin"), [1, 2, 3]),
        (("--min-duration", "1.5"), [2, 3, 4]),
        (("--limit", "2"), [0, 1]),
    ],
)
def test_what_is_taken(card, run, monkeypatch, arguments, expected):
    monkeypatch.setattr("htsat_sed.cli.selection._cost", lambda make: (0.5, "torch"))
    found, rows, err = taken(run, card, *arguments)
    assert found == expected
    seconds = sum((index + 1) / 2 for index in expected)
    assert [float(row["duration"]) for row in rows] == [(index + 1) / 2 for index in expected]
    assert (
        f"{len(expected)} recording{'s'[: len(expected) > 1]}, {seconds / 3600:.2f} h of sound; nothing was written"
        in err
    )
    if "--timezone" in arguments:
        assert rows[0]["begin"] == "2026-05-12T04:30:00.000+02:00"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--since", "2026-10-25T02:30+02:00"), [0, 1, 2]),
        (("--since", "2026-10-25T02:30+01:00"), [1, 2]),
        (("--since", "2026-10-25T01:30Z", "--until", "2026-10-25T02:30Z"), [1]),
        (("--since", "2026-10-25T02:30"), [0, 1, 2]),
        (("--until", "2026-10-25T02:30"), [0]),
        (("--until", "2026-10-25T02:31"), [0, 1]),
    ],
)
def test_the_hour_that_clocks_repeat(run, tmp_path, monkeypatch, arguments, expected):
    """In Berlin, clocks went from 03:00 back to 02:00 on 25 October 2026, at 01:00 UTC."""
    monkeypatch.setattr("htsat_sed.cli.selection._cost", lambda make: (0.5, "torch"))
    names = ["S_20261025_023000+0200.wav", "S_20261025_023000+0100.wav", "S_20261025_033000+0100.wav"]
    for name in names:
        soundfile.write(tmp_path / name, np.ones(RATE), RATE)
    code, out, err = run("detect", tmp_path, "--dry-run", "--timezone", "Europe/Berlin", *arguments)
    assert code == 0, err
    assert [
        names.index(row["filename"]) for row in csv.DictReader(out.splitlines(), delimiter="\t")
    ] == sorted(expected, key=lambda index: names[index])


def test_tag_takes_and_lists_the_same(card, run, model, monkeypatch, tmp_path):
    arguments = ("--since", "04:00", "--until", "13:00", "--limit", "2", "--timezone", "Europe/Berlin")
    code, _, err = run("tag", card, *arguments, "-c", model, "-o", tmp_path / "t.csv", "--top", "1")
    assert code == 0, err
    with (tmp_path / "t.csv").open() as file:
        assert [row["filename"] for row in csv.DictReader(file)] == [NAMES[1], NAMES[2]]
    monkeypatch.setattr("htsat_sed.cli.selection._cost", lambda make: (3600.0, "torch"))
    found, rows, err = taken(run, card, *arguments, command="tag")
    assert (found, rows) == taken(run, card, *arguments)[:2]
    assert found == [1, 2]
    assert "would take about 2:30:00" in err
    assert "would take about 7:30:00" in taken(run, card, *arguments, "--shifts", "3", command="tag")[2]
    assert run("tag", card, "--sample")[0] == 2


def test_recordings_of_unknown_duration_are_counted(run, monkeypatch, tmp_path):
    monkeypatch.setattr("htsat_sed.cli.selection._cost", lambda make: (0.5, "torch"))
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    (tmp_path / "b.wav").write_bytes(bytes(100))
    code, out, err = run("detect", tmp_path, "--dry-run")
    assert (code, out.splitlines()[1:]) == (0, ["a.wav\t\t1.000", "b.wav\t\t"])
    assert "2 recordings, 0.00 h of sound; the duration of 1 is unknown; nothing was written" in err


def test_a_sample_is_the_same_again(card, run, monkeypatch):
    monkeypatch.setattr("htsat_sed.cli.selection._cost", lambda make: (0.5, "torch"))
    first, _, _ = taken(run, card, "--limit", "3", "--sample")
    assert first == sorted(first)
    assert len(set(first)) == 3
    assert taken(run, card, "--limit", "3", "--sample")[0] == first


def test_the_cost_is_measured(card, run, model):
    _, _, err = taken(run, card, "--limit", "1", "-c", model)
    assert "the model would take about 0:00:0" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sample",), ("--since", "yesterday"), ("--since", "04:00", "--until", "2026-05-12"),
        ("--since", "2030-01-01"), ("--since", "25:00"), ("--channel", "all", "--scores", "maps"),
    ],
)  # fmt: skip
def test_mistakes(card, run, arguments):
    assert run("detect", card, *arguments)[0] == 2


def test_each_channel_has_its_events(card, run, model, tmp_path):
    arguments = ("detect", card / NAMES[4], card / NAMES[1], "--threshold", "0", "-c", model)
    out = tmp_path / "e.csv"
    assert run(*arguments, "--channel", "all", "-o", out)[0] == 0
    assert out.read_text().splitlines()[0].startswith("filename,onset,offset,event_label,score,channel")
    both = read_events(out)
    for number in (1, 2):
        one = tmp_path / f"{number}.csv"
        assert run(*arguments, "--channel", number, "-o", one)[0] == 0
        for name, own in read_events(one).items():
            of_channel = [(e.onset, e.offset, e.label, e.score) for e in both[name] if e.channel == number]
            assert of_channel == [(e.onset, e.offset, e.label, e.score) for e in own]
            assert of_channel
    _, printed, _ = run(*arguments, "--channel", "all", "-f", "csv")
    assert printed == out.read_text()
    assert run(*arguments, "--channel", "all", "-f", "raven", "-o", tmp_path / "raven")[0] == 0
    assert {e.channel for e in read_events(tmp_path / "raven")[NAMES[4]]} == {1, 2}


def test_a_broken_recording_fails_once(card, run, model, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    out = tmp_path / "e.csv"
    code, _, err = run(
        "detect", tmp_path / "broken.wav", card / NAMES[0], "--channel", "all", "-o", out, "-c", model
    )
    assert code == 1
    assert err.count("error: ") == 1
    assert list(read_events(out)) == [NAMES[0]]


def test_a_silent_channel_is_warned_about(tmp_path, run, model):
    sound = np.zeros((RATE, 2))
    sound[:, 0] = 0.1 * np.random.default_rng(1).normal(size=RATE)
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    warning = "its channel 2 is silent, but another channel is not"
    assert warning in " ".join(run("detect", tmp_path / "a.wav", "--channel", "2", "-c", model)[2].split())
    assert "warning" not in run("detect", tmp_path / "a.wav", "--channel", "1", "-c", model)[2]
