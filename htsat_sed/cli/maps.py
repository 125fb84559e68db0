"""Presence maps of the recordings that a table of labels speaks of, and what post-processes them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from htsat_sed.cli.class_values import Known
from htsat_sed.cli.event_options import own_rules
from htsat_sed.cli.model_options import DetectorOptions
from htsat_sed.cli.progress import RecordingsProgress
from htsat_sed.cli.terminal import report, say
from htsat_sed.errors import AudioError, HtsatSedError, UsageError
from htsat_sed.runs.recordings import Recording, find_all

if TYPE_CHECKING:
    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import PostProcessing
    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.model.checkpoint import CheckpointInfo


def matching_recordings(folder: Path, wanted: Collection[str]) -> list[Recording]:
    """The recordings below a folder that a table has, called as the table calls them.

    Args:
        folder: searched with all below it; a pattern or a list file will do too.
        wanted: names of recordings; `htsat_sed.evaluation.names` says which file is which.

    Raises:
        AudioError: there is no such folder, it holds none of them, or a name fits several of its recordings.
    """
    from htsat_sed.evaluation.names import matching_names

    found, failures = find_all([str(folder)])
    if failures:
        raise failures[0]
    if [recording.path for recording in found] == [str(folder)] and not os.path.lexists(folder):
        raise AudioError(folder, "no such folder")
    try:
        names = matching_names(wanted, [recording.name for recording in found])
    except UsageError as error:
        raise AudioError(folder, str(error)) from error
    recordings = [replace(each, name=names[each.name]) for each in found if each.name in names]
    if not recordings:
        here, there = found[0].name, min(wanted, default="")
        raise AudioError(
            folder, f"holds no recording of the reference: the folder has {here!r}, the reference {there!r}"
        )
    return recordings


def detected_maps(
    detector: Detector, recordings: Sequence[Recording]
) -> tuple[dict[str, PresenceMap], list[HtsatSedError]]:
    """Detect in recordings.

    Returns:
        Name -> presence map; and an error, already shown, for each recording that failed.
    """
    maps: dict[str, PresenceMap] = {}
    failures: list[HtsatSedError] = []
    with RecordingsProgress("detecting", len(recordings)) as progress:
        results = detector.presence_maps([each.path for each in recordings], progress=progress.heard)
        for recording, (_, result) in zip(recordings, results, strict=True):
            progress.done()
            if isinstance(result, HtsatSedError):
                failures.append(result)
                report(result)
            else:
                maps[recording.name] = result
    return maps, failures


def bundled_info(maps: Mapping[str, PresenceMap]) -> CheckpointInfo | None:
    """The bundled checkpoint, if maps have its classes, and so were made by it where no other is named."""
    from htsat_sed.model.catalogue import BUNDLED, bundled_checkpoint
    from htsat_sed.model.checkpoint import read_info

    path = bundled_checkpoint()
    info = read_info(path) if path is not None else None
    if info is None or not maps or any(tuple(each.labels) != info.labels for each in maps.values()):
        return None
    what = (
        f"using the post-processing of checkpoint {BUNDLED}, which has the same classes as the presence "
        "maps; -c selects another"
    )
    say("note", what, "")
    return info


def post_processing_of(
    info: CheckpointInfo | None, class_map: str | None, file: Path | None
) -> PostProcessing:
    """How maps that were kept are post-processed: as checkpoint or class map say, with a file over that.

    Args:
        info: of the checkpoint that made them; None where nobody named it: the defaults.
        class_map: a name or a file; its thresholds then stand for the checkpoint's values.
        file: as `detect --post-processing` takes it.
    """
    from htsat_sed.detection.events import read_post_processing
    from htsat_sed.labels import class_map as find_class_map

    mapped = find_class_map(class_map) if class_map is not None else None
    rules = own_rules(info.post_processing if info is not None else None, mapped)
    return rules if file is None else rules.override(read_post_processing(file))


def kept_maps_rules(detector_options: DetectorOptions, maps: Mapping[str, PresenceMap]) -> PostProcessing:
    """How events are found in maps that were kept, with what the options of a command say last.

    Args:
        detector_options: the first checkpoint has made the maps. None: the bundled one if it has their
            classes, else the defaults.
        maps: the maps; without any, names of classes are not checked.

    Raises:
        ValueError: a value is out of range; or the maps have none of the class map's classes, or lack one
            that a flag names.
        typer.BadParameter: a flag is no number.
        HtsatSedError: a file cannot be read.
    """
    from htsat_sed.labels import class_map as find_class_map
    from htsat_sed.model.catalogue import resolve_checkpoint
    from htsat_sed.model.checkpoint import read_info

    checkpoints, class_map = detector_options.model.checkpoint, detector_options.model.class_map
    info = None
    if maps and checkpoints:
        info = read_info(resolve_checkpoint(checkpoints[0]))
    elif class_map is None:
        info = bundled_info(maps)
    values = detector_options.events.values
    if maps:
        known = tuple(sorted({label for each in maps.values() for label in each.labels}))
        Known(known, "these presence maps").check_values(values["classes"])
        if class_map is not None and not set(find_class_map(class_map).groups) & set(known):
            raise UsageError(
                f"--map {class_map}: these presence maps have none of its classes; they have {known[0]!r}"
            )
    return post_processing_of(info, class_map, detector_options.events.post_processing).override(values)
