"""Option groups: dataclasses whose fields are options, expanded into the parameters of a command.

    @dataclass(frozen=True)
    class RecordingOptions:
        include: Annotated[list[str] | None, typer.Option(help="...")] = None

    @with_groups
    def detect(recordings: RecordingOptions, ...) -> None: ...

Typer sees the options; the command gets the dataclass. So several commands share a group, and a new option is
declared once. A field of a group may be a group itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of a dataclass type are replaced by the fields of that dataclass.

    Args:
        command: takes option groups and ordinary Typer parameters, in the order that the help shows.

    Raises:
        TypeError: two parameters or fields have the same name.
    """
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            parameters += _parameters(parameter.annotation)
        else:
            # Keyword only, so that one with a default may stand before one without.
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    names = [parameter.name for parameter in parameters]
    if twice := {name for name in names if names.count(name) > 1}:
        raise TypeError(f"{command.__name__} has two options named {', '.join(sorted(twice))}")

    def expanded(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = _filled(group, values)
        command(**values)

    expanded.__name__, expanded.__doc__, expanded.__module__ = (
        command.__name__,
        command.__doc__,
        command.__module__,
    )
    expanded.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    expanded.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    return expanded


def _members(group: type[Any]) -> list[tuple[str, Any, Any]]:
    """Name, type and default of each field of a group, in their order."""
    hints = get_type_hints(group, include_extras=True)
    return [(field.name, hints[field.name], _default(field)) for field in fields(group)]


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    """The options of a group and of the groups in it, in the order of its fields."""
    found: list[inspect.Parameter] = []
    for name, kind, default in _members(group):
        if is_dataclass(kind):
            found += _parameters(kind)  # type: ignore[arg-type]  # a class, as all annotations here
        else:
            found.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            )
    return found


def _filled(group: type[Any], values: dict[str, Any]) -> Any:
    """A group with the values of its options, which are taken out of `values`."""
    return group(
        **{
            name: _filled(kind, values) if is_dataclass(kind) else values.pop(name)  # type: ignore[arg-type]
            for name, kind, _ in _members(group)
        }
    )


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
