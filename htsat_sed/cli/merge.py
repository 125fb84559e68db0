"""`htsat-sed merge`: merges the outputs of shards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from htsat_sed.cli.detect import write_tables
from htsat_sed.cli.embed import from_journal, is_embedded, prepare
from htsat_sed.cli.groups import OUTPUT, REQUIRED, argument, option, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.progress import RecordingsProgress
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.tag import TagOptions, is_row, write_tags
from htsat_sed.cli.terminal import remark, say
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.runs.output_checks import check_apart, check_files
from htsat_sed.runs.output_hashes import check_replaceable, is_replaceable, recording_outputs
from htsat_sed.runs.run import failures_place, open_journal

if TYPE_CHECKING:
    from htsat_sed.archive.store import Kind
    from htsat_sed.clock import Start
    from htsat_sed.runs.event_files import EventFiles, Target
    from htsat_sed.runs.journal import Journal
    from htsat_sed.runs.shards import Done, Header, ShardFile

_SUFFIX = ".shard"
_IN_FOLDER = "htsat-sed.shard"
_NONE = type(None)
_OUTPUTS: dict[Any, dict[str, tuple[type, ...]]] = {  # outputs in the header of a shard, with their types
    "detect": {
        "formats": (list,),
        "maps": (str, _NONE),
        "labels": (list,),
        "token_seconds": (float,),
        "safe_cells": (bool,),
    },
    "embed": {"kind": (dict,)},
    "tag": {"wide": (bool,), "top": (int, _NONE), "labels": (list,), "safe_cells": (bool,)},
}


@dataclass(frozen=True)
class MergeOptions:
    """Shards and output."""

    panel: ClassVar[str] = OUTPUT
    shards: list[Path] = argument(
        REQUIRED, "The --output of each shard, or a folder that contains all of them.", metavar="SHARD"
    )
    out: Path = option(
        REQUIRED,
        "Output: a file if the shards are files, a folder if they are folders.",
        "--output",
        "-o",
        metavar="FILE|DIR",
    )
    scores: Path | None = option(
        None,
        "Copy the presence maps of the shards to this folder.  \\[default: no copy]",
        metavar="DIR",
    )
    replacing: OverwriteOptions = field(default_factory=OverwriteOptions)


@with_groups
def merge(options: MergeOptions, messages: MessageOptions) -> None:
    """Merge the outputs of shards to the files that one run would have written.

    Each shard is a run of detect, tag or embed with --shard.
    All shards must be finished and have the same recordings and settings.
    If a shard is missing or occurs twice, merge reports it and writes nothing.

    [bold]Examples[/bold]

      htsat-sed detect recordings/ --shard 1/2 -o shards/1.csv
      htsat-sed detect recordings/ --shard 2/2 -o shards/2.csv
      htsat-sed merge shards/1.csv shards/2.csv -o events.csv
      htsat-sed merge shards/ -o events.csv
    """
    from htsat_sed.runs.shards import ShardFile, check_complete

    paths = [path for given in options.shards for path in _shard_files(given)]
    with ExitStack() as stack:
        files = [ShardFile(path, stack) for path in paths]
        check_complete(files)
        headers = [file.header for file in files]
    with recording_outputs():
        of_archive = headers[0].settings.get("command") == "embed"
        failed = (_merge_archive if of_archive else _merge)(paths, headers, options)
    remark(f"{headers[0].total - failed} recordings of {len(paths)} shards, {failed} failures: {options.out}")


def _shard_files(given: Path) -> list[Path]:
    """The shard files beside an output, or in a folder of outputs.

    Raises:
        HtsatSedError: there are none.
    """
    if given.name.endswith(_SUFFIX):
        return [given]
    if not given.is_dir():
        beside = given.with_name(given.name + _SUFFIX)
        if not (given.exists() or beside.exists()):
            raise HtsatSedError(
                given, "no such file or folder: name the --output of a shard, or the folder of all outputs"
            )
        return [beside]
    if (own := given / _IN_FOLDER).exists():
        return [own]
    found = sorted([*given.glob(f"*{_SUFFIX}"), *given.glob(f"*/{_IN_FOLDER}")])
    if not found:
        raise HtsatSedError(given, "contains no finished shard: no file in it ends in .shard")
    return found


def _merge(paths: Sequence[Path], headers: Sequence[Header], options: MergeOptions) -> int:
    """Write the outputs of one run; return the number of failed recordings."""
    from htsat_sed.runs.event_files import is_in_journal_form
    from htsat_sed.runs.failures import write_failures

    out, header = options.out, headers[0]
    _check_outputs(paths[0], header)
    settings = {name: value for name, value in header.settings.items() if name != "shard"}
    in_folder = paths[0].name == _IN_FOLDER
    if any((path.name == _IN_FOLDER) is not in_folder for path in paths):
        raise UsageError("some shards are files and others folders: they belong to different runs")
    if in_folder:
        out.mkdir(parents=True, exist_ok=True)
    else:
        check_files(out)
    is_detect = settings.get("command") == "detect"
    if options.scores is not None:
        settings["scores"] = os.path.abspath(options.scores)  # noqa: PTH100
    whole = _files(header, out, options.scores, in_folder=in_folder) if is_detect else None
    tables = [out] if whole is None else [table.path for table in whole.tables]
    failures_table = failures_place(None, out, tables)
    check_apart(
        [*tables, failures_table], [*paths, *(path.with_name(path.name[: -len(_SUFFIX)]) for path in paths)]
    )
    check_replaceable(*tables, overwrite=options.replacing.overwrite)
    journal = open_journal(
        out, settings, restart=True, outputs=[*tables, failures_table], is_result=lambda _: True
    )
    progress = RecordingsProgress("merging", header.total)
    with journal:
        names: list[str] = []
        starts: dict[str, Start] = {}
        failures, defects = list(header.failures), []
        kept = 0
        with ExitStack() as stack, progress:
            for file, done in _recordings(paths, stack):
                progress.done()
                if done.about is not None:
                    starts[done.name] = _start(file, done)
                if done.failure is not None:
                    failures.append((done.name, done.failure))
                    continue
                well_formed = (
                    is_in_journal_form(done.result)
                    if whole is not None
                    else is_row(done.result, len(header.outputs["labels"]))
                )
                if not well_formed:
                    raise HtsatSedError(file.path, "is damaged: run its shard again with --restart")
                journal.add(done.name, done.stamp, done.result, done.defect)
                names.append(done.name)
                if done.defect is not None:
                    defects.append((done.name, done.defect))
                if whole is not None:
                    kept += _copy(
                        file, done.name, whole, in_folder=in_folder, overwrite=options.replacing.overwrite
                    )
        _write_tables(journal, names, starts, header.outputs, whole, out)
        safe_cells = bool(header.outputs.get("safe_cells"))
        if failures_table is not None:
            write_failures(failures_table, failures, defects, safe_cells=safe_cells)
        journal.finish(keep=bool(failures or defects))
    if kept:
        say("note", f"files not replaced: {kept}; give --overwrite to replace them")
    return len(failures) - len(header.failures)


def _merge_archive(paths: Sequence[Path], headers: Sequence[Header], options: MergeOptions) -> int:
    """Write the archive that one run of embed would have written; how many recordings failed."""
    from htsat_sed.archive.store import Archive, Embedded
    from htsat_sed.runs.failures import write_failures

    out, header = options.out, headers[0]
    _check_outputs(paths[0], header)
    kind = _kind(paths[0], header)
    archive = Archive(out)
    if archive.kind is not None:
        raise UsageError(f"{out}: is an archive already: name another --output")
    failures, defects = list(header.failures), []
    with ExitStack() as stack:  # all of it is read before anything is written
        for file, done in _recordings(paths, stack):
            if done.failure is not None:
                failures.append((done.name, done.failure))
            elif not (
                isinstance(done.about, str) and done.stamp and is_embedded(done.result, kind.dimensions)
            ):
                raise HtsatSedError(file.path, "is damaged: run its shard again with --restart")
            elif done.defect is not None:
                defects.append((done.name, done.defect))
    out.mkdir(parents=True, exist_ok=True)

    def embedded(stack: ExitStack) -> Iterator[Embedded]:
        for _, done in _recordings(paths, stack):
            if done.stamp is not None and done.failure is None:
                yield from_journal(done.name, done.about, done.stamp, done.result, kind)

    with ExitStack() as stack:
        archive.add(kind, embedded(stack))
    if (table := failures_place(None, out, [])) is not None:
        write_failures(table, failures, defects)
    prepare(out)
    return len(failures) - len(header.failures)


def _kind(path: Path, header: Header) -> Kind:
    """What the archive of a shard holds.

    Raises:
        HtsatSedError: the shard does not say.
    """
    from htsat_sed.archive.store import Kind

    values = header.outputs["kind"]
    try:
        kind = Kind(**{**values, "checkpoints": tuple(values["checkpoints"])})
    except (KeyError, TypeError) as error:
        raise HtsatSedError(path, "is damaged: run its shard again with --restart") from error
    if type(kind.dimensions) is not int or kind.dimensions < 1:
        raise HtsatSedError(path, "is damaged: run its shard again with --restart")
    return kind


def _check_outputs(path: Path, header: Header) -> None:
    """Check the command and the outputs in the header of a shard.

    Raises:
        HtsatSedError: they are invalid.
    """
    command = header.settings.get("command")
    if command not in _OUTPUTS:
        raise HtsatSedError(path, f"is a shard of {command!r:.40}: merge supports {' and '.join(_OUTPUTS)}")
    for name, kinds in _OUTPUTS[command].items():
        value = header.outputs.get(name)
        texts = not isinstance(value, list) or all(isinstance(each, str) for each in value)
        if type(value) not in kinds or not texts:
            raise HtsatSedError(
                path, f"is damaged ({name} is {value!r:.40}): run its shard again with --restart"
            )


def _recordings(paths: Sequence[Path], stack: ExitStack) -> Iterator[tuple[ShardFile, Done]]:
    from htsat_sed.runs.shards import ShardFile, merged

    return merged([ShardFile(path, stack) for path in paths])


def _start(file: ShardFile, done: Done) -> Start:
    from htsat_sed.runs.event_files import start_from_journal

    try:
        return start_from_journal(done.about)
    except ValueError as error:
        raise HtsatSedError(file.path, f"is damaged: {error}; run its shard again with --restart") from error


def _write_tables(
    journal: Journal,
    names: Sequence[str],
    starts: Mapping[str, Start],
    outputs: Mapping[str, Any],
    whole: EventFiles | None,
    out: Path,
) -> None:
    """Write the tables of all recordings, as the command of the shards does."""

    def results() -> Iterator[tuple[str, Any]]:
        return ((name, journal.result(name)) for name in names)

    if not names:
        return
    if whole is not None:
        channels = bool(outputs.get("channels"))
        write_tables(
            whole.tables, results, starts=starts, safe_cells=outputs["safe_cells"], channels=channels
        )
    else:
        options = TagOptions(out=out, wide=outputs["wide"], top=outputs["top"])
        write_tags(options, tuple(outputs["labels"]), results(), safe_cells=outputs["safe_cells"])


def _files(header: Header, out: Path, maps: Path | None, *, in_folder: bool) -> EventFiles:
    """Output files of a run of detect."""
    from htsat_sed.annotations import FORMATS
    from htsat_sed.runs.event_files import EventFiles, Target

    formats = header.outputs["formats"]
    if unknown := [name for name in formats if name not in FORMATS]:
        raise HtsatSedError(out, f"cannot be written: unknown format {unknown[0]!r}")
    targets: list[Target] = [
        Target(name, out / f"events{FORMATS[name].suffix}" if in_folder and FORMATS[name].shared else out)
        for name in formats
    ]
    labels, token_seconds = header.outputs["labels"], header.outputs["token_seconds"]
    return EventFiles(targets, maps=maps, labels=labels, token_seconds=token_seconds)


def _copy(file: ShardFile, name: str, whole: EventFiles, *, in_folder: bool, overwrite: bool) -> int:
    """Copy the recording's own files from its shard; return the number of files not replaced."""
    from htsat_sed.whole_file import make_folder, whole_file

    place = file.path.parent if in_folder else file.path.with_name(file.path.name[: -len(_SUFFIX)])
    folder, maps = file.path.parent, file.header.outputs["maps"]
    wanted = whole.of(name)
    has_maps = bool(wanted) and wanted[-1].suffix == ".npz" and maps is not None
    own = _files(file.header, place, folder / maps if has_maps else None, in_folder=in_folder).of(name)
    kept = 0
    for source, target in zip(own, wanted, strict=False):
        if source.exists() and target.exists() and source.samefile(target):
            continue
        if not (overwrite or is_replaceable(target)):
            kept += 1
            continue
        make_folder(target.parent)
        try:
            with source.open("rb") as read, whole_file(target, "wb") as written:
                shutil.copyfileobj(read, written)
        except FileNotFoundError as error:
            raise HtsatSedError(
                source, "is missing although its shard is finished: run the shard again"
            ) from error
    return kept
