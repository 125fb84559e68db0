"""Option groups of `htsat-sed evaluate`: what is evaluated, by which metrics, and where the report goes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htsat_sed.cli.evaluation_report import write_csv, write_json
from htsat_sed.cli.negatives import NegativesOption
from htsat_sed.runs.written import recording_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.evaluation.comparison import Comparison
    from htsat_sed.evaluation.report import Report, Settings

METRICS = "Metrics"
OUTPUT = "Output"


@dataclass(frozen=True)
class EvaluatedFiles:
    """What is evaluated: reference, and events, presence maps or recordings."""

    reference: Annotated[
        Path | None,
        typer.Argument(
            metavar="REFERENCE",
            help="Strong labels: a table with filename, onset, offset (seconds) and event_label, as DESED's; "
            "or any format that detect writes, also a folder with one label file a recording. Or weak ones, "
            "filename and event_labels, for clip-level metrics alone. May be left out with --negatives.",
            show_default=False,
        ),
    ] = None
    estimated: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="ESTIMATED",
            help="Events, in the same formats; clip scores as tag writes them; or a folder of presence maps "
            "or score files, as for --scores. Several are compared, the others with the first.",
            show_default=False,
        ),
    ] = None
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Presence maps as `detect --scores` keeps them, or score files (a TSV a recording with "
            "onset, offset and a column a class, as sed_scores_eval has them): adds PSDS and clip-level "
            "metrics. Without ESTIMATED, events are found in them, by the options at the end.",
            show_default=False,
        ),
    ] = None
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Detect first, in the recordings below this folder that REFERENCE has: presence maps and "
            "events, by the options at the end.",
            show_default=False,
        ),
    ] = None
    negatives: NegativesOption = None
    durations: Annotated[
        Path | None,
        typer.Option(
            metavar="TSV",
            help="Table with filename and duration (seconds; presence maps know theirs). Events past the end "
            "are noticed, and a recording in it that REFERENCE lacks counts as one without events.",
            show_default=False,
        ),
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="LABEL",
            help=r"Score only this class; repeatable.  \[default: all of the reference]",
            show_default=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse what does not go together.

        Raises:
            typer.BadParameter: saying what is wanted.
        """
        sides = (("ESTIMATED", self.estimated), ("--scores", self.scores), ("--audio", self.audio))
        given = [name for name, value in sides if value]
        if self.reference is None and (self.negatives is None or given):
            raise typer.BadParameter("wanted REFERENCE, or --negatives alone")
        if self.reference is not None and (not given or (self.audio is not None and len(given) > 1)):
            raise typer.BadParameter("wanted ESTIMATED, --scores, both of them, or --audio alone")
        if len(self.estimated or ()) > 1 and (self.scores is not None or self.negatives is not None):
            raise typer.BadParameter("several ESTIMATED are compared: leave --scores and --negatives out")

    @property
    def paths(self) -> list[Path | None]:
        """All of them, None for one that was not given."""
        return [self.reference, *(self.estimated or ()), self.scores, self.negatives, self.durations]

    def systems(self) -> list[EvaluatedFiles]:
        """The same with one ESTIMATED at a time; a folder of scores stands at --scores."""
        from htsat_sed.annotations.presence_maps import holds_scores

        found = []
        for path in self.estimated or ():
            if self.scores is None and holds_scores(path):
                found.append(replace(self, estimated=None, scores=path))
            else:
                found.append(replace(self, estimated=[path]))
        return found or [self]


@dataclass(frozen=True)
class MetricOptions:
    """Parameters of the metrics, and what is computed beside them."""

    onset_collar: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Collar-based F1: how far an onset may be off.", rich_help_panel=METRICS
        ),
    ] = 0.2
    offset_collar: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Collar-based F1: how far an offset may be off.", rich_help_panel=METRICS
        ),
    ] = 0.2
    offset_share: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Or by this part of the reference event's duration, if that is more.",
            rich_help_panel=METRICS,
        ),
    ] = 0.2
    segment: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Segment-based F1: length of a segment.", rich_help_panel=METRICS
        ),
    ] = 1.0
    dtc: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Intersection-based F1: least part of an estimated event inside reference events.",
            rich_help_panel=METRICS,
        ),
    ] = 0.5
    gtc: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Intersection-based F1: least part of a reference event that estimated ones cover.",
            rich_help_panel=METRICS,
        ),
    ] = 0.5
    cttc: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Cross-trigger tolerance, stated with F1 though without effect on it.",
            rich_help_panel=METRICS,
        ),
    ] = 0.3
    psds_thresholds: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="PSDS: approximate the curve by N thresholds, in the middle of equal parts of 0 to 1, as "
            r"psds_eval is used.  \[default: exact, all scores that occur]",
            show_default=False,
            rich_help_panel=METRICS,
        ),
    ] = 0
    pi_psds: Annotated[
        bool,
        typer.Option(
            "--pi-psds",
            help="Also the PSDS that is independent of post-processing (piPSDS): at each rate of false "
            "positives the best of the median filters from 0 to 2 s, in steps of 0.2 s, and no other "
            "post-processing.",
            rich_help_panel=METRICS,
        ),
    ] = False
    beta: Annotated[
        float,
        typer.Option(
            metavar="B",
            help="Also an F-measure in which recall weighs B times as much as precision, such as 2.",
            rich_help_panel=METRICS,
        ),
    ] = 1.0
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="Also error rates, delay and duration error of found events, false positives per hour, what "
            "was detected instead, and from scores: segments ranked (mAP, AUC) and best thresholds.",
            rich_help_panel=METRICS,
        ),
    ] = False
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="95 % intervals (BCa) from N resamplings of the recordings, such as 1000.",
            rich_help_panel=METRICS,
        ),
    ] = 0
    reliability: Annotated[
        bool,
        typer.Option(
            "--reliability",
            help="How often events of a score are right, by tenths of the score; false alarms count.",
            rich_help_panel=METRICS,
        ),
    ] = False
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compute the figures with sed_eval, psds_eval, sed_scores_eval and scikit-learn, too; fail "
            r"if any differs by more than 1e-9. Needs pip install 'htsat-sed\[reference]'.",
            rich_help_panel=METRICS,
        ),
    ] = False
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of the resampling.", rich_help_panel=METRICS)
    ] = 0

    @property
    def settings(self) -> Settings:
        """The parameters alone."""
        from htsat_sed.evaluation.report import Settings

        return Settings(**{each.name: getattr(self, each.name) for each in fields(Settings)})


@dataclass(frozen=True)
class ReportFiles:
    """Files of the report, each written where it is given."""

    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Everything: figures, counts, parameters, versions, hashes of the inputs. The same input "
            "gives the same bytes.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="A row for each metric, class and figure.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A picture (png, svg, pdf): F1 of each class, and the PSD-ROC.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None

    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of several systems, tables as in a paper: LaTeX (.tex) or Markdown (.md).",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None
    write_scores: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The presence maps of --scores or --audio as score files, for sed_scores_eval.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None

    @property
    def paths(self) -> tuple[Path | None, Path | None, Path | None, Path | None]:
        """The files to be, None for one that is not wanted."""
        return self.json_file, self.csv_file, self.plot, self.table

    def write(self, found: Report, asked: Mapping[str, object]) -> None:
        """Write the report.

        Args:
            found: what was computed.
            asked: inputs and parameters, for the JSON file.
        """
        from htsat_sed.evaluation.picture import draw_report

        self._write(
            (self.json_file, lambda path: write_json(path, found, asked)),
            (self.csv_file, lambda path: write_csv(path, found)),
            (self.plot, lambda path: draw_report(found, path)),
        )

    def write_comparison(self, found: Comparison, asked: Mapping[str, object]) -> None:
        """Write the comparison; arguments as of `write`."""
        from htsat_sed.cli.comparison_report import write_comparison_csv, write_comparison_json, write_table
        from htsat_sed.evaluation.picture import draw_comparison

        self._write(
            (self.json_file, lambda path: write_comparison_json(path, found, asked)),
            (self.csv_file, lambda path: write_comparison_csv(path, found)),
            (self.plot, lambda path: draw_comparison(found, path)),
            (self.table, lambda path: write_table(path, found)),
        )

    def _write(self, *files: tuple[Path | None, Callable[[Path], None]]) -> None:
        for path, written in files:
            if path is not None:
                with recording_outputs():
                    written(path)

    def keep_scores(self, maps: Mapping[str, PresenceMap]) -> None:
        """Write the presence maps as score files, if that was asked for."""
        from htsat_sed.annotations.score_files import write_score_file

        if self.write_scores is not None:
            for name, each in maps.items():
                with recording_outputs():
                    write_score_file(self.write_scores, name, each)
