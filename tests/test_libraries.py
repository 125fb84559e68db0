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
from htsat_sed.libraries import _error as error_of

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
    ("text", "reason", "remedy"),
    [
        (BROKEN, REASON, "pip install --force-reinstall --no-deps broken_library"),
        ("raise RuntimeError('of another\\nrelease')", "(of another release)", "broken_library"),
        ("from numpy import nothing_like_it", "(cannot import name 'nothing_like_it' from 'numpy'", ""),
        ("import nothing_like_it", "(No module named 'nothing_like_it')", ""),
        ("import json.nothing", "(No module named 'json.nothing')", ""),
        ("class A: pass\nA.nothing", "(type object 'A' has no attribute 'nothing')", ""),
        ("def broken(:", "(invalid syntax", ""),
    ],
)
def test_whatever_an_import_raises_is_the_library_s(
    library: Callable[[str, str], None], text: str, reason: str, remedy: str
) -> None:
    library("broken_library", text)
    library("outer_library", "import broken_library")
    with pytest.raises(Exception) as raised:  # noqa: PT011
        importlib.import_module("outer_library")
    found = failed_library(raised.value)
    assert found is not None
    assert found.path == "broken_library"
    assert str(found).startswith(f"broken_library: this library cannot be loaded {reason}")
    assert str(found).endswith(remedy)


def test_a_library_is_found_in_the_innermost_folder_of_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "broken_library"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def broken(:")
    for folder in (tmp_path / "site-packages", tmp_path):
        monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(SyntaxError) as raised:
        importlib.import_module("broken_library")
    found = failed_library(raised.value)
    assert found is not None
    assert found.path == "broken_library"


INSTALLED = {
    "av": "12.3.0",
    "numpy": "2.9.0",
    "torch": "2.13.0+cpu",
    "torchaudio": "2.4.0+cu128",
    "pandas": "2.3.3",
    "scipy": "1.18.0+ds",
    "fsspec": "2020.1",
    "half-removed": None,
}


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ModuleNotFoundError("No module named 'PIL'", name="PIL"), "pip install pillow"),
        (ModuleNotFoundError("No module named 'soxr'", name="soxr"), "pip install 'soxr>=1.0'"),
        (ImportError("old", name="av"), "pip install 'av>=18.1'"),
        (ImportError("old", name="fsspec"), "pip install 'fsspec>=2026.9'"),
        (
            ImportError("damaged", name="torch"),
            "pip install --force-reinstall --no-deps torch==2.13.0+cpu "
            "--index-url https://download.pytorch.org/whl/cpu",
        ),
        (
            ImportError("old", name="torchaudio"),
            "pip install 'torchaudio>=2.11.1' --index-url https://download.pytorch.org/whl/cu128",
        ),
        (ImportError("damaged", name="numpy"), "pip install --force-reinstall --no-deps numpy==2.9.0"),
        (ImportError("damaged", name="scipy"), "pip install --force-reinstall --no-deps scipy"),
        (ImportError("damaged", name="half-removed"), "pip install --force-reinstall --no-deps half-removed"),
    ],
)
def test_remedies(monkeypatch: pytest.MonkeyPatch, error: ImportError, remedy: str) -> None:
    wanted = ["torch>=2.13", "av>=18.1", "soxr>=1.0", 'torchaudio>=2.11.1; extra == "train"']
    wanted += ['numpy<2.4; extra == "reference"', 'fsspec[http]<3000,>=2026.9; extra == "remote"']
    monkeypatch.setattr(metadata, "version", INSTALLED.__getitem__)
    monkeypatch.setattr(metadata, "packages_distributions", dict)
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    assert str(failed_library(error)).endswith(f": {remedy}")


def test_a_library_that_needs_another_is_upgraded_in_its_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", INSTALLED.__getitem__)
    monkeypatch.setattr(metadata, "requires", lambda _: None)
    error = ModuleNotFoundError("No module named 'sympy'", name="sympy")
    assert "torch: this library cannot be loaded" in str(error_of("torch", error))
    assert str(error_of("torch", error)).endswith(
        ": pip install torch --index-url https://download.pytorch.org/whl/cpu --upgrade"
    )
    assert str(error_of("pandas", error)).endswith(": pip install pandas --upgrade")


def test_without_metadata_of_this_package_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(metadata, "requires", absent)
    assert str(failed_library(ImportError("x", name="rich"))).endswith(
        ": pip install --force-reinstall --no-deps rich"
    )


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
    with pytest.raises(LibraryError, match="--force-reinstall --no-deps broken_library"):
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
