"""No command writes over what it reads."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
TREE = Path(__file__).parents[2]

LOST = "is read, too, and would be lost: name another output"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of each kind of file, and a link to the recording; the folder of the commands."""
    shutil.copy(TREE / "examples" / "home.flac", tmp_path / "home.flac")
    (tmp_path / "link.csv").symlink_to(tmp_path / "home.flac")
    shutil.copy(TREE / "checkpoints" / "home.safetensors", tmp_path / "home.safetensors")
    (tmp_path / "labels.tsv").write_text("filename\tonset\toffset\tevent_label\nhome.flac\t0\t2\tRain\n")
    (tmp_path / "list.csv").write_text("home.flac\n")
    (tmp_path / "recipe.toml").write_text('[[data]]\nkind = "clips"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("tag home.flac -o home.flac", "home.flac"),
        ("tag home.flac -o link.csv", "link.csv"),
        ("tag @list.csv -o list.csv", "list.csv"),
        ("tag home.flac -c home.safetensors -o home.safetensors", "home.safetensors"),
        ("detect home.flac -f csv -o home.flac", "home.flac"),
        ("detect . -o link.csv", "link.csv"),
        ("detect @list.csv -o list.csv", "list.csv"),
        ("evaluate labels.tsv labels.tsv --csv labels.tsv", "labels.tsv"),
        ("tune labels.tsv --audio . -o labels.tsv", "labels.tsv"),
        ("tune labels.tsv --audio . -c home.safetensors --into home.safetensors", "home.safetensors"),
        ("checkpoints convert home.safetensors home.safetensors --float16", "home.safetensors"),
        ("checkpoints average home.safetensors home.safetensors -o home.safetensors", "home.safetensors"),
        ("train recipe.toml --data . -o recipe.toml", "recipe.toml"),
        ("soundscapes recipe.toml --data . -o .", "."),
    ],
)
def test_an_output_that_is_an_input_is_refused(run: Run, folder: Path, command: str, output: str) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, out, err = run(*command.split())
    assert (code, out) == (1, "")
    assert err.endswith(f"error: {output}: {LOST}\n")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_soundscapes_are_not_written_among_others(run: Run, folder: Path) -> None:
    (folder / "scenes").mkdir()
    (folder / "scenes" / "reference.tsv").write_text("of others")
    code, _, err = run("soundscapes", "recipe.toml", "--data", ".", "-o", "scenes")
    assert (code, err) == (1, "error: scenes/reference.tsv: is there already: name another folder\n")
    assert (folder / "scenes" / "reference.tsv").read_text() == "of others"
