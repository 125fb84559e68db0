"""No command writes over what it reads, and what only looks like that is written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from htsat_sed.errors import HtsatSedError
from htsat_sed.runs.output_checks import check_apart

Run = Callable[..., tuple[int, str, str]]
TREE = Path(__file__).parents[2]

READ = "is also an input: name another output"
AUDIO = "has the suffix of a recording, which could be lost: name another output"
TWICE = "would be written twice"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of each kind of file, and a link to the recording; the folder of the commands."""
    shutil.copy(TREE / "examples" / "home.flac", tmp_path / "home.flac")
    (tmp_path / "link.csv").symlink_to(tmp_path / "home.flac")
    shutil.copy(TREE / "checkpoints" / "home.safetensors", tmp_path / "home.safetensors")
    (tmp_path / "reference.tsv").write_text("filename\tonset\toffset\tevent_label\nhome.flac\t0\t2\tRain\n")
    (tmp_path / "labels.csv").write_text("label\nRain\n")
    (tmp_path / "map.csv").write_text("label,source\nWet,Rain\n")
    (tmp_path / "values.toml").write_text("threshold = 0.3\n")
    (tmp_path / "list.csv").write_text("home.flac\n")
    (tmp_path / "recipe.toml").write_text('start = "home.safetensors"\n[[data]]\nkind = "clips"\n')
    (tmp_path / "tracks").mkdir()
    (tmp_path / "tracks" / "home.flac.txt").write_text("0\t2\tRain\n")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "clips.csv").write_text(
        "filename,onset,offset,event_label,mine\nhome.flac,0,2,Rain,x\n"
    )
    (tmp_path / "audio").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "output", "reason"),
    [
        ("tag home.flac -o home.flac", "home.flac", AUDIO),
        ("tag home.flac -o link.csv", "link.csv", READ),
        ("tag @list.csv -o list.csv", "list.csv", READ),
        ("tag home.flac -c home.safetensors -o home.safetensors", "home.safetensors", READ),
        ("tag home.flac --labels labels.csv -o labels.csv", "labels.csv", READ),
        ("tag home.flac --map map.csv -o map.csv", "map.csv", READ),
        ("tag home.flac -o audio", "audio", "is a folder: name a file"),
        ("detect home.flac -f csv -o home.flac", "home.flac", READ),
        ("detect . -o link.csv", "link.csv", READ),
        ("detect @list.csv -o list.csv", "list.csv", READ),
        ("detect home.flac --labels labels.csv -o labels.csv", "labels.csv", READ),
        ("detect home.flac --post-processing values.toml -f csv -o values.toml", "values.toml", READ),
        ("evaluate reference.tsv reference.tsv --csv reference.tsv", "reference.tsv", READ),
        ("evaluate reference.tsv --audio . --json home.flac", "home.flac", AUDIO),
        (
            "evaluate reference.tsv tracks --json tracks/home.flac.txt",
            "tracks/home.flac.txt",
            "lies in the input tracks: name another output",
        ),
        ("evaluate reference.tsv reference.tsv --json new --csv new", "new", TWICE),
        ("tune reference.tsv --audio . -o reference.tsv", "reference.tsv", READ),
        (
            "tune reference.tsv --audio . -c home.safetensors --into home.safetensors",
            "home.safetensors",
            READ,
        ),
        ("checkpoints convert home.safetensors home.safetensors --float16", "home.safetensors", READ),
        (
            "checkpoints average home.safetensors home.safetensors -o home.safetensors",
            "home.safetensors",
            READ,
        ),
        (
            "checkpoints export none/home.onnx",
            "none/home.onnx",
            "cannot be written: its folder does not exist",
        ),
        ("train recipe.toml --data . -o home.safetensors", "home.safetensors", READ),
        ("segments clips/clips.csv --audio . -o clips --overwrite", "clips/clips.csv", READ),
        ("soundscapes recipe.toml --data . -o .", "reference.tsv", "exists: name another folder"),
        (
            "soundscapes recipe.toml --data tracks/../audio -o tracks/..",
            "tracks/../reference.tsv",
            "exists",
        ),
    ],
)
def test_what_would_be_lost_is_refused(
    run: Run, folder: Path, command: str, output: str, reason: str
) -> None:
    before = contents(folder)
    code, out, err = run(*command.split())
    assert (code, out) == (1, "")
    assert f"error: {output}: {reason}" in err
    assert contents(folder) == before


def test_standard_output_is_refused_where_only_a_file_will_do(run: Run, folder: Path) -> None:
    code, _, err = run("evaluate", "reference.tsv", "reference.tsv", "--json", "-")
    assert (code, err) == (1, "error: -: standard output is not possible here: name a file or folder\n")


def test_a_checkpoint_without_a_file_name_is_known_too(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = folder / "home.safetensors"
    monkeypatch.setattr("htsat_sed.model.catalogue.bundled_checkpoint", lambda: own)
    before = own.read_bytes()
    for arguments in (["tag", "home.flac", "-o"], ["checkpoints", "convert", "home"]):
        code, _, err = run(*arguments, own)
        assert (code, err) == (1, f"error: {own}: {READ}\n")
    assert own.read_bytes() == before


def test_soundscapes_are_not_written_over_their_clips(run: Run, folder: Path) -> None:
    (folder / "reference.tsv").unlink()
    for data in (".", "audio"):
        code, _, err = run("soundscapes", "recipe.toml", "--data", data, "-o", ".")
        assert (code, err) == (1, "error: audio: holds the clips to mix: name another folder\n")


def test_the_same_command_writes_again(run: Run, folder: Path) -> None:
    (folder / "@list.csv").write_text("is no list")
    (folder / "@list.csv").rename(folder / "@home.flac")
    for command in ("tag home.flac -o tags.csv", "detect home.flac -o events.csv", "detect . -o events.csv"):
        for _ in range(2):
            assert run(*command.split(), "--include", "home.flac")[0] == 0
    (folder / "home").write_text("not the bundled checkpoint")
    assert run("tag", "home.flac", "-c", "home", "-o", "home", "--overwrite")[0] == 0


def test_devices_take_any_number_of_outputs(tmp_path: Path) -> None:
    null = Path(os.devnull)
    check_apart([null, null], [null, tmp_path])
    check_apart([tmp_path / "new"], [tmp_path])
    with pytest.raises(HtsatSedError, match="would be written twice"):
        check_apart([tmp_path / "new", tmp_path / "." / "new"], [])


@pytest.mark.parametrize(
    "how", ["-o labels.txt", "-f audacity -o labels.txt", "-f raven -o labels.selections.txt"]
)
def test_a_file_for_labels_of_several_recordings_is_refused(run: Run, folder: Path, how: str) -> None:
    """It would become a folder that is named like a file."""
    shutil.copy(folder / "home.flac", folder / "audio" / "a.flac")
    shutil.copy(folder / "home.flac", folder / "audio" / "b.flac")
    code, _, err = run("detect", "audio", *how.split())
    assert code == 2
    assert "name a folder for the files of 2 recordings" in " ".join(err.replace("│", " ").split())
    assert not list(folder.glob("labels.*txt"))
