"""Libraries that are missing or cannot be loaded: which one it is, and the pip line that mends it."""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module, metadata
from traceback import walk_tb
from types import ModuleType

from htsat_sed.errors import HtsatSedError, UsageError


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
    name = next(filter(_is_library, reversed(found)), None)
    return None if name is None else _error(name, error)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_library(name: str) -> bool:
    own = name in ("", "__main__", "__mp_main__", "htsat_sed")
    return not own and name not in sys.stdlib_module_names


def _error(library: str, error: BaseException, remedy: str | None = None) -> LibraryError:
    if isinstance(error, ModuleNotFoundError) and error.name == library:
        return LibraryError(library, f"this library is not installed: pip install {library}")
    reason = " ".join(str(error).split()) or type(error).__name__
    return LibraryError(library, f"this library cannot be loaded ({reason}): {remedy or _remedy(library)}")


def _remedy(library: str) -> str:
    """The pip line that installs a library anew."""
    distributions = metadata.packages_distributions().get(library, [library])
    return f"pip install --upgrade --force-reinstall {distributions[0]}"
