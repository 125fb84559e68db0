"""Option groups of `htsat-sed evaluate`: files, metrics and report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import typer

from htsat_sed.cli.evaluation_report import write_csv, write_json
from htsat_sed.cli.groups import OUTPUT, argument, option
from htsat_sed.cli.negatives import NegativesOption
from htsat_sed.runs.output_hashes import recording_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.evaluation.comparison import Comparison
    from htsat_sed.evaluation.report import Report, Settings

METRICS = "Metrics"


@dataclass(frozen=True)
class EvaluatedFiles:
    """Reference, and events, presence maps or recordings to evaluate."""

    reference: Path | None = argument(
        None,
        "Strong labels: a table with filename, onset, offset (seconds) and event_label, as in DESED; or "
        "any format that detect writes, also a folder with one label file per recording. Or weak labels: "
        "filename and event_labels, for clip-level metrics only. Optional with --negatives.",
        metavar="REFERENCE",
    )
    estimated: list[Path] | None = argument(
        None,
        "Events, in the same formats; clip scores as tag writes them; or a folder of presence maps or "
        "score files, as for --scores. Several are compared with the first.",
        metavar="ESTIMATED",
    )
    scores: Path | None = option(
        None,
        "Presence maps from `detect --scores`, or score files (one TSV per recording with onset, offset "
        "and a column per class, as in sed_scores_eval): adds PSDS and clip-level metrics. Without "
        "ESTIMATED, events are computed from these scores with the post-processing options below.",
        metavar="DIR",
    )
    audio: Path | None = option(
        None,
        "Folder of the recordings of REFERENCE, to compute their presence maps and events with the "
        "options below.",
        metavar="DIR",
    )
    negatives: NegativesOption = None
    durations: Path | None = option(
        None,
        "Table with filename and duration in seconds; not needed with presence maps. Adds a warning about "
        "events past the end of a recording; recordings that REFERENCE lacks count as recordings without "
        "events.",
        metavar="TSV",
    )
    only: list[str] | None = option(
        None,
        "Score only this class. Repeatable.  \\[default: all classes of the reference]",
        "--class",
        metavar="LABEL",
    )

    def __post_init__(self) -> None:
        """Check the combination of options.

        Raises:
            typer.BadParameter: the combination is invalid.
        """
        sides = (("ESTIMATED", self.estimated), ("--scores", self.scores), ("--audio", self.audio))
        given = [name for name, value in sides if value]
        if self.reference is None and (self.negatives is None or given):
            raise typer.BadParameter("give REFERENCE, or --negatives alone")
        if self.reference is not None and (not given or (self.audio is not None and len(given) > 1)):
            raise typer.BadParameter("give ESTIMATED, --scores or both, or --audio alone")
        if len(self.estimated or ()) > 1 and (self.scores is not None or self.negatives is not None):
            raise typer.BadParameter("several ESTIMATED are compared: omit --scores and --negatives")

    @property
    def paths(self) -> list[Path | None]:
        """All files; None for those not given."""
        return [self.reference, *(self.estimated or ()), self.scores, self.negatives, self.durations]

    def systems(self) -> list[EvaluatedFiles]:
        """The files with one ESTIMATED at a time; a folder of scores is moved to --scores."""
        from htsat_sed.annotations.presence_maps import holds_scores

        found = []
        for path in self.estimated or ():
            if self.scores is None and holds_scores(path):
                found.append(replace(self, estimated=None, scores=path))
            else:
                found.append(replace(self, estimated=[path]))
        return found or [self]


@dataclass(frozen=True)
class ToleranceOptions:
    """Tolerances of the F1 metrics, as in `Settings`."""

    panel: ClassVar[str] = METRICS
    onset_collar: float = option(0.2, "Collar-based F1: tolerance of onsets.", metavar="SECONDS")
    offset_collar: float = option(0.2, "Collar-based F1: tolerance of offsets.", metavar="SECONDS")
    offset_share: float = option(
        0.2,
        "Collar-based F1: tolerance of offsets as a fraction of the reference duration, if that is more.",
        metavar="PART",
    )
    segment: float = option(1.0, "Segment-based F1: length of a segment.", metavar="SECONDS")
    dtc: float = option(
        0.5,
        "Intersection-based F1: minimum fraction of an estimated event inside reference events.",
        metavar="PART",
    )
    gtc: float = option(
        0.5,
        "Intersection-based F1: minimum fraction of a reference event inside estimated events.",
        metavar="PART",
    )


@dataclass(frozen=True)
class MetricOptions:
    """Parameters of the metrics, and optional metrics."""

    panel: ClassVar[str] = METRICS
    tolerances: ToleranceOptions = ToleranceOptions()
    cttc: float = option(
        0.3, "Cross-trigger tolerance criterion; reported with F1, but does not affect it.", metavar="PART"
    )
    psds_thresholds: int = option(
        0,
        "PSDS: approximate the curve by N evenly spaced thresholds, as usual with psds_eval.  \\[default: "
        "exact, all scores that occur]",
        min=0,
        metavar="N",
        show_default=False,
    )
    pi_psds: bool = option(
        False,
        "Also report the post-processing-independent PSDS (piPSDS): it uses the best median filter at "
        "each false-positive rate, from 0 to 2 s in steps of 0.2 s, and no other post-processing.",
        "--pi-psds",
    )
    beta: float = option(
        1.0,
        "Also report an F-measure in which recall weighs B times as much as precision, such as 2.",
        metavar="B",
    )
    details: bool = option(
        False,
        "Also report error rates, delay and duration error of found events, false positives per hour and "
        "confusions; from scores, also ranked segments (mAP, AUC) and best thresholds.",
        "--details",
    )
    bootstrap: int | None = option(
        None,
        "Report 95 % intervals (BCa) from N resamplings of the recordings, such as 1000.  \\[default: "
        "none; 1000 to compare several ESTIMATED]",
        min=0,
        metavar="N",
    )
    reliability: bool = option(
        False,
        "Report the share of right events in each tenth of the score range; false alarms count as wrong.",
        "--reliability",
    )
    check: bool = option(
        False,
        "Also compute the figures with sed_eval, psds_eval, sed_scores_eval and scikit-learn, and fail if "
        "any differs by more than 1e-9. Needs pip install 'htsat-sed\\[reference]'.",
        "--check",
    )
    seed: int = option(0, "Random seed of the resampling.", min=0, metavar="N")

    @property
    def settings(self) -> Settings:
        """The parameters of the metrics."""
        from htsat_sed.evaluation.report import Settings

        values = asdict(self.tolerances) | {"bootstrap": self.bootstrap or 0}
        others = [each.name for each in fields(Settings) if each.name not in values]
        return Settings(**values, **{name: getattr(self, name) for name in others})


@dataclass(frozen=True)
class ReportFiles:
    """Files of the report."""

    panel: ClassVar[str] = OUTPUT
    json_file: Path | None = option(
        None,
        "Write all figures, counts, parameters, versions and hashes of the inputs. Reproducible to the byte.",
        "--json",
        metavar="FILE",
    )
    csv_file: Path | None = option(
        None, "Write a row for each metric, class and figure.", "--csv", metavar="FILE"
    )
    plot: Path | None = option(
        None,
        "Write a picture (png, svg, pdf): F1 of each class, the PSD-ROC and, with --reliability, its table.",
        metavar="FILE",
    )

    table: Path | None = option(
        None, "Write tables that compare systems: LaTeX (.tex) or Markdown (.md).", metavar="FILE"
    )
    write_scores: Path | None = option(
        None,
        "Write the presence maps of --scores or --audio as score files, for sed_scores_eval.",
        metavar="DIR",
    )

    @property
    def paths(self) -> tuple[Path | None, Path | None, Path | None, Path | None]:
        """The files; None for those not given."""
        return self.json_file, self.csv_file, self.plot, self.table

    def write(self, found: Report, asked: Mapping[str, object]) -> None:
        """Write the report.

        Args:
            found: the report.
            asked: inputs and parameters, for the JSON file.
        """
        from htsat_sed.evaluation.picture import draw_report

        self._write(
            (self.json_file, lambda path: write_json(path, found, asked)),
            (self.csv_file, lambda path: write_csv(path, found)),
            (self.plot, lambda path: draw_report(found, path)),
        )

    def write_comparison(self, found: Comparison, asked: Mapping[str, object]) -> None:
        """Write the comparison; arguments as for `write`."""
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
        """Write the presence maps as score files, if requested."""
        from htsat_sed.annotations.score_files import write_score_file

        if self.write_scores is not None:
            for name, each in maps.items():
                with recording_outputs():
                    write_score_file(self.write_scores, name, each)
