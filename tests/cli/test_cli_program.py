"""The end of a process: what it exits with, and that nothing which waits for the end is left out."""

import atexit
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from htsat_sed import cli


class Ended(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch) -> list[int | str]:
    """What happened at the end, in order: ``at exit``, then the exit code."""
    happened: list[int | str] = []

    def exit_now(code: int) -> NoReturn:
        happened.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", exit_now)
    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: happened.append("at exit"))
    return happened


def test_hints_name_the_command_also_by_python_m() -> None:
    command = [sys.executable, "-m", "htsat_sed", "detect", "--nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "(htsat-sed detect --help)" in done.stderr


def test_the_backend_of_a_notebook_is_ignored(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "htsat_sed", "plot", "examples/home.flac", "-o", tmp_path / "home.png"]
    notebook = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=notebook, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "home.png").is_file()) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (None, 0),
        (SystemExit(), 0),
        (SystemExit(2), 2),
        (SystemExit("words"), 1),
        (KeyboardInterrupt(), 130),
        (RuntimeError("broken"), 70),
    ],
)
def test_exit_codes(
    ending: BaseException | None,
    code: int,
    end: list[int | str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> None:
        if ending is not None:
            raise ending

    monkeypatch.setattr(cli, "main", main)
    with pytest.raises(Ended):
        cli.program()
    assert end == ["at exit", code]
    err = capsys.readouterr().err
    assert ("RuntimeError: broken" in err) == isinstance(ending, RuntimeError)
    assert ("error: words" in err) == (code == 1)


@pytest.mark.parametrize(("error", "code"), [(BrokenPipeError(), 0), (OSError(28, "No space left"), 1)])
def test_what_cannot_be_written_in_the_end(
    error: OSError, code: int, end: list[int | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise error

    monkeypatch.setattr(cli, "main", lambda: None)
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(Ended):
        cli.program()
    assert end == ["at exit", code]


def test_the_version_on_a_full_disk(
    end: list[int | str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("a system without it")
    monkeypatch.setattr(sys, "argv", ["htsat-sed", "--version"])
    with capfd.disabled(), full.open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(cli, "report", lambda error: end.append(str(error)))
        with pytest.raises(Ended):
            cli.program()
    assert end == ["standard output: cannot be written: No space left on device", "at exit", 1]


def test_a_bug_is_no_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A ValueError of a library shows its traceback; only our own kind is a usage error in one line."""

    def broken(*_: object, **__: object) -> NoReturn:
        raise ValueError("operands could not be broadcast together with shapes (3,) (4,)")

    monkeypatch.setattr("htsat_sed.evaluation.evaluate.evaluate_strong", broken)
    labels = tmp_path / "labels.tsv"
    labels.write_text("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\n")
    monkeypatch.setattr(sys, "argv", ["htsat-sed", "evaluate", str(labels), str(labels)])
    with pytest.raises(ValueError, match="could not be broadcast"):
        cli.main()


def test_the_package_raises_no_other_value_error() -> None:
    folder = Path(cli.__file__).parents[1]
    own = {path: path.read_text(encoding="utf-8").count("raise ValueError") for path in folder.rglob("*.py")}
    assert [str(path) for path, count in own.items() if count] == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["rec/"], "No such command 'rec/'. To detect events in it: htsat-sed detect rec/"),
        (["my rec"], "No such command 'my rec'. To detect events in it: htsat-sed detect 'my rec'"),
        (["nothing"], "No such command 'nothing'. (htsat-sed --help)"),
        (["checkpoints", "nothing"], "No such command 'nothing'. (htsat-sed checkpoints --help)"),
        (["detect"], "Missing argument 'PATH'. (htsat-sed detect --help)"),
    ],
)
def test_usage_errors_take_one_line(
    arguments: list[str],
    line: str,
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rec").mkdir()
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None, raising=False)  # named by sys.argv
    Path("my rec").touch()
    assert run(*arguments) == (2, "", f"error: {line}\n")


def test_a_command_without_arguments_shows_its_help(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None, raising=False)  # named by sys.argv
    code, out, err = run("checkpoints")
    assert code == 2
    assert "Usage: htsat-sed checkpoints [OPTIONS] COMMAND" in out + err
