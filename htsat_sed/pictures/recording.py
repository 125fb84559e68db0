"""Plots of recordings: log-mel spectrogram, presence map, events and reference events on one time axis.

A long recording is split into strips of equal duration, below an overview of the whole. A strip has lanes
only for the classes that occur in it. Where the data exceed the resolution, the power of the spectrogram is
averaged and the presence map reduced to its maxima, so that a short event stays visible in an hour.

Colour is never the only distinction: estimated and reference events have different positions in a lane, and
areas and colour maps are ordered by lightness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from htsat_sed.detection.events import Event
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import UsageError
from htsat_sed.pictures.spectrogram import Spectrogram, hertz_ticks, slaney_mel
from htsat_sed.post_processing import PostProcessing

_COLUMNS = 1500  # per strip, about its width in pixels
_WIDTH = 12.0  # inches, as all lengths below
_MEL_HEIGHT, _MEL_HEIGHT_IN_STRIPS = 2.0, 1.2
_LANE_HEIGHT = 0.34
_NOTHING = 0.5  # height of the text "no events", in lanes
_OVERVIEW_MEL, _OVERVIEW_LANE = 0.8, 0.15
_CEILING, _FLOOR = 0.06, 0.54  # positions of the scores 1 and 0 in a lane, whose top is 0 and bottom 1
_GAP = 0.15  # between strips
_TALLEST = 400.0  # 60000 pixels; the renderer accepts at most 65535
_RANGE = 80.0  # dynamic range of a spectrogram's colours, dB
_NOTABLE = 0.1  # minimum score of a class shown without events
_NEAR = 0.5  # fraction of its threshold above which a class without events has a lane in a strip
_FEWEST = 3  # minimum number of classes shown
_LONGEST_LABEL = 44

_ONE_ROW = 120.0
_ROWS = (60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 10_800.0, 21_600.0, 43_200.0)
_MOST_ROWS = 6
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)

# Okabe and Ito's blue and orange, told apart by colour-blind readers too.
_ESTIMATED, _REFERENCE = "#0072B2", "#E69F00"
_THRESHOLD = "#A0183C"


def row_seconds(seconds: float) -> float:
    """Duration of a strip: the whole range up to 2 minutes, then a round duration.

    Returns:
        The shortest of 1, 2, 5, 10, 20, 30 min, 1, 2, 3, 6 and 12 h that yields at most 6 strips; whole days
        for more than 3 days.
    """
    if seconds <= _ONE_ROW:
        return seconds
    return next(
        (row for row in _ROWS if seconds <= _MOST_ROWS * row),
        86_400.0 * math.ceil(seconds / _MOST_ROWS / 86_400),
    )


def column_seconds(row: float) -> float:
    """Duration of a spectrogram column in a strip of `row` seconds."""
    return row / _COLUMNS


def classes_that_matter(
    presence_map: PresenceMap,
    events: Sequence[Event],
    reference: Sequence[Event] | None = None,
    *,
    start: float,
    end: float,
    most: int,
) -> list[str]:
    """Choose the classes to show in a time range.

    Classes with reference events come first, then those with events, then those whose score reaches 0.1, or
    as many as make 3; each group in descending order of the highest score in the range.

    Args:
        presence_map: presence map of the whole recording.
        events: its detected events.
        reference: its reference events; labels unknown to the model are allowed.
        start: seconds.
        end: seconds, exclusive.
        most: maximum number of classes.

    Returns:
        Labels, most important first.
    """
    rows = _rows(presence_map, start, end)
    highest = presence_map.scores[rows].max(axis=0, initial=0.0)
    peaks = dict(zip(presence_map.labels, highest.tolist(), strict=True))
    referred = {event.label for event in _inside(reference or (), start, end)}
    found = {event.label for event in _inside(events, start, end)}
    ranked = sorted(
        {*peaks, *referred},
        key=lambda label: (label not in referred, label not in found, -peaks.get(label, 0.0), label),
    )
    notable = [label for label in ranked if label in referred | found or peaks[label] >= _NOTABLE]
    return ranked[: min(most, max(_FEWEST, len(notable)))]


def draw_recording(
    spectrogram: Spectrogram,
    presence_map: PresenceMap,
    events: Sequence[Event],
    reference: Sequence[Event] | None = None,
    *,
    labels: Sequence[str],
    start: float,
    end: float,
    row: float,
    title: str,
    post_processing: PostProcessing | None = None,
) -> Figure:
    """Draw a time range of a recording: a spectrogram per strip and a lane per class.

    A lane shows, from top to bottom, the scores of the class with its thresholds, its events, and its
    reference events. Several strips follow an overview of the events of all classes; a strip then omits
    classes that have no event in it and score less than half their threshold.

    Args:
        spectrogram: spectrogram of the range.
        presence_map: smoothed presence map of the whole recording, to which the thresholds apply.
        events: its detected events.
        reference: its reference events; None for no comparison.
        labels: classes to show, at least one, from top to bottom; classes unknown to the model have no
            scores.
        start: seconds.
        end: seconds, exclusive.
        row: duration of a strip, seconds.
        title: title of the plot.
        post_processing: has the thresholds to draw; the defaults if None.

    Raises:
        ValueError: the range is empty, there is no class to show, or the picture would be too tall.
    """
    if not (0.0 <= start < end and row > 0.0):
        raise UsageError(f"wanted 0 <= start < end and a row of more than 0 s, got {start}, {end} and {row}")
    if not labels:
        raise UsageError("wanted at least one class to show, got none")
    rules = post_processing or PostProcessing()
    strips = _strips(presence_map, events, reference, labels, start, end, row, rules)
    heard = {event.label for event in _inside([*events, *(reference or ())], start, end)}
    overview = [label for label in labels if label in heard] if len(strips) > 1 else None
    figure, pairs = _laid_out([own for _, _, own in strips], overview, len(labels))
    # One scale for all strips, so that a colour means the same level throughout.
    loudest = float(np.nanmax(spectrogram.decibels))
    clock = end > 60.0
    tops = (0.62, 0.78) if reference is not None else (0.68, 0.68)
    if overview is not None:
        upper, lower = pairs.pop(0)
        _draw_spectrogram(upper, spectrogram, start, end, loudest, with_scale=False)
        _draw_events(lower, events, overview, start, end, top=0.1, colour=_ESTIMATED, height=0.35)
        _draw_events(lower, reference or (), overview, start, end, top=0.55, colour=_REFERENCE, height=0.35)
        _name_lanes(lower, overview or ["no events"], size=6)
        _label_time(upper, lower, start, end, clock=clock)
    for i, ((begin, stop, own), (upper, lower)) in enumerate(zip(strips, pairs, strict=True)):
        _draw_spectrogram(upper, spectrogram, begin, stop, loudest, with_scale=i == 0)
        _draw_lanes(lower, presence_map, own, begin, stop, rules)
        _draw_events(lower, events, own, begin, stop, top=tops[0], colour=_ESTIMATED)
        _draw_events(lower, reference or (), own, begin, stop, top=tops[1], colour=_REFERENCE)
        _label_time(upper, lower, begin, begin + row, clock=clock)
    unit = "s" if end <= 60.0 else "h:min:s" if end >= 3600.0 else "min:s"
    lower.set_xlabel(f"time ({unit})")
    figure.suptitle(_shown(title, 90), x=0.01, ha="left", fontsize=11, parse_math=False)
    _add_legend(figure, rules, labels, with_reference=reference is not None)
    return figure


def _laid_out(
    strips: Sequence[Sequence[str]], overview: Sequence[str] | None, classes: int
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure, and the axes of spectrogram and lanes of each strip, the overview first.

    Args:
        strips: classes of each strip.
        overview: classes of the overview; None for none.
        classes: number of all classes, for the error.

    Raises:
        UsageError: the picture would be too tall.
    """
    mel = _MEL_HEIGHT if overview is None else _MEL_HEIGHT_IN_STRIPS
    parts = [(mel, _LANE_HEIGHT * (len(own) or _NOTHING) + 0.1) for own in strips]
    if overview is not None:
        parts.insert(0, (_OVERVIEW_MEL, _OVERVIEW_LANE * max(1, len(overview)) + 0.1))
    heights = [height for upper, lower in parts for height in (upper, lower, _GAP)][:-1]
    height = 0.6 + sum(heights) + 0.35 * len(parts)
    _check_height(height, len(strips), classes)
    figure = Figure(figsize=(_WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=0.03, hspace=0.0))
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    pairs = [
        (figure.add_subplot(grid[3 * i]), figure.add_subplot(grid[3 * i + 1])) for i in range(len(parts))
    ]
    return figure, pairs


def _add_legend(
    figure: Figure, rules: PostProcessing, labels: Sequence[str], *, with_reference: bool
) -> None:
    """Add a legend of scores, thresholds and events."""
    low = any(rules.of(label).threshold_low is not None for label in labels)
    filtered = any(rules.of(label).median_filter > 0.0 for label in labels)
    threshold = "threshold (dotted: low)" if low else "threshold"
    keys: list[Artist] = [
        Patch(color="0.35", label="smoothed score" if filtered else "presence score"),
        Line2D([], [], color=_THRESHOLD, linewidth=1.0, label=threshold),
        Patch(color=_ESTIMATED, label="events"),
    ]
    if with_reference:
        keys.append(Patch(color=_REFERENCE, label="reference events"))
    figure.legend(handles=keys, loc="outside upper right", ncols=4, frameon=False, fontsize=9)


def _strips(
    presence_map: PresenceMap,
    events: Sequence[Event],
    reference: Sequence[Event] | None,
    labels: Sequence[str],
    start: float,
    end: float,
    row: float,
    rules: PostProcessing,
) -> list[tuple[float, float, list[str]]]:
    """Start, end and classes of each strip; one of several has only the classes that occur in it."""
    count = max(1, math.ceil(round((end - start) / row, 6)))
    if count == 1:
        return [(start, end, list(labels))]
    _check_height(count * _MEL_HEIGHT_IN_STRIPS, count, len(labels))
    strips = []
    for i in range(count):
        begin, stop = start + i * row, min(start + (i + 1) * row, end)
        found = {event.label for event in _inside([*events, *(reference or ())], begin, stop)}
        peaks = presence_map.scores[_rows(presence_map, begin, stop)].max(axis=0, initial=0.0)
        near = {
            label
            for label, peak in zip(presence_map.labels, peaks.tolist(), strict=True)
            if peak > _NEAR * rules.of(label).threshold
        }
        own = [label for label in labels if label in found or label in near]
        strips.append((begin, stop, own))
    return strips


def _check_height(height: float, strips: int, classes: int) -> None:
    if height > _TALLEST:
        raise UsageError(
            f"wanted a picture of at most {_TALLEST:g} inches, got {strips} strips of up to {classes} "
            f"classes, {height:.0f} inches: show fewer classes, longer strips, or a shorter range"
        )


def _draw_spectrogram(
    axes: Axes, spectrogram: Spectrogram, start: float, end: float, loudest: float, *, with_scale: bool
) -> None:
    bands = spectrogram.decibels.shape[1]
    low, high = slaney_mel([spectrogram.fmin, spectrogram.fmax]).tolist()
    half = (high - low) / (bands + 1) / 2  # half a band; band centres are equidistant between the edges
    step = spectrogram.column_seconds
    a = max(0, math.floor((start - spectrogram.start) / step))
    b = max(a + 1, math.ceil((end - spectrogram.start) / step))
    columns = spectrogram.decibels[a:b]
    image = axes.imshow(
        columns.T,
        origin="lower",
        aspect="auto",
        extent=(
            spectrogram.start + a * step,
            spectrogram.start + (a + len(columns)) * step,
            low + half,
            high - half,
        ),
        cmap="magma",
        vmin=loudest - _RANGE,
        vmax=loudest,
    )
    hertz = hertz_ticks(spectrogram.fmin, spectrogram.fmax)
    axes.set_yticks(slaney_mel(hertz), [f"{f}" for f in hertz], fontsize=8)
    axes.set_ylim(low + half, high - half)
    axes.set_ylabel("Hz", fontsize=9)
    if with_scale:
        scale = axes.figure.colorbar(image, cax=axes.inset_axes((1.008, 0.0, 0.01, 1.0)))
        scale.set_label("dB", fontsize=9)
        scale.ax.tick_params(labelsize=8)


def _draw_lanes(
    axes: Axes,
    presence_map: PresenceMap,
    labels: Sequence[str],
    start: float,
    end: float,
    rules: PostProcessing,
) -> None:
    """Draw scores as areas, dark above the threshold, and thresholds as lines."""
    rows = _rows(presence_map, start, end)
    tokens = rows.stop - rows.start
    pool = max(1, math.ceil(tokens / _COLUMNS))
    places = np.arange(rows.start, rows.stop, pool)
    edges = np.minimum([*places, rows.stop], presence_map.duration / presence_map.token_seconds)
    edges = edges * presence_map.token_seconds
    for lane, label in enumerate(labels):
        if label not in presence_map.labels:
            words = " not a class of the model"
            axes.text(start, lane + 0.28, words, va="center", fontsize=7, color="0.4", style="italic")
            continue
        column = presence_map.scores[rows, presence_map.labels.index(label)]
        scores = np.maximum.reduceat(column, places - rows.start)
        own = rules.of(label)
        for shown, colour in ((scores, "0.78"), (np.where(scores > own.threshold, scores, 0.0), "0.35")):
            axes.stairs(
                _height(lane, shown), edges, baseline=lane + _FLOOR, fill=True, color=colour, linewidth=0
            )
        low = own.threshold if own.threshold_low is None else own.threshold_low
        for level, style in ((own.threshold, "solid"), (low, "dotted")):
            if style == "solid" or level < own.threshold:
                axes.hlines(
                    _height(lane, level), start, end, color=_THRESHOLD, linewidth=0.7, linestyle=style
                )
    _name_lanes(axes, labels or ["no events"])


def _height(lane: int, score: Any) -> Any:
    """Vertical position of a score in a lane."""
    return lane + _FLOOR - (_FLOOR - _CEILING) * score


def _name_lanes(axes: Axes, labels: Sequence[str], size: float = 8) -> None:
    axes.hlines(range(1, len(labels)), 0, 1, transform=axes.get_yaxis_transform(), color="0.8", linewidth=0.5)
    shown = [_shown(label, _LONGEST_LABEL) for label in labels]
    axes.set_yticks(np.arange(len(labels)) + 0.5, shown, fontsize=size, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels), 0)


def _draw_events(
    axes: Axes,
    events: Sequence[Event],
    labels: Sequence[str],
    start: float,
    end: float,
    *,
    top: float,
    colour: str,
    height: float = 0.17,
) -> None:
    """Draw events as bars; their outline keeps the shortest visible."""
    for lane, label in enumerate(labels):
        spans = [
            (max(e.onset, start), min(e.offset, end) - max(e.onset, start))
            for e in _inside(events, start, end)
            if e.label == label
        ]
        if spans:
            axes.broken_barh(spans, (lane + top, height), facecolor=colour, edgecolor=colour, linewidth=0.7)


def _label_time(upper: Axes, lower: Axes, start: float, end: float, *, clock: bool) -> None:
    step = next((step for step in _STEPS if (end - start) / step <= 15), math.ceil((end - start) / 15))
    ticks = np.arange(math.ceil(round(start / step, 6)), math.floor(round(end / step, 6)) + 1) * step
    decimals = 0 if step >= 1 else 1 if step >= 0.1 else 2
    texts = [clock_time(tick, decimals) if clock else f"{tick:.{decimals}f}" for tick in ticks.tolist()]
    lower.set_xticks(ticks, texts, fontsize=8)
    upper.set_xticks(ticks, [])
    upper.set_xlim(start, end)
    lower.set_xlim(start, end)


def clock_time(seconds: float, decimals: int = 0) -> str:
    """Seconds as ``12:05`` or ``1:02:03``, with `decimals` decimals."""
    whole, fraction = divmod(round(seconds * 10**decimals), 10**decimals)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return f"{text}.{fraction:0{decimals}d}" if decimals else text


def _rows(presence_map: PresenceMap, start: float, end: float) -> slice:
    """The tokens that overlap a time range."""
    first = math.floor(round(start / presence_map.token_seconds, 6))
    last = math.ceil(round(end / presence_map.token_seconds, 6))
    return slice(first, min(max(last, first + 1), len(presence_map.scores)))


def _inside(events: Sequence[Event], start: float, end: float) -> list[Event]:
    return [event for event in events if event.onset < end and event.offset > start]


def _shown(text: str, longest: int) -> str:
    """A text on one line, shortened, with invalid characters escaped."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
