"""`htsat-sed embed`: recordings to an archive of embeddings."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from htsat_sed.cli.groups import OUTPUT, REQUIRED, Without, option, with_groups
from htsat_sed.cli.interruption import Interruptible
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import ModelOptions
from htsat_sed.cli.progress import RecordingsProgress, waiting_for
from htsat_sed.cli.ray_options import RayOptions
from htsat_sed.cli.recording_options import ChannelOptions, RecordingOptions
from htsat_sed.cli.run_options import RunOptions, ShardOptions, opened_remote
from htsat_sed.cli.terminal import remark, say, summarise
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.runs.output_checks import check_writable
from htsat_sed.runs.recordings import Recording
from htsat_sed.runs.run import Results, Run, RunOfShard, beside, failures_place, open_journal
from htsat_sed.whole_file import make_folder

if TYPE_CHECKING:
    from htsat_sed.archive.store import Archive, Embedded, Kind
    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.pooling import Embeddings
    from htsat_sed.detection.scheduler import RecordingProgress
    from htsat_sed.runs.journal import Journal, Stamp
    from htsat_sed.runs.shards import Part


@dataclass(frozen=True)
class EmbedOptions:
    """Where embeddings go, and of which stretches they are."""

    panel: ClassVar[str] = OUTPUT
    out: Path = option(
        REQUIRED,
        "The archive: a folder of Parquet files, created if it does not exist. Only new and changed "
        "recordings are added to an existing archive.",
        "--output",
        "-o",
        metavar="DIR",
    )
    window: float = option(
        2.5,
        "Duration of the stretch that each embedding covers, rounded to whole tokens of 0.3125 s. The "
        "model computes it from a 10 s window.",
        metavar="SECONDS",
    )
    stretch_hop: float | None = option(
        None,
        "Step between stretches.  \\[default: same as --window]",
        "--hop",
        metavar="SECONDS",
    )


@with_groups
def embed(
    given: RecordingOptions,
    channels: ChannelOptions,
    shards: ShardOptions,
    options: EmbedOptions,
    run_options: Annotated[RunOptions, Without("overwrite")],
    model: Annotated[ModelOptions, Without("hop", "shifts", "class_map", "labels")],
    ray: RayOptions,
    messages: MessageOptions,
) -> None:
    r"""Compute embeddings of recordings, for `htsat-sed search` and for your own programs.

    An archive has a row for each stretch, with the columns filename, path, size and
    modified (of the file), start and duration (seconds), embedding (float16) and
    model (a hash).
    docs/archives.md shows how to read it.
    To resume a stopped run, give the same command again.

    Needs the extra: pip install 'htsat-sed\[parquet]'.

    [bold]Examples[/bold]

      htsat-sed embed recordings/ -o archive/
      htsat-sed search archive/ --like knock.wav
    """
    from htsat_sed.archive.store import Archive

    with Interruptible() as stop, opened_remote(options.out, fetch="part-*.parquet") as remote:
        out = options.out if remote is None else remote.path
        check_writable(out)
        run_options.check_monitors()
        archive = Archive(out)
        recordings, failures = given.find()
        recordings, part = shards.take(recordings, out=out)
        if part is not None and archive.kind is not None:
            raise UsageError(f"{out}: is an archive: a shard needs a folder of its own")
        ray.check(recordings, model.execution)
        model = in_torch(model)
        detector = model.detector(channels, fill_batches=len(recordings) > 1, deferred=ray.given)
        kind = _kind(detector, model.checkpoint, channels, options)
        _check_same(archive, kind)
        make_folder(out)
        todo = _left(recordings, archive)
        settings = {"command": "embed", **model.settings(detector), "window": kind.window, "hop": kind.hop}
        shard = _shard(out, part, settings, kind)
        if part is not None:
            settings = settings | {"shard": str(part.shard)}
        table = failures_place(run_options.failures_table, out, [])
        journal = _journal(out, settings, recordings, todo, kind, run_options.restart)
        display = RecordingsProgress("embedding", len(todo))
        method = partial(type(detector).all_embeddings, window=kind.window, hop=kind.hop)
        run = Run(
            todo,
            failures,
            display=display,
            journal=journal,
            failures_table=table,
            shard=shard,
            summary=run_options.json_summary,
            metrics=run_options.metrics,
            remote=remote,
        )
        with run, ray.scoring(detector, method, model.execution) as score:
            stop.left = run.left
            _embed(score, run)
            if shard is None:
                archive.add(kind, _embedded(run, archive, journal, kind))
            # An archive says by itself what is done.
            code = run.finish(safe_cells=run_options.safe_cells, keep_journal=shard is not None)
            summarise(run, out)
        if remote is None and shard is None:
            prepare(out)
    raise typer.Exit(code)


def in_torch(model: ModelOptions) -> ModelOptions:
    """The options with torch for auto: it alone computes embeddings, and is ready sooner."""
    if model.execution.runtime != "auto":
        return model
    return replace(model, execution=replace(model.execution, runtime="torch"))


def _embed(score: Callable[..., Results[Embeddings]], run: Run) -> None:
    """Embed and note one recording after the other."""

    def read(paths: Iterable[str], progress: RecordingProgress) -> Results[Embeddings]:
        return score(paths, progress=progress, defective=run.defective)

    for recording, found in run.through(read):
        if isinstance(found, HtsatSedError):
            run.fail(recording, found)
        else:
            run.note(recording, _for_journal(found))


def _kind(
    detector: Detector,
    checkpoints: list[str] | None,
    channels: ChannelOptions,
    options: EmbedOptions,
) -> Kind:
    """What the archive is to hold, durations in whole tokens."""
    from htsat_sed.archive.store import Kind
    from htsat_sed.model.htsat import fingerprint

    window = options.window
    hop = window if options.stretch_hop is None else options.stretch_hop
    if not 0.0 < hop <= window:
        raise typer.BadParameter(
            f"wanted a hop of more than 0 and at most the window, got {hop:g} and {window:g} s",
            param_hint="--hop",
        )
    step = detector.config.token_seconds
    names = [name if not Path(name).exists() else os.path.realpath(name) for name in checkpoints or ["home"]]
    return Kind(
        model="+".join(fingerprint(model) for model in detector.models),
        checkpoints=tuple(names),
        window=max(1, round(window / step)) * step,
        hop=max(1, round(hop / step)) * step,
        dimensions=sum(model.backbone.out_dim for model in detector.models),
        channel=channels.channel,
        track=channels.track,
    )


def _check_same(archive: Archive, kind: Kind) -> None:
    """Refuse to add embeddings that cannot be compared with those that are there."""
    if archive.kind is None:
        return
    before, now = asdict(archive.kind), asdict(kind)
    unlike = [name for name in now if name != "checkpoints" and before[name] != now[name]]
    if unlike:
        told = ", ".join(f"{name} {before[name]}, now {now[name]}" for name in unlike)
        raise UsageError(
            f"{archive.folder}: this archive was made with other settings ({told}): give the same "
            "settings, or name another --output"
        )


def _left(recordings: Sequence[Recording], archive: Archive) -> list[Recording]:
    """The recordings that the archive does not hold as they are now."""
    from htsat_sed.runs.journal import stamp

    if archive.kind is None:
        return list(recordings)
    left = [each for each in recordings if archive.stamps.get(_path(each)) != stamp(each.path)]
    if len(left) < len(recordings):
        of = f"{len(recordings) - len(left)} of {len(recordings)}"
        say("note", f"{of} recordings are in {archive.folder} already", "")
    return left


def _path(recording: Recording) -> str:
    return os.path.realpath(recording.path)


def _journal(
    out: Path,
    settings: dict[str, Any],
    recordings: Sequence[Recording],
    todo: Sequence[Recording],
    kind: Kind,
    restart: bool,
) -> Journal:
    """The journal of a run; one whose recordings all got into the archive before a kill begins anew."""

    def is_result(result: Any) -> bool:
        return is_embedded(result, kind.dimensions)

    def opened(restart: bool) -> Journal:
        outputs = [out / f"part-{number:05d}.parquet" for number in range(1000)]
        return open_journal(out, settings, restart=restart, outputs=outputs, is_result=is_result)

    journal = opened(restart)
    left = {recording.name for recording in todo}
    of_archive = any(each.name in journal for each in recordings if each.name not in left)
    if journal.unfinished and of_archive and not any(name in journal for name in left):
        journal.close()
        journal = opened(True)
    return journal


def is_embedded(result: Any, dimensions: int) -> bool:
    """Whether a result from a journal or the file of a shard has stretches and their embeddings."""
    return (
        isinstance(result, dict)
        and isinstance(result.get("embeddings"), str)
        and all(
            isinstance(result.get(name), list) and {type(time) for time in result[name]} <= {float}
            for name in ("starts", "ends")
        )
        and len(result["starts"]) == len(result["ends"])
        and len(base64.b64decode(result["embeddings"])) == 2 * dimensions * len(result["starts"])
    )


def _shard(out: Path, part: Part | None, settings: dict[str, Any], kind: Kind) -> RunOfShard | None:
    """What a shard leaves for `merge`: embeddings in its own file, no archive."""
    if part is None:
        return None
    place = beside(out, "shard")
    assert place is not None
    paths = {recording.name: _path(recording) for recording in part.recordings}
    return RunOfShard(place, part, settings, {"kind": asdict(kind)}, paths.__getitem__)


def _for_journal(found: Embeddings) -> dict[str, Any]:
    vectors = found.vectors.astype("<f2").tobytes()
    times = {"starts": found.starts.tolist(), "ends": found.ends.tolist()}
    return {**times, "embeddings": base64.b64encode(vectors).decode()}


def _embedded(run: Run, archive: Archive, journal: Journal, kind: Kind) -> Iterator[Embedded]:
    """The recordings that are done, from the journal."""
    from htsat_sed.runs.journal import stamp

    index = archive.index()
    taken = dict(zip(index.filenames, index.paths, strict=True))
    paths = {recording.name: _path(recording) for recording in run.recordings}
    for name, result in run.results():
        path = paths[name]
        known = stamp(path)
        if not journal.done(name, known) or known is None:
            say(
                "warning",
                f"{path}: changed during the run and was left out: give the command again",
                "yellow",
            )
            continue
        # Another recording of this name, of another folder, is there already.
        unique = name if taken.get(name, path) == path else path
        yield from_journal(unique, path, known, result, kind)


def from_journal(name: str, path: str, of: Stamp, result: Mapping[str, Any], kind: Kind) -> Embedded:
    """A recording for an archive, from what a journal or the file of a shard has of it."""
    import numpy as np

    from htsat_sed.archive.store import Embedded

    vectors = np.frombuffer(base64.b64decode(result["embeddings"]), "<f2").reshape(-1, kind.dimensions)
    return Embedded(name, path, (of.size, of.modified), result["starts"], result["ends"], vectors)


def prepare(out: Path) -> None:
    """Make the first search as fast as the others."""
    from htsat_sed.archive.nearest import EXACT, open_prepared
    from htsat_sed.archive.store import Archive

    archive = Archive(out)
    if archive.kind is None:
        return
    count = len(archive.index())
    remark(f"{out}: {count} stretches of {len(archive.stamps)} recordings")
    if count <= EXACT:
        with waiting_for("preparing the search"):
            open_prepared(archive)
