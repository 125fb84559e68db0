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
_BUILD = re.compile(r"cpu|xpu|cu\d+|rocm[\d.]+")  # builds of torch, each with an index of its own


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
    folders = [folder for folder in sys.path if folder and Path(file).is_relative_to(folder)]
    if not folders:
        return ""
    # Outside virtual environments, site-packages lies in the folder of the standard library.
    return Path(file).relative_to(max(folders, key=len)).parts[0].removesuffix(".py")


def _error(library: str, error: BaseException, remedy: str | None = None) -> LibraryError:
    if isinstance(error, ModuleNotFoundError) and error.name == library:
        name = _distribution(library)
        return LibraryError(library, f"this library is not installed: {_install(name, _oldest(name))}")
    reason = " ".join(str(error).split()) or type(error).__name__
    remedy = remedy or _remedy(
        _distribution(library), _top(getattr(error, "name", None) or library) != library
    )
    return LibraryError(library, f"this library cannot be loaded ({reason}): {remedy}")


def _distribution(library: str) -> str:
    return metadata.packages_distributions().get(library, [_DISTRIBUTIONS.get(library, library)])[0]


def _remedy(name: str, other: bool) -> str:
    """The pip line that mends an installed library, and replaces no other.

    Args:
        name: of the distribution.
        other: whether it lacks something of another library.
    """
    release, oldest = _release(name), _oldest(name)
    public, _, build = release.partition("+")
    if build and not _BUILD.fullmatch(build):
        release = ""  # the system's own, which no index has
    if not release:
        return f"pip install --force-reinstall --no-deps {name}"
    if oldest and _numbers(public) < _numbers(oldest):
        return _install(name, oldest, build)
    if other:
        return f"{_install(name, oldest, build)} --upgrade"
    return f"pip install --force-reinstall --no-deps {name}=={release}{_index(build)}"


def _install(name: str, oldest: str, build: str = "") -> str:
    return f"pip install {shlex.quote(f'{name}>={oldest}') if oldest else name}{_index(build)}"


def _index(build: str) -> str:
    return f" --index-url https://download.pytorch.org/whl/{build}" if build else ""


def _release(name: str) -> str:
    """The installed release of a distribution; empty if unknown."""
    try:
        return metadata.version(name) or ""  # None in the remains of a stopped installation
    except metadata.PackageNotFoundError:
        return ""


def _oldest(name: str) -> str:
    """The oldest release of a distribution that htsat-sed allows; empty if it states none."""
    try:
        requirements = metadata.requires("htsat-sed") or []
    except metadata.PackageNotFoundError:  # a source tree
        return ""
    for requirement in requirements:
        found = re.match(r"([\w.-]+)(?:\[[^]]*\])?[^;]*?>=\s*([\d.]+)", requirement)
        if found and _normal(found[1]) == _normal(name):
            return found[2]
    return ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release)))
