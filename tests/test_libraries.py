"""Libraries that cannot be loaded are named, with the pip line that mends it; other faults are not theirs."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from htsat_sed.cli import main
from htsat_sed.errors import UsageError
from htsat_sed.libraries import LibraryError, failed_library, load, require

BROKEN = "import ctypes\nctypes.CDLL('libnowhere.so.1')\n"
REASON = "(libnowhere.so.1: cannot open shared object file: No such file or directory)"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Make a module that can be imported until the end of the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BROKEN, REASON),
        ("raise RuntimeError('of another\\nrelease')", "(of another release)"),
        ("from numpy import nothing_like_it", "(cannot import name 'nothing_like_it' from 'numpy'"),
        ("class A: pass\nA.nothing", "(type object 'A' has no attribute 'nothing')"),
        ("def broken(:", "(invalid syntax"),
    ],
)
def test_whatever_an_import_raises_is_the_library_s(
    library: Callable[[str, str], None], text: str, reason: str
) -> None:
    library("broken_library", text)
    library("outer_library", "import broken_library")
    with pytest.raises(Exception) as raised:  # noqa: PT011
        importlib.import_module("outer_library")
    found = failed_library(raised.value)
    assert found is not None
    assert found.path == "broken_library"
    assert str(found).startswith(f"broken_library: this library cannot be loaded {reason}")
    assert str(found).endswith(": pip install --force-reinstall broken_library")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ModuleNotFoundError("No module named 'pytz'", name="pytz"), "pip install pytz"),
        (ModuleNotFoundError("No module named 'PIL'", name="PIL"), "pip install pillow"),
        (ImportError("old", name="av"), "pip install 'av>=18.1'"),
        (
            ImportError("damaged", name="torch"),
            "torch==2.13.0+cpu --index-url https://download.pytorch.org/whl/cpu",
        ),
        (ImportError("damaged", name="numpy"), "pip install --force-reinstall --no-deps numpy==2.9.0"),
    ],
)
def test_the_remedy_changes_nothing_but_the_library(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, remedy: str
) -> None:
    installed = {"av": "12.3.0", "torch": "2.13.0+cpu", "numpy": "2.9.0"}
    monkeypatch.setattr(metadata, "version", installed.__getitem__)
    monkeypatch.setattr(metadata, "packages_distributions", dict)
    monkeypatch.setattr(
        metadata, "requires", lambda _: ["torch>=2.13", "av>=18.1", 'numpy<2.4; extra == "x"']
    )
    assert str(failed_library(error)).endswith(remedy)


def test_a_module_that_a_library_lacks_is_installed(library: Callable[[str, str], None]) -> None:
    library("half_library", "import nothing_like_it")
    with pytest.raises(ModuleNotFoundError) as raised:
        importlib.import_module("half_library")
    found = str(failed_library(raised.value))
    assert found.endswith("cannot be loaded (No module named 'nothing_like_it'): pip install nothing_like_it")


def test_other_exceptions_have_no_library() -> None:
    for fault in (lambda: 1 / 0, lambda: Path("/nowhere/at/all").read_text(), lambda: int("x")):
        with pytest.raises((ArithmeticError, OSError, ValueError)) as raised:
            fault()
        assert failed_library(raised.value) is None
    with pytest.raises(ImportError) as halted:
        importlib.import_module("htsat_sed.nothing")
    assert failed_library(halted.value) is None


def test_load_tells_missing_from_broken(library: Callable[[str, str], None]) -> None:
    assert load("json", purpose="this", extra="train").__name__ == "json"
    with pytest.raises(UsageError, match=r"this needs nowhere_lib: pip install 'htsat-sed\[train\]'"):
        load("nowhere_lib", purpose="this", extra="train")
    library("half_library", "import nowhere_lib")
    with pytest.raises(LibraryError, match=r"'nowhere_lib'\): pip install 'htsat-sed\[train\]'"):
        load("half_library", purpose="this", extra="train")
    library("broken_library", BROKEN)
    with pytest.raises(LibraryError, match="--force-reinstall broken_library"):
        load("broken_library", purpose="this", extra="train")


def test_require_names_what_is_missing() -> None:
    require("json", "csv", purpose="this", extra="train")
    with pytest.raises(UsageError, match=r"this needs nowhere_lib: pip install 'htsat-sed\[train\]'"):
        require("json", "nowhere_lib", purpose="this", extra="train")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("typer", ["--version"]),
        ("rich", ["detect", "a.wav"]),
        ("torch", ["detect", "a.wav"]),
        ("av", ["detect", "a.wav"]),
        ("numpy", ["evaluate", "a.tsv", "a.tsv"]),
        ("scipy", ["evaluate", "a.tsv", "a.tsv"]),
        ("pyarrow", ["evaluate", "a.parquet", "a.parquet"]),
        ("matplotlib", ["plot", "a.wav", "-o", "a.png"]),
        ("lightning", ["train", "r.toml", "--data", ".", "-o", "a.safetensors"]),
    ],
)
def test_command_names_the_library(name: str, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"{name}.py").write_text(BROKEN)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "r.toml").write_text("")
    (tmp_path / "a.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\n")
    done = subprocess.run(
        [sys.executable, "-m", "htsat_sed", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "lib"), *sys.path])},
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {name}: this library cannot be loaded {REASON}: pip install ")


def test_a_fault_without_a_file_name_is_not_that_of_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object, prog_name: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("htsat_sed.cli.app", fail)
    monkeypatch.setattr(sys, "argv", ["htsat-sed", "detect"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: No space left on device (--debug shows where)\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")
@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "a.tsv", "a.tsv"]])
def test_standard_output_that_is_full(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\n")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-u", "-m", "htsat_sed", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output: No space left on device\n"
