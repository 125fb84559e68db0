"""A picture of an evaluation: F1 of each class by metric, and PSD-ROCs."""

from __future__ import annotations

from pathlib import Path

from htsat_sed.evaluation.report import Report
from htsat_sed.whole_file import whole_file

# Okabe and Ito's colours, told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")


def draw_report(report: Report, path: Path) -> None:
    """Draw the F1 of each class and the PSD-ROCs, as far as the report has them.

    Args:
        report: an evaluation.
        path: the picture to be; its suffix tells the format (png, svg, pdf).

    Raises:
        ValueError: another suffix, or a report without anything to draw.
        HtsatSedError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise ValueError(f"wanted a picture called .png, .svg or .pdf, got {path}")
    by_class = [m for m in report.metrics if any("f1" in figures for figures in m.classes.values())]
    panels = bool(by_class) + bool(report.psd_rocs)
    if not panels:
        raise ValueError("wanted event-based metrics or PSDS for a picture, got clip-level ones alone")
    labels = list(by_class[0].classes) if by_class else []
    height = max(3.6, 0.9 + 0.16 * len(labels) * len(by_class))
    figure = Figure(figsize=(6.4 * panels, height), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if by_class:
        bars = axes.pop(0)
        width = 0.8 / len(by_class)
        for i, metric in enumerate(by_class):
            places = [k + i * width for k in range(len(labels))]
            values = [100 * (metric.classes[label]["f1"] or 0.0) for label in labels]
            macro = metric.headline["macro_f1"].value
            name = f"{metric.name}, macro {100 * macro:.1f} %" if macro is not None else metric.name
            bars.barh(places, values, height=width, color=_COLOURS[i % 4], label=name)
        bars.set_yticks([k + 0.4 - width / 2 for k in range(len(labels))], labels)
        bars.invert_yaxis()
        bars.set_xlim(0, 100)
        bars.set_xlabel("F1 (%)")
        bars.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)
        bars.spines[["top", "right"]].set_visible(False)
    if report.psd_rocs:
        (roc,) = axes
        for colour, style, (name, (x, y)) in zip(_COLOURS, "-:", report.psd_rocs.items(), strict=False):
            value = next(m.headline["psds"].value for m in report.metrics if m.name == name)
            label = f"{name.upper()} {value:.3f}" if value is not None else name.upper()
            roc.step(x, y, where="post", color=colour, linestyle=style, label=label)
        roc.set_xlim(0, 100)
        roc.set_ylim(0, 1)
        roc.set_xlabel("effective false positives per hour")
        roc.set_ylabel("effective true positive ratio")
        roc.legend(frameon=False)
        roc.spines[["top", "right"]].set_visible(False)
    # Without a date, and with a fixed salt, the same scores give the same bytes.
    with whole_file(path, "wb") as file, rc_context({"svg.hashsalt": "htsat-sed"}):
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(file, format=kind, dpi=150, metadata=metadata)
