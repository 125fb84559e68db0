"""How an evaluation is shown and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from htsat_sed.cli.terminal import output, say
from htsat_sed.errors import counted
from htsat_sed.runs.output_checks import check_files

if TYPE_CHECKING:
    from htsat_sed.evaluation.report import Metric, Report, Score

PICTURES = (".png", ".svg", ".pdf")

_PERCENT = ("f1", "precision", "recall")
_SHARES = (*_PERCENT, "beta", "time", "share", "rate")
_SHORT = {"precision": "prec.", "recall": "rec.", "reference": "ref.", "estimated": "est."}
_NUMBERS = ("reference", "estimated", "tp", "fp", "fn", "recordings", "positives", "alarms", "events")


def make_sure_of(
    json_file: Path | None, csv_file: Path | None, plot: Path | None, table: Path | None = None
) -> None:
    """Refuse outputs that cannot be, before hours of work."""
    check_files(json_file, csv_file, plot, table)
    if table is not None and table.suffix.lower() not in (".tex", ".md"):
        raise typer.BadParameter(f"wanted a name that ends in .tex or .md; got {table}", param_hint="--table")
    if plot is not None and plot.suffix.lower() not in PICTURES:
        raise typer.BadParameter(f"wanted a name that ends in {', '.join(PICTURES)}; got {plot}")


def write_json(path: Path, found: Report, asked: Mapping[str, Any]) -> None:
    """Write everything: what was found, and what was asked for."""
    from htsat_sed.whole_file import whole_file

    with whole_file(path) as file:
        text = json.dumps({**asked, **found.to_dict()}, indent=2, ensure_ascii=False, allow_nan=False)
        file.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


def write_csv(path: Path, found: Report) -> None:
    """Write a row for each metric, class and figure, with the interval where it has one."""
    from htsat_sed.annotations.delimited import row
    from htsat_sed.whole_file import whole_file

    with whole_file(path) as file:
        file.write(row(("metric", "class", "figure", "value", "low", "high"), ","))
        for metric, label, name, *values in found.rows():
            numbers = ("" if value is None else repr(value) for value in values)
            file.write(row((metric, label, name, *numbers), ","))


def inputs(**paths: Path | Sequence[Path] | None) -> dict[str, Any]:
    """The files and folders that were given, with hashes by which they can be known again."""
    return {
        role: [_input(path) for path in given] if isinstance(given, Sequence) else _input(given)
        for role, given in paths.items()
        if given
    }


def _input(path: Path) -> dict[str, str]:
    """The SHA-256 of a file; of a folder, that of its files' hashes and names; of a pattern none."""
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        lines = (f"{_sha256(each)}  {each.relative_to(path).as_posix()}\n" for each in files)
        digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    elif path.is_file():
        digest = _sha256(path)
    else:
        return {"path": str(path)}
    return {"path": str(path), "sha256": digest}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # told as a failure where it is a recording
        return "unreadable"


def show(found: Report) -> None:
    """Print an evaluation: each metric with its averages, then its classes."""
    if found.recordings:
        output.print(counted(found.recordings, "recording"), style="bold")
    for metric in found.metrics:
        output.print()
        output.print(metric.title, style="bold", soft_wrap=True)
        for name, score in metric.headline.items():
            output.print(f"  {figure_name(name)}: {_figure(name, score)}", soft_wrap=True)
        if metric.name == "false_alarms":
            metric = _with_false_alarms(metric)
        if metric.classes:
            _show_classes(metric)
        if metric.left_out:
            _note(metric.left_out, "in none or in all of the recordings, so not scored")
    if found.left_out:
        _note(found.left_out, "without reference events: left out of the averages")
    if found.compared:
        _show_check(found)


def _with_false_alarms(metric: Metric) -> Metric:
    """The classes that raise false alarms, most first; the others only as a number."""
    number = {label: own["false_alarms"] or 0.0 for label, own in metric.classes.items()}
    raised = {label: metric.classes[label] for label in sorted(number, key=lambda each: -number[each])}
    raised = {label: own for label, own in raised.items() if number[label]}
    output.print(f"  classes without false alarms: {len(number) - len(raised)} of {len(number)}")
    return replace(metric, classes=raised)


def _show_classes(metric: Metric) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    _, _, what = metric.name.partition("_by_")
    table.add_column(what or "class", no_wrap=True, min_width=max(map(len, metric.classes)))
    for name in next(iter(metric.classes.values())):
        unit = ", %" if in_percent(name) and name not in _PERCENT else ""
        table.add_column(_SHORT.get(name, figure_name(name)) + unit, justify="right")
    for label, figures in metric.classes.items():
        table.add_row(label, *("-" if v is None else metric_figure(name, v) for name, v in figures.items()))
    if metric.totals and metric.name != "clip":
        table.add_section()
        micro = {name.removeprefix("micro_"): score.value for name, score in metric.headline.items()}
        figures = {**micro, **metric.totals}
        values = ((name, figures[name]) for name in next(iter(metric.classes.values())))
        cells = ("-" if value is None else metric_figure(name, value) for name, value in values)
        table.add_row("all (micro)", *cells)
    output.print(table)


def _show_check(found: Report) -> None:
    """Averages by this package and by others, and the largest difference of all figures."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    for name in ("metric", "average", "library"):
        table.add_column(name, no_wrap=True)
    for name in ("htsat-sed", "library", "difference"):
        table.add_column(name, justify="right")
    for each in found.compared:
        if each.label == "*":
            values = ("-" if v is None else metric_figure(each.figure, v) for v in (each.ours, each.theirs))
            row = (each.metric, figure_name(each.figure), each.library, *values)
            table.add_row(*row, f"{each.difference:.1e}")
    output.print()
    output.print("check by other implementations", style="bold", highlight=False)
    output.print(table)
    largest = f"largest difference of {len(found.compared)} figures: {found.largest_difference:.1e}"
    output.print(largest, highlight=False, soft_wrap=True)


def _note(labels: Sequence[str], what: str) -> None:
    say("note", f"{', '.join(labels)}: {what}")


def figure_name(name: str) -> str:
    """A figure's name as people write it."""
    special = {"map": "mAP", "auc": "AUC", "psds": "PSDS", "micro_ap": "micro AP", "micro_auc": "micro AUC"}
    return special.get(name, name.replace("d_prime", "d-prime").replace("_", " "))


def _figure(name: str, score: Score) -> str:
    if score.value is None:
        return "not defined"
    text = metric_figure(name, score.value) + (" %" if in_percent(name) else "")
    if score.low is None or score.high is None:
        return text
    return f"{text}  (95 %: {metric_figure(name, score.low)} to {metric_figure(name, score.high)})"


def metric_figure(name: str, value: float) -> str:
    """A figure as people read it: F1 in per cent, counts whole."""
    if name.rpartition("_")[2] in _NUMBERS:
        return f"{value:.0f}"
    if name in ("seconds", "per_hour"):
        return f"{value:.1f}"
    return f"{100 * value:.2f}" if in_percent(name) else f"{value:.4f}"


def in_percent(name: str) -> bool:
    """Whether a figure is shown in per cent."""
    return name.rpartition("_")[2] in _SHARES
