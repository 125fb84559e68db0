"""Libraries that are missing or cannot be loaded: which one it is, and the pip line that mends it."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from importlib import import_module, metadata
from pathlib import Path
from traceback import walk_tb
from types import ModuleType

from htsat_sed.errors import HtsatSedError, UsageError

# Distributions of modules with another name; those of installed ones are known.
_DISTRIBUTIONS = {"PIL": "pillow"}
_PYTORCH_INDEX = "https://download.pytorch.org/whl/"


class LibraryError(HtsatSedError):
    """A library cannot be loaded; `path` is its name."""


def load(library: str, *, purpose: str, extra: str) -> ModuleType:
    """Import a library that not every installation has.

    Args:
        library: name of the module.
        purpose: what needs it.
        extra: the extra of this package that brings it.

    Raises:
        UsageError: it is not installed.
        LibraryError: it is installed, but cannot be loaded.
    """
    try:
        return import_module(library)
    except Exception as error:
        line, name = f"pip install 'htsat-sed[{extra}]'", _top(library)
        if not isinstance(error, ModuleNotFoundError):
            raise _error(name, error) from error
        if error.name == name:
            raise UsageError(f"{purpose} needs {name}: {line}") from error
        raise _error(name, error, line) from error


def require(*libraries: str, purpose: str, extra: str) -> None:
    """Refuse to go on without libraries that not every installation has, before they are imported.

    Args:
        libraries: names of modules.
        purpose: what needs them.
        extra: the extra of this package that brings them.

    Raises:
        UsageError: one is not installed.
    """
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise UsageError(f"{purpose} needs {library}: pip install 'htsat-sed[{extra}]'")


def failed_library(error: BaseException) -> LibraryError | None:
    """Find the library whose import raised an exception; None if the exception has another origin.

    It is the innermost library whose module was being executed. An exception of any class counts, because
    libraries raise OSError and RuntimeError, too, where a shared library of theirs cannot be loaded.
    """
    found = [
        _top(frame.f_globals.get("__name__", ""))
        for frame, _ in walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    ]
    if isinstance(error, ImportError) and error.name and not any(map(_is_library, found)):
        found.append(_top(error.name))
    if isinstance(error, SyntaxError) and error.filename:
        found.append(_module_of(error.filename))
    name = next(filter(_is_library, reversed(found)), None)
    return None if name is None else _error(name, error)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_library(name: str) -> bool:
    own = name in ("", "__main__", "__mp_main__", "htsat_sed")
    return not own and name not in sys.stdlib_module_names


def _module_of(file: str) -> str:
    """Top-level module of a source file; empty if it is on no path of imports."""
    path = Path(file)
    inside = [
        path.relative_to(folder).parts[0] for folder in sys.path if folder and path.is_relative_to(folder)
    ]
    return inside[0].removesuffix(".py") if inside else ""


def _error(library: str, error: BaseException, remedy: str | None = None) -> LibraryError:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if error.name == library:
            return LibraryError(
                library, f"this library is not installed: pip install {_distribution(library)}"
            )
        if (needed := _top(error.name)) != library:
            remedy = remedy or f"pip install {_distribution(needed)}"
    reason = " ".join(str(error).split()) or type(error).__name__
    return LibraryError(library, f"this library cannot be loaded ({reason}): {remedy or _remedy(library)}")


def _distribution(library: str) -> str:
    return metadata.packages_distributions().get(library, [_DISTRIBUTIONS.get(library, library)])[0]


def _remedy(library: str) -> str:
    """The pip line that mends an installed library, and changes no other."""
    name = _distribution(library)
    try:
        release = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"pip install --force-reinstall {name}"
    if (oldest := _oldest(name)) and _numbers(release) < _numbers(oldest):
        return f"pip install {shlex.quote(f'{name}>={oldest}')}"
    build = release.partition("+")[2]  # of torch, such as cpu: it is not on PyPI
    index = f" --index-url {_PYTORCH_INDEX}{build}" if build else ""
    return f"pip install --force-reinstall --no-deps {name}=={release}{index}"


def _oldest(name: str) -> str:
    """The oldest release of a distribution that htsat-sed allows; empty if it states none."""
    for requirement in metadata.requires("htsat-sed") or ():
        found = re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", requirement)
        if found and re.sub(r"[_.]", "-", found[1]).lower() == re.sub(r"[_.]", "-", name).lower():
            return found[2]
    return ""


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release.partition("+")[0])))
