"""Plots of evaluations: F1 of each class by metric, PSD-ROCs, and differences between systems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from htsat_sed.errors import UsageError
from htsat_sed.evaluation.comparison import Comparison, Difference
from htsat_sed.evaluation.report import Metric, Report
from htsat_sed.whole_file import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_HIGHEST = 400.0  # inches; matplotlib draws at most 2**16 pixels


def draw_report(report: Report, path: Path) -> None:
    """Draw the F1 of each class and the PSD-ROCs of a report.

    Args:
        report: an evaluation.
        path: picture file; its suffix selects the format (png, svg, pdf).

    Raises:
        ValueError: another suffix, or nothing to draw.
        HtsatSedError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    by_class = [m for m in report.metrics if any("f1" in figures for figures in m.classes.values())]
    reliability = next((m for m in report.metrics if m.name == "reliability_by_score"), None)
    panels = bool(by_class) + bool(report.psd_rocs) + (reliability is not None)
    if not panels:
        raise UsageError("a picture needs event-based metrics or PSDS, got neither")
    classes = len(by_class[0].classes) if by_class else 0
    height = min(max(4.2, 1.2 + 0.16 * classes * len(by_class)), _HIGHEST)
    figure = Figure(figsize=(6.4 * panels, height), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if by_class:
        _draw_bars(axes.pop(0), by_class)
    if report.psd_rocs:
        _draw_rocs(axes.pop(0), report)
    if reliability is not None:
        _draw_reliability(axes.pop(0), reliability)
    _save(figure, path)


def draw_comparison(found: Comparison, path: Path) -> None:
    """Draw the differences from the first system with their intervals: averages, and classes by metric.

    Args:
        found: a comparison.
        path: as for `draw_report`.

    Raises:
        ValueError: another suffix.
        HtsatSedError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    first, *others = found.systems
    panels: list[tuple[str, list[list[Difference]]]] = []
    for name in [metric.name for metric in found.reports[first].metrics]:
        rows = [row for row in found.of(name, classes=False) if row[0].figure in _DRAWN]
        rows += found.of(name, classes=True)
        if rows:
            panels.append((name, rows))
    highest = max((len(rows) for _, rows in panels), default=1)
    height = min(1.4 + 0.28 * highest * len(others), _HIGHEST)
    figure = Figure(figsize=(3.2 + 2.6 * len(panels), height), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_differences(axes, name, rows)
    figure.suptitle(f"difference from {first}".replace("$", r"\$"))
    _save(figure, path)


_DRAWN = ("macro_f1", "psds", "map", "error_rate")


def _draw_differences(axes: Axes, name: str, rows: Sequence[Sequence[Difference]]) -> None:
    """Draw differences with intervals: a row for the average and for each class, a colour per system."""
    for i, row in enumerate(rows):
        for k, each in enumerate(row):
            value = each.difference.value
            if value is None:
                continue
            place, colour = i + 0.8 * (k + 0.5) / len(row) - 0.4, _COLOURS[k % len(_COLOURS)]
            low, high = each.difference.low, each.difference.high
            if low is not None and high is not None:
                axes.plot([100 * low, 100 * high], [place, place], color=colour)
            label = each.system if i == 0 else None
            axes.plot([100 * value], [place], "o", color=colour, markersize=4, label=label)
    names = [row[0].label if row[0].label != "*" else row[0].figure.replace("_", " ") for row in rows]
    axes.set_yticks(range(len(rows)), [text.replace("$", r"\$") for text in names])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(0.0, color="0.5", linewidth=0.8)
    axes.set_xlabel(f"{name}: points")
    _finish(axes)


def _save(figure: Figure, path: Path) -> None:
    """Write a picture; the same figure yields the same bytes."""
    from matplotlib import rc_context

    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise UsageError(f"wanted a picture with the suffix .png, .svg or .pdf, got {path}")
    # Without a date, and with a fixed salt.
    with whole_file(path, "wb") as file, rc_context({"svg.hashsalt": "htsat-sed"}):
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(file, format=kind, dpi=150, metadata=metadata)


def _draw_bars(axes: Axes, metrics: Sequence[Metric]) -> None:
    """Draw the F1 of each class, with a bar for each metric."""
    labels = list(metrics[0].classes)
    width = 0.8 / len(metrics)
    for i, metric in enumerate(metrics):
        places = [k + i * width for k in range(len(labels))]
        values = [100 * (metric.classes[label]["f1"] or 0.0) for label in labels]
        macro = metric.headline["macro_f1"].value
        legend = f"{metric.name}, macro {100 * macro:.2f} %" if macro is not None else metric.name
        axes.barh(places, values, height=width, color=_COLOURS[i % len(_COLOURS)], label=legend)
    names = [label.replace("$", r"\$") for label in labels]  # no math text
    axes.set_yticks([k + 0.4 - width / 2 for k in range(len(labels))], names)
    axes.set_ylim(len(labels) - 0.1, -0.3)
    axes.set_xlim(0, 100)
    axes.set_xlabel("F1 (%)")
    _finish(axes)


def _draw_rocs(axes: Axes, report: Report) -> None:
    """Draw the PSD-ROC of each scenario, up to its highest rate."""
    drawn = [metric for metric in report.metrics if metric.name in report.psd_rocs]
    for colour, style, metric in zip(_COLOURS, ("-", "--", "-.", ":"), drawn, strict=False):
        rates, ratios = report.psd_rocs[metric.name]
        limit = metric.parameters["max_efpr"]
        value = metric.headline["psds"].value
        name = f"{'piPSDS' if metric.name[:2] == 'pi' else 'PSDS'} scenario {metric.name[-1]}"
        name += f": {value:.4f}" if value is not None else ""
        # The last ratio applies to all higher rates.
        x, y = [*rates.tolist(), max(limit, rates[-1])], [*ratios.tolist(), ratios[-1]]
        axes.step(x, y, where="post", color=colour, linestyle=style, label=name)
        axes.set_xlim(0, limit)
    axes.set_ylim(0, 1)
    axes.set_xlabel("effective false positives per hour")
    axes.set_ylabel("effective true positive ratio")
    # A square at the top, regardless of the height of the bars.
    axes.set_box_aspect(1.0)
    axes.set_anchor("N")
    _finish(axes)


def _draw_reliability(axes: Axes, metric: Metric) -> None:
    """Draw the share of right events against the mean score; the diagonal is perfect calibration."""
    figures = [
        (own["mean_score"] or 0.0, own["right_share"] or 0.0, own["events"] or 0.0)
        for own in metric.classes.values()
    ]
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="reliable")
    axes.plot(*zip(*[each[:2] for each in figures], strict=True), "o-", color=_COLOURS[0], label="events")
    for x, y, number in figures:
        axes.annotate(f"{number:.0f}", (x, y), textcoords="offset points", xytext=(4, -10), fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("mean score")
    axes.set_ylabel("share of events that are right")
    axes.set_box_aspect(1.0)
    axes.set_anchor("N")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, borderaxespad=0.2)
