"""`htsat-sed search`: what in an archive sounds alike."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from htsat_sed.cli.embed import in_torch
from htsat_sed.cli.groups import REQUIRED, SAFE_CELLS, Without, argument, option, unless_dash, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import ModelOptions
from htsat_sed.cli.progress import waiting_for
from htsat_sed.cli.recording_options import ChannelOptions
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import clock, emit, output, remark
from htsat_sed.errors import AudioError, HtsatSedError, UsageError, counted
from htsat_sed.runs.output_checks import check_files, check_writable
from htsat_sed.runs.output_hashes import check_replaceable, recording_outputs

if TYPE_CHECKING:
    from htsat_sed.archive.nearest import Hit, Prepared, Query
    from htsat_sed.archive.store import Archive, Index, Kind
    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import Event

_RANGE = re.compile(r"(?P<path>.+)@(?P<start>\d+(\.\d+)?)-(?P<end>\d+(\.\d+)?)", re.DOTALL)
_BROKEN_RANGE = re.compile(r".+@[\d.,:\s-]*", re.DOTALL)
_SHOWN = 3  # stretches of a group on a terminal
Found = list[tuple[str, "Event"]]


@dataclass(frozen=True)
class SearchOptions:
    """What is searched for."""

    panel: ClassVar[str] = "Search"
    folder: Path = argument(REQUIRED, "Archive: a folder that `htsat-sed embed` wrote.", metavar="ARCHIVE")
    like: list[str] | None = option(
        None,
        "Find stretches that sound like this: a recording, or a stretch of it in seconds "
        "(night.flac@12.5-15). Repeatable: the mean of all is used.",
        metavar="RECORDING[@START-END]",
    )
    unlike: list[str] | None = option(
        None,
        "Avoid stretches that sound like this, such as a wrong result of an earlier search. Repeatable.",
        metavar="RECORDING[@START-END]",
    )
    cluster: int | None = option(
        None,
        "Instead of a search, divide all stretches into N groups of similar sounds; 0 chooses N. Events "
        "are labelled 'group 01', ..., the largest first.",
        min=0,
        metavar="N",
    )
    count: int = option(20, "Number of results.", "--count", "-n", min=1, metavar="N")
    per_recording: int | None = option(
        None, "Maximum number of results from one recording.  \\[default: all]", min=1, metavar="N"
    )
    label: str = option("similar", "Label of the results.")

    def check(self) -> None:
        """Refuse contradictions.

        Raises:
            typer.BadParameter: naming the option.
        """
        if (self.cluster is None) == (not self.like):
            raise typer.BadParameter("give either --like or --cluster", param_hint="--like")
        if self.cluster is not None and self.unlike:
            raise typer.BadParameter("works only with --like", param_hint="--unlike")


@dataclass(frozen=True)
class ResultOptions(OverwriteOptions):
    """Where results go."""

    out: Path | None = option(
        None,
        "Output table (.tsv, .csv, .jsonl, .parquet), best first in TSV and CSV; or, with --format, a "
        "folder.  \\[default: standard output]",
        "--output",
        "-o",
        callback=unless_dash,
        metavar="PATH",
    )
    format: str | None = option(
        None,
        "Format of the events, as for detect; audacity and raven, for example, write one file per "
        "recording.  \\[default: from the suffix of -o, else csv]",
        "--format",
        "-f",
        metavar="NAME",
    )
    safe_cells: bool = option(False, SAFE_CELLS, "--safe-cells")


@with_groups
def search(
    options: SearchOptions,
    results: ResultOptions,
    model: Annotated[ModelOptions, Without("hop", "shifts", "class_map", "labels", "label_file")],
    messages: MessageOptions,
) -> None:
    """Find the stretches of an archive that sound like a given sound, or group similar stretches.

    Queries are embedded by the model of the archive. Results are events, with the
    similarity as score, 1 for the same sound; plot, segments and report read them.
    Results exclude the stretches of the query itself.

    [bold]Examples[/bold]

      htsat-sed search archive/ --like knock.wav
      htsat-sed search archive/ --like night.flac@12.5-15 --unlike rain.wav -n 100 --per-recording 1
      htsat-sed search archive/ --cluster 40 -o groups.tsv
    """
    from htsat_sed.archive.store import Archive

    options.check()
    out = results.out
    format = _format(out, results.format)
    _check_output(out, format, results.overwrite)
    like, unlike = ([parse_query(text) for text in given or ()] for given in (options.like, options.unlike))
    archive = Archive(options.folder)
    if archive.kind is None:
        raise HtsatSedError(options.folder, "holds no archive: make one with `htsat-sed embed`")
    from htsat_sed.archive import nearest

    with waiting_for("opening the archive"):
        index = archive.index()
        prepared = nearest.open_prepared(archive, remark)
    if options.cluster is not None:
        found = _groups(prepared, index, options.cluster or _group_count(len(index)))
    else:
        detector = _detector(archive, model)
        hits = nearest.search(
            prepared,
            index,
            _embedded(detector, like),
            _embedded(detector, unlike),
            count=options.count,
            per_recording=options.per_recording,
        )
        found = _events(hits, index, options.label)
    if out is None and results.format is None and output.is_terminal:
        (_show if options.cluster is None else _show_groups)(found)
    else:
        _write(found, out, format, overwrite=results.overwrite, safe_cells=results.safe_cells)


def parse_query(text: str) -> tuple[str, float, float]:
    """Split ``night.flac`` or ``night.flac@12.5-15`` into a recording and a time range in seconds.

    Raises:
        UsageError: the range is incomplete, or ends before it starts.
    """
    found = _RANGE.fullmatch(text)
    if os.path.lexists(text) or not (found or _BROKEN_RANGE.fullmatch(text)):
        return text, 0.0, math.inf
    start, end = (float(found["start"]), float(found["end"])) if found else (0.0, 0.0)
    if found is None or not start < end:
        raise UsageError(f"wanted RECORDING@START-END in seconds, such as night.flac@12.5-15; got {text!r}")
    return found["path"], start, end


def _format(out: Path | None, format: str | None) -> str:
    from htsat_sed.annotations import FORMATS

    if format is not None:
        if format not in FORMATS:
            raise typer.BadParameter(f"wanted one of {', '.join(FORMATS)}; got {format!r}", param_hint="-f")
        return format
    if out is None:
        return "csv"  # which has scores
    fitting = [name for name, of in FORMATS.items() if of.shared and of.suffix == out.suffix.lower()]
    if not fitting:
        raise typer.BadParameter(f"cannot determine the format of {out}: give --format", param_hint="-o")
    return fitting[0]


def _check_output(out: Path | None, format: str, overwrite: bool) -> None:
    """Refuse an output that cannot be written."""
    from htsat_sed.annotations import FORMATS

    if out is None:
        if FORMATS[format].lines is None or not FORMATS[format].shared:
            raise typer.BadParameter(
                f"{format} cannot be written to standard output: name a file or folder with -o",
                param_hint="-f",
            )
    elif FORMATS[format].shared:
        check_files(out)
        check_replaceable(out, overwrite=overwrite)
    else:
        check_writable(out)


def _detector(archive: Archive, model: ModelOptions) -> Detector:
    """A detector with the model of an archive.

    Raises:
        UsageError: the checkpoint is another one.
    """
    kind = archive.kind
    assert kind is not None
    named = replace(in_torch(model), checkpoint=model.checkpoint or list(kind.checkpoints))
    detector = named.detector(ChannelOptions(kind.channel, kind.track))
    _check_model(archive.folder, kind, detector)
    return detector


def _check_model(folder: Path, kind: Kind, detector: Detector) -> None:
    from htsat_sed.model.htsat import fingerprint

    own = "+".join(fingerprint(model) for model in detector.models)
    if own != kind.model:
        raise UsageError(
            f"{folder}: was made with another model ({kind.model}, from {' + '.join(kind.checkpoints)}; "
            f"this one is {own}): give that one with --checkpoint, or embed the recordings again"
        )


def _embedded(detector: Detector, stretches: Sequence[tuple[str, float, float]]) -> list[Query]:
    """The embeddings of queries.

    Raises:
        AudioError: a recording cannot be read, ends before the stretch, or is silent there.
    """
    from htsat_sed.archive.nearest import Query

    queries: list[Query] = []
    for path, start, end in stretches:
        ((_, found),) = detector.all_embeddings([path], window=math.inf, start=start, end=end)
        if isinstance(found, Exception):
            raise found
        if not len(found.vectors):
            raise AudioError(path, f"ends at {found.duration:.2f} s, before the requested stretch")
        if not found.vectors.any():
            raise AudioError(path, "is digital silence in the requested stretch: no sound to search for")
        queries.append(Query(found.vectors[0], os.path.realpath(path), start, end))
    return queries


def _events(hits: Sequence[Hit], index: Index, label: str) -> Found:
    from htsat_sed.detection.events import Event

    return [
        (index.filenames[hit.recording], Event(hit.start, hit.end, label, min(1.0, max(0.0, hit.score))))
        for hit in hits
    ]


def _groups(prepared: Prepared, index: Index, count: int) -> Found:
    """Each stretch as an event of its group, the most typical first."""
    import numpy as np

    from htsat_sed.archive.nearest import clusters
    from htsat_sed.detection.events import Event

    groups, closeness = clusters(prepared.vectors, count)
    digits = max(2, len(str(count)))
    return [
        (
            index.filenames[index.recording[row]],
            Event(
                float(index.starts[row]),
                float(index.starts[row] + index.durations[row]),
                f"group {groups[row] + 1:0{digits}d}",
                float(min(1.0, max(0.0, closeness[row]))),
            ),
        )
        for row in np.lexsort((-closeness, groups))
        if groups[row] >= 0
    ]


def _group_count(stretches: int) -> int:
    """Groups where nobody says how many: few enough to listen to all of them."""
    return max(2, min(100, round(math.sqrt(stretches / 2.0))))


def _write(found: Found, out: Path | None, format: str, *, overwrite: bool, safe_cells: bool) -> None:
    from htsat_sed.annotations import FORMATS, path_of, write_events
    from htsat_sed.whole_file import whole_file

    of = FORMATS[format]
    by_recording: dict[str, list[Event]] = {}
    for name, event in found:
        by_recording.setdefault(name, []).append(event)
    # Tables of one row an event keep the order of the search; others go by recording.
    parts = (
        [(name, [event]) for name, event in found] if "safe_cells" in of.takes else list(by_recording.items())
    )
    if out is None:
        emit(of.header + "".join(of.part(name, events, safe_cells=safe_cells) for name, events in parts))
        return
    targets: set[Path] = set()
    if not of.shared:
        single = out.suffix.lower() == of.ending and not out.is_dir()
        targets = {out} if single else {path_of(out, name, of.suffix) for name in by_recording}
        check_replaceable(*sorted(targets), overwrite=overwrite)
    with recording_outputs():
        if "safe_cells" in of.takes:
            with whole_file(out) as file:
                file.write(of.header)
                file.writelines(of.part(name, events, safe_cells=safe_cells) for name, events in parts)
        else:
            write_events(out, by_recording, format)
    stretches = counted(len(found), "stretch", "stretches")
    remark(f"{out}: {stretches} of {counted(len(by_recording), 'recording')}")
    if targets and out.is_dir():
        others = sum(path.name.endswith(of.suffix) for path in out.rglob("*") if path not in targets)
        if others:
            remark(f"{out}: also holds {counted(others, 'file')} that this search did not write")


def _show(found: Found) -> None:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for column in ("score", "onset", "offset"):
        shown.add_column(column, justify="right")
    shown.add_column("recording")
    for name, event in found:
        shown.add_row(f"{event.score:.2f}", clock(event.onset), clock(event.offset), name)
    output.print(shown)


def _show_groups(found: Found) -> None:
    """Each group with its size and the stretches nearest to its centre."""
    from rich.table import Table

    groups: dict[str, Found] = {}
    for name, event in found:
        groups.setdefault(event.label, []).append((name, event))
    shown = Table(box=None, pad_edge=False)
    shown.add_column("group")
    for column in ("stretches", "recordings"):
        shown.add_column(column, justify="right")
    shown.add_column("most typical")
    for label, own in groups.items():
        typical = ", ".join(f"{name} {clock(event.onset)}" for name, event in own[:_SHOWN])
        shown.add_row(label, str(len(own)), str(len({name for name, _ in own})), typical)
    output.print(shown)
