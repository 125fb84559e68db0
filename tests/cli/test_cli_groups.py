"""Option groups: what Typer sees, and what the command gets."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from htsat_sed.cli.groups import with_groups


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
class Search:
    filters: Filters
    deep: bool = False


def test_a_group_in_a_group() -> None:
    got = []

    @with_groups
    def command(search: Search) -> None:
        got.append(search)

    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["-d", "2", "--deep"]).exit_code == 0
    assert got == [Search(Filters(None, 2), True)]


def test_a_name_in_two_groups_is_refused() -> None:
    with pytest.raises(TypeError, match="depth"):

        @with_groups
        def command(filters: Filters, depth: int = 1) -> None: ...
