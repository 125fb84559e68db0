"""The live view of `htsat-sed listen`: level, the highest classes as bars, and events scrolling above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from htsat_sed.cli.terminal import clock, output, printable

if TYPE_CHECKING:
    from htsat_sed.live.listener import Counts, Report

_HIGHEST = 5  # classes
_BAR = 30  # characters
_FLOOR = -60.0  # dB, an empty bar of the level
_STYLES = {"begin": "yellow", "final": "bold green", "withdrawn": "dim", "gap": "bold red"}


class LiveView:
    """Shows a stream; a context manager.

    Args:
        labels: K classes, in the order of the columns of scores.
        source: what is listened to.
    """

    def __init__(self, labels: Sequence[str], source: str) -> None:
        self._labels, self._source = labels, source
        self._live = Live(console=output, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        self._live.update(Text(printable(f"{self._source}: waiting for sound")))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave only the events."""
        self._live.stop()

    def show(self, counts: Counts) -> None:
        """Show how far it is."""
        self._live.update(self._table(counts))

    def event(self, report: Report) -> None:
        """Print a report above the rest."""
        until = "" if report.offset is None else f"{report.offset - report.onset:.2f} s"
        line = f"{report.begin:%H:%M:%S}  {report.state:9}  {until:>9}  {report.score:.2f}  "
        name = report.label if report.state != "gap" else "the source was interrupted"
        self._live.console.print(Text.assemble((line, _STYLES[report.state]), printable(name)))

    def _table(self, counts: Counts) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(width=28, no_wrap=True)
        table.add_column(width=_BAR, no_wrap=True)
        table.add_column(justify="right")
        level = counts.level
        share = 0.0 if math.isinf(level) else 1.0 - level / _FLOOR
        table.add_row("level", _bar(share, "cyan"), "silence" if math.isinf(level) else f"{level:.0f} dB")
        if counts.scores is not None:
            for column in counts.scores.argsort()[::-1][:_HIGHEST]:
                score = float(counts.scores[column])
                table.add_row(Text(printable(self._labels[column])), _bar(score, "green"), f"{score:.2f}")
        state = f"{clock(counts.seconds)}  {counts.events} events"
        if counts.dropped:
            state += f"  {counts.dropped} windows skipped"
        table.add_row(Text(printable(self._source), style="dim"), Text(printable(state), style="dim"), "")
        return table


def _bar(share: float, style: str) -> Text:
    full = round(_BAR * max(0.0, min(1.0, share)))
    return Text.assemble(("━" * full, style), ("━" * (_BAR - full), "bright_black"))
