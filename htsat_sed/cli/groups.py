"""Option groups: dataclasses whose fields are options, expanded into the parameters of a command.

    @dataclass(frozen=True)
    class RecordingOptions:
        panel: ClassVar[str] = RECORDINGS
        paths: list[str] = argument(REQUIRED, "Recordings and folders.", metavar="PATH")
        include: list[str] | None = option(None, "In folders, take only these.", metavar="PATTERN")

    @with_groups
    def detect(recordings: RecordingOptions, model: Annotated[ModelOptions, Without("hop")]) -> None: ...

Typer sees the options; the command gets the dataclass. So several commands share a group, and a new option is
declared once. A field may be a group itself. Groups of several commands are in `recording_options`,
`model_options`, `event_options`, `run_options`, `message_options` and so on; options of one command alone are
beside it. Every command that takes longer than a second takes `MessageOptions`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import MISSING, Field, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo, ParameterInfo

REQUIRED = MISSING  # default of an argument or option that must be given
_INFO = "typer"

# Panels of the help.
RECORDINGS = "Recordings"
MODEL = "Model"
EVENTS = "From presence map to events"
OUTPUT = "Output"
MESSAGES = "Messages"

# Help of an option that several groups have.
SAFE_CELLS = (
    "In CSV and TSV, put an apostrophe before names and labels that begin with = + - or @, so that "
    "spreadsheets do not run them as formulas."
)


class Without:
    """Options of a group that a command leaves out; they keep their defaults.

    Args:
        names: of fields; that of a group in it leaves out all of that.
    """

    def __init__(self, *names: str) -> None:
        self.names = names


def option(default: Any, text: str, *names: str, **settings: Any) -> Any:
    """A field of a group that is an option.

    Args:
        default: value, or `REQUIRED`.
        text: help.
        names: such as ``--output``; without any, the field's name.
        settings: as `typer.Option` takes them; the help panel is the group's where none is given.
    """
    return field(default=default, metadata={_INFO: typer.Option(*names, help=text, **settings)})


def argument(default: Any, text: str, **settings: Any) -> Any:
    """A field of a group that is an argument; as `option`, but named by `metavar` alone."""
    return field(default=default, metadata={_INFO: typer.Argument(help=text, **settings)})


def unless_dash(path: Path | None) -> Path | None:
    """For the option of an output that is standard output by default: ``-o -`` is, too."""
    return None if path == Path("-") else path


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of a dataclass type are replaced by the fields of that dataclass.

    Args:
        command: takes option groups and ordinary Typer parameters, in the order that the help shows.

    Raises:
        TypeError: two parameters or fields have the same name.
    """
    groups: dict[str, tuple[type[Any], tuple[str, ...]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind, without = _group(parameter.annotation)
        if kind is None:
            # Keyword only, so that one with a default may stand before one without.
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            groups[parameter.name] = kind, without
            parameters += _parameters(kind, without)
    names = [parameter.name for parameter in parameters]
    if twice := {name for name in names if names.count(name) > 1}:
        raise TypeError(f"{command.__name__} has two options named {', '.join(sorted(twice))}")

    def expanded(**values: Any) -> None:
        for name, (kind, without) in groups.items():
            values[name] = _made(kind, without, values)
        command(**values)

    expanded.__name__, expanded.__doc__, expanded.__module__ = (
        command.__name__,
        command.__doc__,
        command.__module__,
    )
    expanded.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    expanded.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    return expanded


def _group(annotation: Any) -> tuple[type[Any] | None, tuple[str, ...]]:
    """The dataclass that an annotation names, if it names one, and the options that are left out."""
    without: tuple[str, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *about = get_args(annotation)
        without = tuple(name for each in about if isinstance(each, Without) for name in each.names)
    return (annotation, without) if isinstance(annotation, type) and is_dataclass(annotation) else (None, ())


def _parameters(group: type[Any], without: tuple[str, ...]) -> Iterator[inspect.Parameter]:
    """The options of a group, in the order of its fields."""
    hints = get_type_hints(group, include_extras=True)
    for each in fields(group):
        if each.name in without:
            continue
        inner, more = _group(hints[each.name])
        if inner is not None:
            yield from _parameters(inner, without + more)
        else:
            yield inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if each.default is MISSING else each.default,
                annotation=_annotation(hints[each.name], each, group),
            )


def _annotation(hint: Any, each: Field[Any], group: type[Any]) -> Any:
    """The type of a field with what Typer is to show of it."""
    if _INFO not in each.metadata:
        return hint
    info: ParameterInfo = copy(each.metadata[_INFO])
    if info.rich_help_panel is None and isinstance(info, OptionInfo):
        info.rich_help_panel = getattr(group, "panel", None)
    if each.default is None or each.default is MISSING:
        info.show_default = False
    return Annotated[hint, info]


def _made(group: type[Any], without: tuple[str, ...], values: dict[str, Any]) -> Any:
    """A group of its values, which are taken out of those of the command; others keep their defaults."""
    hints = get_type_hints(group, include_extras=True)
    own: dict[str, Any] = {}
    for each in fields(group):
        if each.name not in without:
            inner, more = _group(hints[each.name])
            own[each.name] = values.pop(each.name) if inner is None else _made(inner, without + more, values)
    return group(**own)
