"""How a comparison of systems is shown and written: terminal, Markdown, LaTeX, CSV, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from htsat_sed.cli.evaluation_report import figure_name, in_percent, metric_figure
from htsat_sed.cli.terminal import output

if TYPE_CHECKING:
    from htsat_sed.evaluation.comparison import Comparison, Difference
    from htsat_sed.evaluation.report import Score

_LATEX = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


@dataclass(frozen=True)
class Table:
    """A table as in a paper; its first column is text, the others are numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(found: Comparison) -> Iterator[Table]:
    """Averages of each metric, and the main figure of each class."""
    first, *others = found.systems
    reports = found.reports
    many = len(others) > 1
    columns = [(f"{name} - {first}" if many else "difference", "95 %", "p") for name in others]
    head = (*found.systems, *(name for group in columns for name in group))
    for metric in reports[first].metrics:
        for what, classes in (("figure", False), ("class", True)):
            rows = found.of(metric.name, classes=classes)
            if rows:
                title = metric.title if not classes else f"{metric.title}: {figure_name(rows[0][0].figure)}"
                unit = ", %" if all(in_percent(row[0].figure) for row in rows) else ""
                yield Table(title, (what + unit, *head), tuple(_row(row, classes=classes) for row in rows))


def _row(row: Sequence[Difference], *, classes: bool) -> tuple[str, ...]:
    figure = row[0].figure
    cells = [row[0].label if classes else figure_name(figure), _shown(figure, row[0].first)]
    cells += [_shown(figure, each.other) for each in row]
    for each in row:
        interval = "-"
        if each.difference.low is not None and each.difference.high is not None:
            low, high = (_signed(figure, v) for v in (each.difference.low, each.difference.high))
            interval = f"{low} to {high}"
        value = "-" if each.difference.value is None else _signed(figure, each.difference.value)
        cells += [value, interval, "-" if each.p is None else f"{each.p:.3f}"]
    return tuple(cells)


def _shown(figure: str, score: Score) -> str:
    return "-" if score.value is None else metric_figure(figure, score.value)


def _signed(figure: str, value: float) -> str:
    return f"{100 * value:+.2f}" if in_percent(figure) else f"{value:+.4f}"


def show_comparison(found: Comparison) -> None:
    """Print the tables."""
    from rich.table import Table as RichTable

    first = found.systems[0]
    output.print(f"{found.reports[first].recordings} recordings, {found.samples} resamplings", style="bold")
    for each in tables(found):
        output.print()
        output.print(each.title, style="bold", soft_wrap=True, highlight=False)
        table = RichTable(box=None, padding=(0, 1))
        for i, name in enumerate(each.head):
            table.add_column(name, justify="right" if i else "left", no_wrap=not i)
        for row in each.rows:
            table.add_row(*row)
        output.print(table, highlight=False)


def write_table(path: Path, found: Comparison) -> None:
    """Write the tables as LaTeX (.tex) or Markdown (.md), by the suffix of the file."""
    from htsat_sed.whole_file import whole_file

    written = _latex if path.suffix.lower() == ".tex" else _markdown
    with whole_file(path) as file:
        file.write("\n".join(written(each) for each in tables(found)))


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    rule = "|---|" + "---:|" * (len(table.head) - 1) + "\n"
    return f"**{table.title}**\n\n" + line(table.head) + rule + "".join(map(line, table.rows))


def _latex(table: Table) -> str:
    def line(name: str, *numbers: str) -> str:
        cells = [cell.replace("\\", r"\textbackslash ").translate(_LATEX) for cell in (name, *numbers)]
        minus = (re.sub(r"^-(?=\d)|(?<=to )-", "$-$", cell) for cell in cells[1:])
        return " & ".join((cells[0], *minus)) + r" \\"

    title = table.title.translate(_LATEX)
    lines = [
        f"% {table.title}",
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{2.5pt}",
        rf"\caption{{{title}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
        r"\hline",
        line(*table.head),
        r"\hline",
        *(line(*row) for row in table.rows),
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def write_comparison_json(path: Path, found: Comparison, asked: Mapping[str, Any]) -> None:
    """Write everything: the evaluation of each system, all differences, and what was asked for."""
    from htsat_sed.whole_file import whole_file

    with whole_file(path) as file:
        file.write(json.dumps({**asked, **found.to_dict()}, indent=2, allow_nan=False) + "\n")


def write_comparison_csv(path: Path, found: Comparison) -> None:
    """Write a row for each metric, class, figure and other system."""
    from htsat_sed.annotations.delimited import row
    from htsat_sed.whole_file import whole_file

    first = found.systems[0]
    figures = ("metric", "class", "figure", "first", "value", "other", "other_value")
    head = (*figures, "difference", "low", "high", "p")
    with whole_file(path) as file:
        file.write(row(head, ","))
        for d in found.differences:
            numbers = (d.difference.value, d.difference.low, d.difference.high, d.p)
            cells = (first, _number(d.first.value), d.system, _number(d.other.value), *map(_number, numbers))
            file.write(row((d.metric, d.label, d.figure, *cells), ","))


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)
