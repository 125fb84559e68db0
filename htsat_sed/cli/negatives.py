"""Presence maps of negatives, and their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htsat_sed.cli.maps import detected_maps, matching_recordings
from htsat_sed.errors import AnnotationError, AudioError, HtsatSedError
from htsat_sed.runs.recordings import Recording

if TYPE_CHECKING:
    from htsat_sed.annotations import Negative
    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import PostProcessing
    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.evaluation.reliability import Outcomes
    from htsat_sed.evaluation.report import Metric, Settings

TABLE = "clips.tsv"

NegativesOption = Annotated[
    Path | None,
    typer.Option(
        "--negatives",
        metavar="DIR|TSV",
        help="Recordings without the classes, or their presence maps: events in them are false alarms. A "
        f"table ({TABLE} in the folder, or a TSV beside the recordings) may list them in the columns "
        "filename and event_labels; the latter names classes that may occur nevertheless, separated "
        "by |.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class NegativeMaps:
    """Presence maps and labels of negatives.

    Attributes:
        maps: recording -> presence map.
        table: recording -> row of the table; empty without a table.
        detected: whether the maps were computed rather than read.
        failures: recordings that could not be read.
    """

    maps: Mapping[str, PresenceMap]
    table: Mapping[str, Negative]
    detected: bool
    failures: list[HtsatSedError]


def negative_maps(place: Path, make_detector: Callable[[], Detector]) -> NegativeMaps:
    """Read or compute the presence maps of negatives.

    Args:
        place: a folder, or a table beside the recordings or maps.
        make_detector: called if there are recordings rather than maps.

    Raises:
        AnnotationError: the table is malformed, or none of its recordings is there.
        AudioError: there is no such folder, or nothing in it.
    """
    from htsat_sed.annotations import read_presence_maps
    from htsat_sed.annotations.folders import files_below
    from htsat_sed.annotations.presence_maps import SUFFIX
    from htsat_sed.evaluation.tables import Remarks, same_names, some

    folder, file, table = _place(place)
    detected = next(files_below(folder, SUFFIX), None) is None
    failures: list[HtsatSedError] = []
    if not detected:
        maps = dict(read_presence_maps(folder))
        if table:
            known = same_names(maps, table)
            maps = {name: each for name, each in known.items() if name in table}
    else:
        recordings, failures = _recordings(folder, table, whole=place.is_dir())
        maps, failed = detected_maps(make_detector(), recordings)
        failures += failed
    if not maps and table:
        raise AnnotationError(file, f"none of its {len(table)} recordings is below {folder}")
    Remarks().add([name for name in table if name not in maps], "negative", "of the table missing: left out")
    listed = {label for own in table.values() for label in own.possible | own.present}
    unknown = listed - {label for each in maps.values() for label in each.labels}
    Remarks().add(sorted(unknown), "label", f"in {file} that no class has: ignored ({some(unknown)})")
    return NegativeMaps(maps, table, detected, failures)


def negative_recordings(place: Path) -> tuple[list[Recording], Mapping[str, Negative], list[HtsatSedError]]:
    """The recordings of negatives, what the table says about them, and which could not be found.

    Args:
        place: a folder, or a table beside the recordings.

    Raises:
        AnnotationError: the table is malformed.
        AudioError: there is no such folder, or nothing in it.
    """
    folder, _, table = _place(place)
    recordings, failures = _recordings(folder, table, whole=place.is_dir())
    return recordings, table, failures


def _place(place: Path) -> tuple[Path, Path, Mapping[str, Negative]]:
    """The folder of negatives, the file of their table, and what it says; empty if there is no such file."""
    from htsat_sed.annotations import read_negatives

    folder = place.parent if place.is_file() else place
    if not folder.is_dir():
        raise AudioError(folder, "no such folder")
    file = place if place.is_file() else folder / TABLE
    return folder, file, read_negatives(file) if file.is_file() else {}


def _recordings(
    folder: Path, table: Mapping[str, Negative], *, whole: bool
) -> tuple[list[Recording], list[HtsatSedError]]:
    """The recordings of a folder, or those of its table, which may be meant for the `whole` folder."""
    from htsat_sed.evaluation.tables import Remarks
    from htsat_sed.runs.recordings import find_all

    recordings, failures = find_all([str(folder)])
    if table:
        listed = matching_recordings(folder, table)
        others = len(recordings) - len(listed) if whole else 0
        Remarks().add(range(others), "recording", f"of {folder} missing in its {TABLE}: left out")
        return listed, []
    if not recordings:
        raise failures[0] if failures else AudioError(folder, "holds no recordings")
    return recordings, failures


def false_alarm_metrics(
    found: NegativeMaps, rules: PostProcessing, only: list[str] | None, settings: Settings
) -> list[Metric]:
    """Figures of the events that are found in negatives.

    Args:
        found: their presence maps and table.
        rules: how maps become events.
        only: classes to be counted; default all that the maps have.
        settings: bootstrap and seed.
    """
    from htsat_sed.detection.events import find_events
    from htsat_sed.evaluation.false_alarms import score_false_alarms

    labels = _labels(found)
    events = {name: find_events(each, rules) for name, each in found.maps.items()}
    durations = {name: each.duration for name, each in found.maps.items()}
    counted = labels if only is None else [label for label in labels if label in only]
    return score_false_alarms(events, durations, found.table, counted, settings)


def false_outcomes(found: NegativeMaps | None, rules: PostProcessing) -> Outcomes:
    """Scores of the false alarms in negatives, for the reliability of scores; nothing without negatives."""
    from htsat_sed.detection.events import find_events
    from htsat_sed.evaluation.reliability import outcomes_of_negatives

    if found is None:
        return ()
    events = {name: find_events(each, rules) for name, each in found.maps.items()}
    return outcomes_of_negatives(events, found.table, _labels(found))


def _labels(found: NegativeMaps) -> list[str]:
    return sorted({label for each in found.maps.values() for label in each.labels})
