"""`htsat-sed plot` on real files: what it draws, writes, says and exits with."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from golden.reference_state import recording
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from rule_made import by_rule

from htsat_sed import Event
from htsat_sed.annotations import write_events
from htsat_sed.cli import main
from htsat_sed.cli.plot import seconds
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.pictures import files as pictures

TINY = HTSATConfig(classes=3, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
RATE = 32_000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `htsat-sed plot ...` in a folder of its own: exit code, standard output, standard error."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["htsat-sed", "plot", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved, from then on."""
    drawn: list[Figure] = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: drawn.append(figure))
    return drawn


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, and recordings of 12 s and of 2 min 5 s."""
    folder = tmp_path_factory.mktemp("files")
    model = by_rule(HTSAT(TINY, ("Dog", "Cat", "Rain, light")), seed=19)
    save_checkpoint(folder / "tiny.safetensors", model, post_processing={"threshold": 0.4})
    soundfile.write(folder / "street.wav", recording(12.0, RATE, 1), RATE)
    soundfile.write(folder / "long.wav", np.tile(recording(25.0, RATE, 2), 5), RATE)
    return folder


def lanes(figure: Figure) -> list[list[str]]:
    """Labels of the lanes, strip by strip."""
    ticks = [[tick.get_text() for tick in axes.get_yticklabels()] for axes in figure.axes]
    return [texts for texts in ticks if {"Dog", "Cat"} & set(texts)]


def spans(figure: Figure) -> list[tuple[float, float]]:
    return [axes.get_xlim() for axes in figure.axes if axes.images]


def test_default_name_in_the_current_folder(run: Run, files: Path, tmp_path: Path) -> None:
    code, out, err = run(files / "street.wav", "-c", files / "tiny.safetensors")
    assert (code, out, err) == (0, "", "wrote street.wav.png\n")
    assert [path.name for path in (tmp_path / "here").glob("[!.]*")] == ["street.wav.png"]
    assert (tmp_path / "here" / "street.wav.png").read_bytes().startswith(b"\x89PNG")


def test_name_folder_and_format(run: Run, files: Path, tmp_path: Path) -> None:
    model = ("-c", files / "tiny.safetensors")
    assert run(files / "street.wav", *model, "-o", "new/folder/a.svg") == (0, "", "")
    assert (tmp_path / "here/new/folder/a.svg").read_text().startswith("<?xml")
    code, _, err = run(files / "street.wav", *model, "-o", "new")
    assert (code, err) == (0, "wrote new/street.wav.png\n")


def bar_collections(figure: Figure) -> list[PolyCollection]:
    """The bars of events in the first lanes, without the lines of thresholds."""
    return [each for each in figure.axes[1].collections if isinstance(each, PolyCollection)]


def test_range_and_strips(run: Run, files: Path, figures: list[Figure]) -> None:
    model = ("-c", files / "tiny.safetensors")
    assert run(files / "street.wav", *model)[0] == 0
    assert run(files / "long.wav", *model)[0] == 0
    assert run(files / "long.wav", *model, "--row", "3:00")[0] == 0
    assert run(files / "long.wav", *model, "--start", "0:30", "--end", "1:10", "--row", "20")[0] == 0
    assert run(files / "long.wav", *model, "--start", "2:00", "--end", "1:00:00")[0] == 0
    assert [spans(figure) for figure in figures] == [
        [(0.0, 12.0)],
        [(0.0, 125.0), (0.0, 60.0), (60.0, 120.0), (120.0, 180.0)],  # the first is the overview
        [(0.0, 125.0)],
        [(30.0, 70.0), (30.0, 50.0), (50.0, 70.0)],
        [(120.0, 125.0)],
    ]


def test_a_range_shows_the_events_of_the_whole(run: Run, files: Path, figures: list[Figure]) -> None:
    # With these weights and thresholds, events lie across 40 s and 60 s, where windows meet.
    model = ["-c", files / "tiny.safetensors", "--median-filter", "0.9", "--labels", "Cat"]
    model += ["--labels", "Rain, light", "--threshold", "Cat=0.075", "--threshold", "Rain, light=0.12"]
    assert run(files / "long.wav", *model, "--row", "1000")[0] == 0
    assert run(files / "long.wav", *model, "--start", "40", "--end", "60")[0] == 0

    def drawn(figure: Figure) -> set[tuple[float, float, int]]:
        boxes = [path.get_extents() for bars in bar_collections(figure) for path in bars.get_paths()]
        clipped = [(max(box.x0, 40.0), min(box.x1, 60.0), int(box.y0)) for box in boxes]
        return {(onset, offset, lane) for onset, offset, lane in clipped if onset < offset}

    assert run(files / "long.wav", *model, "--row", "1000", "--edge-level", "Cat=0.5")[0] == 0
    assert {lane for _, _, lane in drawn(figures[0])} == {0, 1}
    assert {40.0, 59.6875} < {onset for onset, _, _ in drawn(figures[0])}
    assert drawn(figures[1]) == drawn(figures[0])
    # Edges of the class that was named lie between tokens, the other's where they were.
    moved = drawn(figures[0]) ^ drawn(figures[2])
    assert moved
    assert len({lane for _, _, lane in moved}) == 1


def test_classes(run: Run, files: Path, figures: list[Figure]) -> None:
    model = ("-c", files / "tiny.safetensors", "--threshold", "0")
    code, _, err = run(files / "street.wav", *model, "--classes", "1")
    assert (code, len(figures[0].axes[1].get_yticklabels())) == (0, 1)
    assert err.splitlines()[0] == "note: 2 more classes have events: --classes 3 shows all"
    code, _, err = run(files / "street.wav", *model, "--labels", "Cat", "--labels", "Dog")
    assert lanes(figures[1]) == [["Dog", "Cat"]]
    assert "note" not in err


def test_reference_of_this_recording(run: Run, files: Path, tmp_path: Path, figures: list[Figure]) -> None:
    street = [Event(1.0, 2.0, "Cat"), Event(3.0, 4.0, "Unicorn")]
    write_events(
        tmp_path / "labels.tsv", {"other.wav": [Event(0.0, 1.0, "Dog")], "street.wav": street}, "tsv"
    )
    write_events(tmp_path / "street.txt", {"street.wav": street}, "audacity")
    write_events(tmp_path / "mine.txt", {"street.wav": street}, "audacity")
    for name in ("labels.tsv", "street.txt", "mine.txt"):
        options = ("-c", files / "tiny.safetensors", "--threshold", "1", "-r", tmp_path / name)
        assert run(files / "street.wav", *options) == (0, "", "wrote street.wav.png\n")
        figure = figures.pop()
        (labels,) = lanes(figure)
        assert set(labels[:2]) == {"Cat", "Unicorn"}
        boxes = [path.get_extents() for bars in bar_collections(figure) for path in bars.get_paths()]
        assert sorted((box.x0, box.x1, labels[int(box.y0)]) for box in boxes) == [
            (1.0, 2.0, "Cat"),
            (3.0, 4.0, "Unicorn"),
        ]


def test_reference_without_this_recording(run: Run, files: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    write_events(path, {f"{i}.wav": [] for i in range(5)}, "tsv")
    code, _, err = run(files / "street.wav", "-c", files / "tiny.safetensors", "-r", path)
    assert (code, err) == (
        1,
        f"error: {path}: has no recording street.wav: it has 0.wav, 1.wav, 2.wav and 2 more\n",
    )
    assert list((tmp_path / "here").iterdir()) == []


def test_a_broken_recording(run: Run, files: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(b"no audio")
    code, out, err = run(path, "-c", files / "tiny.safetensors")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {path}: ")
    assert list((tmp_path / "here").iterdir()) == []


def test_warnings_are_shown_once(run: Run, files: Path, tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    samples = recording(2.0, RATE, 1)
    samples[100] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    code, _, err = run(path, "-c", files / "tiny.safetensors", "-o", "a.png")
    assert code == 0
    assert [line.split(": ")[0] for line in err.splitlines()] == ["warning"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "a.jpg"], ".png, .svg or .pdf, got a.jpg"),
        (["--start", "5", "--end", "0:05"], "wanted a range that ends after its start, got 5 to 5 s"),
        (["--start", "now"], "wanted seconds, min:s or h:min:s, got 'now'"),
        (["--row", "0"], "wanted strips of more than 0 s"),
        (["--start", "13"], "ends at 0:12.00, before the range begins at 0:13.00"),
        (["--row", "0.01"], "show fewer classes, longer strips, or a shorter range"),
    ],
)
def test_usage(run: Run, files: Path, tmp_path: Path, options: list[str], message: str) -> None:
    code, out, err = run(files / "street.wav", "-c", files / "tiny.safetensors", *options)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert list((tmp_path / "here").iterdir()) == []


def test_standard_input_is_refused(run: Run) -> None:
    code, _, err = run("-")
    assert code == 2
    assert "reads a recording twice, and standard input can be read only once" in " ".join(
        err.replace("│", " ").split()
    )


def test_seconds() -> None:
    assert [seconds(text) for text in ("90", "1.25", "1:30", "1:02:03.5", "90:00", "0:00")] == [
        90.0,
        1.25,
        90.0,
        3723.5,
        5400.0,
        0.0,
    ]
    for text in ("", "x", "-1", "1:-2", "1.5:00", "1:2:3:4", "nan", "inf", ":5", "1:", "1:nan"):
        with pytest.raises(ValueError, match="wanted seconds, min:s or h:min:s, got "):
            seconds(text)
