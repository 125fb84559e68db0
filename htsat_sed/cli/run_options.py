"""Options of runs over many recordings: shards, journal, output files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from htsat_sed.cli.groups import OUTPUT, RECORDINGS, SAFE_CELLS, option
from htsat_sed.cli.progress import RecordingsProgress, waiting_for
from htsat_sed.cli.terminal import shown
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.remote import as_address
from htsat_sed.runs.output_checks import check_apart, check_files
from htsat_sed.runs.output_hashes import check_replaceable
from htsat_sed.runs.recordings import Recording
from htsat_sed.runs.run import Run, RunOfShard, beside, failures_place, open_journal

if TYPE_CHECKING:
    from htsat_sed.runs.remote_output import RemoteOutput
    from htsat_sed.runs.shards import Part


@dataclass(frozen=True)
class OverwriteOptions:
    """Whether files of others are replaced."""

    panel: ClassVar[str] = OUTPUT
    overwrite: bool = option(
        False, "Also replace edited files, and files that htsat-sed did not write.", "--overwrite"
    )


@dataclass(frozen=True)
class ShardOptions:
    """Which part of the recordings is done."""

    panel: ClassVar[str] = RECORDINGS
    shard: str | None = option(
        None,
        "Process only part I of N of the recordings, such as 3/40. Run N processes, on one machine or "
        "several, each with its own shard and --output; `htsat-sed merge` joins the outputs.",
        metavar="I/N",
    )

    def take(
        self, recordings: list[Recording], *, out: Path | None, skip_existing: bool = False
    ) -> tuple[list[Recording], Part | None]:
        """The recordings of this shard, and which part of all they are; without a shard all, and None.

        Raises:
            typer.BadParameter: it is no shard, or contradicts other options.
        """
        from htsat_sed.runs.shards import Shard, part_of

        if self.shard is None:
            return recordings, None
        try:
            shard = Shard.parse(self.shard)
        except UsageError as error:
            raise typer.BadParameter(str(error), param_hint="--shard") from error
        if out is None or (out.exists() and not out.is_file() and not out.is_dir()):
            raise typer.BadParameter("a shard needs a file or folder as --output", param_hint="--shard")
        if skip_existing:
            raise typer.BadParameter("wanted --shard or --skip-existing, not both", param_hint="--shard")
        part = part_of(recordings, shard)
        return list(part.recordings), part


@dataclass(frozen=True)
class RunOptions(OverwriteOptions):
    """How a run over recordings treats what is there already, and what fails."""

    restart: bool = option(False, "Start again instead of resuming a stopped run.", "--restart")
    failures_table: Path | None = option(
        None,
        "Table of failed and damaged recordings, with reasons.  \\[default: failures.csv in the "
        "output folder, NAME.failures.csv beside the output NAME]",
        "--failures",
        metavar="CSV",
    )
    safe_cells: bool = option(
        False,
        SAFE_CELLS,
        "--safe-cells",
    )

    json_summary: Path | None = option(
        None,
        "When the run ends, write times and the numbers of recordings done, failed and damaged to this "
        "file, as JSON.",
        "--json-summary",
        metavar="FILE",
    )
    metrics: Path | None = option(
        None,
        "About every 15 s, write the numbers of recordings done, failed and damaged for Prometheus. Put "
        "the file into the folder of the node exporter's textfile collector.",
        metavar="FILE.prom",
    )

    def check_monitors(self) -> None:
        """Refuse files for monitors that cannot be written.

        Raises:
            HtsatSedError: naming the file.
            UsageError: the metrics would not be read, or replace something else.
        """
        from htsat_sed.runs.metrics import check_metrics

        check_files(self.json_summary, self.metrics)
        check_metrics(self.metrics)

    def start(
        self,
        recordings: Sequence[Recording],
        failures: Sequence[HtsatSedError],
        *,
        display: RecordingsProgress,
        out: Path | None,
        outputs: Sequence[Path],
        tables: Sequence[Path],
        inputs: Iterable[str | Path | None],
        settings: Callable[[], Mapping[str, Any]],
        is_result: Callable[[Any], bool],
        exist: Callable[[str], bool] = lambda name: True,
        skip_existing: bool = False,
        part: Part | None = None,
        written: Mapping[str, Any] | None = None,
        about: Callable[[str], Any] = lambda name: None,
        remote: RemoteOutput | None = None,
    ) -> Run:
        """A run that goes on where an earlier one was stopped, after a check of what it reads and writes.

        Args:
            recordings: all of them.
            failures: what failed before.
            display: shows progress.
            out: the output as given; None for standard output, which has no journal.
            outputs: all files that the run may write.
            tables: those that are not replaced if somebody has edited them.
            inputs: what is read.
            settings: all that results depend on, for the journal.
            is_result: whether a result in the journal has the form that the command makes.
            exist: see `Run`.
            skip_existing: see `Run`.
            part: which of several shards this is, if it is one.
            written: for `merge`, how the outputs of a shard are written.
            about: for `merge`, what else they have of a recording; anything that JSON can hold.
            remote: the store that the output belongs into.

        Raises:
            HtsatSedError: an output is among the inputs, or cannot be written.
            UsageError: an output is not to be replaced, or belongs to another run.
        """
        self.check_monitors()
        check_apart([*outputs, self.json_summary, self.metrics], inputs)
        check_replaceable(*tables, self.json_summary, overwrite=self.overwrite)
        failures_table = failures_place(self.failures_table, out, outputs)
        if remote is not None:
            remote.check_replaceable([*outputs, failures_table], overwrite=self.overwrite)
        journal = shard = None
        if out is not None and not skip_existing:
            all_settings = settings()
            if part is not None and (place := beside(out, "shard")) is not None:
                shard = RunOfShard(place, part, all_settings, written or {}, about)
                all_settings = {**all_settings, "shard": str(part.shard)}
            journal = open_journal(
                out,
                all_settings,
                restart=self.restart,
                outputs=[*outputs, failures_table, shard.path if shard is not None else None],
                is_result=is_result,
            )
        return Run(
            recordings,
            failures,
            display=display,
            journal=journal,
            exist=exist,
            skip_existing=skip_existing,
            failures_table=failures_table,
            shard=shard,
            summary=self.json_summary,
            metrics=self.metrics,
            remote=remote,
        )


@contextmanager
def opened_remote(out: Path | None, *, fetch: str | None = None) -> Iterator[RemoteOutput | None]:
    """The store that an output belongs into, if it is an address.

    Args:
        out: as given. For an address, the run writes to `RemoteOutput.path`; messages show the address.
        fetch: see `RemoteOutput`.

    Raises:
        UsageError: no outputs can go there.
        HtsatSedError: the store cannot be read.
    """
    address = None if out is None else as_address(out)
    if address is None:
        yield None
        return
    from htsat_sed.runs.remote_output import RemoteOutput

    with waiting_for(f"checking {address}"):
        remote = RemoteOutput(address, fetch=fetch)
    shown.places[str(remote.folder)] = remote.above
    with remote:
        yield remote
