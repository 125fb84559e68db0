"""Detection in each channel of a recording separately."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from htsat_sed.audio import open_recording
from htsat_sed.audio.streams import OneChannel
from htsat_sed.detection.events import Event
from htsat_sed.errors import HtsatSedError

if TYPE_CHECKING:
    from htsat_sed.detection.detector import Detection, Detector
    from htsat_sed.detection.scheduler import AnyPath, Defective, RecordingProgress


def channel_detections(
    detector: Detector,
    paths: Iterable[AnyPath],
    *,
    progress: RecordingProgress | None = None,
    defective: Defective | None = None,
) -> Generator[tuple[AnyPath, Detection | HtsatSedError]]:
    """Detect events in each channel of recordings, in the order of the recordings.

    A recording is read once per channel. A recording that cannot be read yields its error once.

    Args:
        detector: detector without a channel.
        paths: recordings; standard input is not supported.
        progress: see `Detector.detections`.
        defective: see `Detector.detections`; called for each damaged channel.

    Yields:
        Each path with the events of all its channels, with `Event.channel` set; or with its error.
    """
    counts: deque[tuple[AnyPath, int]] = deque()

    def expanded() -> Iterator[OneChannel]:
        for path in paths:
            channels = _channels(path, detector.track)
            counts.append((path, channels))
            yield from (OneChannel(path, number) for number in range(1, channels + 1))

    with closing(detector.detections(expanded(), progress=progress, defective=defective)) as through:
        found: list[Detection | HtsatSedError] = []
        for _, result in through:
            path, channels = counts[0]
            found.append(result)
            if len(found) == channels:
                counts.popleft()
                yield path, _joined(found)
                found = []


def _channels(path: AnyPath, track: int | None) -> int:
    """Return the number of channels of a recording; 1 if it cannot be opened, which is reported later."""
    try:
        with open_recording(path, 32_000, track=track) as stream:
            return stream.channels
    except HtsatSedError:
        return 1


def _joined(found: list[Detection | HtsatSedError]) -> Detection | HtsatSedError:
    """Join the detections of the channels of one recording; return the first error, if any."""
    detections: list[Detection] = []
    for each in found:
        if isinstance(each, HtsatSedError):
            return each
        detections.append(each)
    events: list[Event] = []
    for number, detection in enumerate(detections, start=1):
        events += [replace(event, channel=number) for event in detection.events]
    return replace(detections[0], events=sorted(events))
