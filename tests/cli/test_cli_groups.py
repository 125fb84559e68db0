"""Option groups: what Typer sees, and what the command gets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from htsat_sed.cli.groups import REQUIRED, Without, argument, option, with_groups


@dataclass(frozen=True)
class Filters:
    include: Annotated[list[str] | None, typer.Option(help="Take these.")] = None
    depth: Annotated[int, typer.Option("--depth", "-d", min=1, help="Folders below.")] = 3


def test_options_of_a_group_reach_the_command_as_the_dataclass() -> None:
    got = []

    @with_groups
    def command(path: Annotated[str, typer.Argument()], filters: Filters, loud: bool = False) -> None:
        """Do it."""
        got.append((path, filters, loud))

    app = typer.Typer()
    app.command()(command)
    runner = CliRunner()
    assert runner.invoke(app, ["a"]).exit_code == 0
    assert runner.invoke(app, ["a", "--include", "x", "--include", "y", "-d", "5", "--loud"]).exit_code == 0
    assert got == [("a", Filters(None, 3), False), ("a", Filters(["x", "y"], 5), True)]
    shown = runner.invoke(app, ["--help"]).output
    assert "Do it." in shown
    assert "Take these." in shown
    assert runner.invoke(app, ["a", "-d", "0"]).exit_code == 2


@dataclass(frozen=True)
class Machine:
    panel: ClassVar[str] = "Hardware"
    device: str = option("cpu", "Where it runs.", metavar="NAME")


@dataclass(frozen=True)
class Model:
    panel: ClassVar[str] = "Weights"
    path: str = argument(REQUIRED, "A file.", metavar="FILE")
    hop: float = option(10.0, "Step.", "--hop", "-s")
    machine: Machine = Machine()


def run(command: Callable[..., None], *arguments: str) -> Any:
    app = typer.Typer()
    app.command()(with_groups(command))
    return CliRunner().invoke(app, arguments)


def test_groups_in_groups_and_options_left_out() -> None:
    got: list[object] = []

    def whole(model: Model) -> None:
        got.append(model)

    def part(model: Annotated[Model, Without("hop", "machine")], device: str = "mine") -> None:
        got.append((model, device))

    assert run(whole, "a", "-s", "5", "--device", "cuda").exit_code == 0
    assert run(part, "b", "--device", "other").exit_code == 0
    assert got == [Model("a", 5.0, Machine("cuda")), (Model("b", 10.0, Machine("cpu")), "other")]
    assert run(part, "b", "--hop", "5").exit_code == 2
    assert run(whole).exit_code == 2  # the argument is missing
    shown = run(whole, "--help").output
    assert "Weights" in shown
    assert "Hardware" in shown


def test_a_name_in_two_groups_is_refused() -> None:
    with pytest.raises(TypeError, match="depth"):

        @with_groups
        def command(filters: Filters, depth: int = 1) -> None: ...
