"""`htsat-sed evaluate` of several systems, and score files."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from htsat_sed.annotations import read_presence_maps, write_presence_map
from htsat_sed.annotations.score_files import read_score_file, write_score_file
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import AnnotationError

DESED = Path(__file__).parents[1] / "data" / "desed_public_eval"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run: Run) -> Run:
    return partial(run, "evaluate")


def test_two_systems_in_one_command(run: Run, tmp_path: Path) -> None:
    written = []
    for turn in ("one", "two"):
        files = [tmp_path / f"{turn}.{kind}" for kind in ("json", "csv", "svg", "tex")]
        options = zip(("--json", "--csv", "--plot", "--table"), files, strict=True)
        code, out, _ = run(
            *(DESED / f"{name}.tsv" for name in ("reference", "htsat_single", "htsat_ensemble")),
            *(each for pair in options for each in pair),
            *("--bootstrap", 200),
        )
        assert code == 0
        written.append([out, *(file.read_bytes() for file in files)])
    assert written[0] == written[1]
    rows = [line.split() for line in written[0][0].splitlines()]
    first = next(row for row in rows if row[:2] == ["macro", "f1"])
    assert first[2:5] == ["48.42", "50.67", "+2.25"]
    low, high, p = float(first[5]), float(first[7]), float(first[8])
    assert 0.0 < low < 2.25 < high
    assert p < 0.05
    found = json.loads((tmp_path / "one.json").read_text())
    assert list(found["systems"]) == ["htsat_single", "htsat_ensemble"]
    speech = next(d for d in found["differences"] if d["label"] == "Speech" and d["figure"] == "f1")
    assert speech["difference"]["value"] == pytest.approx(
        speech["other"]["value"] - speech["first"]["value"], abs=1e-12
    )
    assert rb"macro f1 & 48.42 & 50.67 & +2.25 & " in written[0][4]
    assert rb"htsat\_single" in written[0][4]
    assert rb"figure, \% & htsat" in written[0][4]
    assert rb" & $-$1.03 & $-$" in written[0][4]  # a minus sign, not a hyphen


def test_a_system_is_no_better_than_itself(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.tsv"
    other.write_bytes((DESED / "htsat_single.tsv").read_bytes())
    given = (DESED / "reference.tsv", DESED / "htsat_single.tsv", other)
    code, _, _ = run(*given, "--bootstrap", 20, "--csv", tmp_path / "c.csv", "--table", tmp_path / "t.md")
    assert code == 0
    rows = [line.split(",") for line in (tmp_path / "c.csv").read_text().splitlines()[1:]]
    assert {tuple(row[7:]) for row in rows if row[7]} == {("0.0", "0.0", "0.0", "1.0")}
    assert "| macro f1 | 48.42 | 48.42 | +0.00 | +0.00 to +0.00 | 1.000 |" in (tmp_path / "t.md").read_text()


def maps_of(folder: Path, height: float) -> Path:
    """Presence maps of two recordings; a dog is found for sure in one of them."""
    folder.mkdir()
    for name, row in (("day/a.wav", slice(0, 8)), ("b.wav", slice(16, 24))):
        scores = np.full((32, 2), 0.1, np.float32)
        scores[row, 0 if name == "day/a.wav" else 1] = height
        presence = PresenceMap(scores, ("Dog", "Cat"), 0.3125, 9.9)
        write_presence_map(folder / f"{Path(name).name}.npz", presence, filename=name)
    return folder


def test_a_comparison_without_resamplings_is_refused(run: Run) -> None:
    files = [DESED / f"{name}.tsv" for name in ("reference", "htsat_single", "htsat_ensemble")]
    code, out, err = run(*files, "--bootstrap", 0)
    assert (code, out) == (2, "")
    assert "--bootstrap" in err


def test_folders_of_presence_maps_and_of_score_files_are_systems(run: Run, tmp_path: Path) -> None:
    labels = tmp_path / "reference.tsv"
    labels.write_text("filename\tonset\toffset\tevent_label\nday/a.wav\t0\t2.5\tDog\nb.wav\t0\t2.5\tCat\n")
    one, other = maps_of(tmp_path / "one", 0.8), maps_of(tmp_path / "other", 0.4)
    code, out, _ = run(labels, "--scores", one, "--write-scores", tmp_path / "scores")
    assert code == 0
    assert sorted(
        p.relative_to(tmp_path / "scores").as_posix() for p in (tmp_path / "scores").rglob("*.tsv")
    ) == [
        "b.tsv",
        "day/a.tsv",
    ]
    # Read back, they are the same maps, and give the same figures.
    again = dict(read_presence_maps(tmp_path / "scores"))
    for name, presence in read_presence_maps(one):
        own = again[name.removesuffix(".wav")]
        np.testing.assert_array_equal(own.scores, presence.scores)
        assert (own.labels, own.token_seconds, own.duration) == (("Dog", "Cat"), 0.3125, 9.9)
    for given in ((labels, "--scores", tmp_path / "scores"), (labels, tmp_path / "scores")):
        code, same, _ = run(*given)
        assert (code, same) == (0, out)
    code, out, _ = run(labels, tmp_path / "scores", other, "--bootstrap", 10, "--json", tmp_path / "c.json")
    assert code == 0
    found = json.loads((tmp_path / "c.json").read_text())
    psds = next(d for d in found["differences"] if d["metric"] == "psds1" and d["label"] == "Dog")
    assert (psds["first"]["value"], psds["other"]["value"], psds["p"]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("onset\toffset\tDog\n0\t1\t0.5\n2\t3\t0.5\n", "line 2"),
        ("onset\toffset\tDog\n0\t1\t1.5\n", "outside"),
        ("onset\toffset\tDog\n0\t1\tx\n", "not a score file"),
        ("onset\toffset\tDog\n0\t0\t0.5\n", "after its onset"),
        ("onset\toffset\tDog\n", "one row per token"),
        ("", "one row per token"),
        ("onset\toffset\tDog\n0\t1\t0.5\t0.5\n", "4 columns below a header of 3"),
        ("onset\toffset\tDog\n0\t1\t0.5\n1\t2\n", "not a score file"),
    ],
)
def test_score_files_that_are_none(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(AnnotationError, match=reason):
        read_score_file(tmp_path / "a.tsv")


def test_score_files_are_those_of_sed_scores_eval(tmp_path: Path) -> None:
    io = pytest.importorskip("sed_scores_eval.base_modules.io", reason="is in the extra reference alone")
    scores = np.random.default_rng(3).random((7, 2)).astype(np.float32)
    presence = PresenceMap(scores, ("Dog", "Cat"), 0.064, 0.43)
    path = write_score_file(tmp_path, "a.wav", presence)
    frame = io.read_sed_scores(path)
    np.testing.assert_array_equal(frame[["Dog", "Cat"]].to_numpy(np.float32), scores)
    io.write_sed_scores({"b": frame}, tmp_path / "theirs")
    again = read_score_file(tmp_path / "theirs" / "b.tsv")
    np.testing.assert_array_equal(again.scores, scores)
    assert (again.token_seconds, again.duration) == (pytest.approx(0.064), pytest.approx(0.43))


@pytest.mark.parametrize("option", [("--check",), ("--scores", "maps"), ("--negatives", "maps")])
def test_what_does_not_go_with_several_systems(option: tuple[str, ...], run: Run) -> None:
    given = (DESED / "reference.tsv", DESED / "htsat_single.tsv", DESED / "htsat_ensemble.tsv")
    assert run(*given, *option)[0] == 2
    assert run(*given[:2], "--table", "t.tex")[0] == 2
    assert run(*given, "--table", "t.doc")[0] == 2
