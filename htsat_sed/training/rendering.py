"""Writing soundscapes to disk as a data set in the format of DESED."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from htsat_sed.annotations import write_events
from htsat_sed.audio.encoding import encoded
from htsat_sed.detection.events import Event
from htsat_sed.errors import HtsatSedError
from htsat_sed.training.soundscapes import Soundscapes
from htsat_sed.whole_file import remove_all_unfinished, whole_file

AUDIO, REFERENCE, DURATIONS = "audio", "reference.tsv", "durations.tsv"


def render(
    soundscapes: Soundscapes,
    folder: Path,
    *,
    count: int,
    sample_rate: int,
    seconds: float,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Write soundscapes 0 to `count` - 1 and their strong labels.

    Args:
        soundscapes: series of soundscapes.
        folder: output folder; receives ``audio/00000.flac`` (16 bits) and so on, ``reference.tsv`` and
            ``durations.tsv``.
        count: number of soundscapes.
        sample_rate: sample rate of the soundscapes, Hz.
        seconds: duration of a soundscape, seconds.
        progress: called after each soundscape.

    Raises:
        HtsatSedError: a file or folder cannot be written.
    """
    audio = folder / AUDIO
    try:
        audio.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HtsatSedError(audio, f"cannot be made: {error.strerror}") from error
    for place in (audio, folder):
        remove_all_unfinished(place)
    events: dict[str, list[Event]] = {}
    for number in range(count):
        samples, own, _ = soundscapes[number]
        name = f"{number:05d}.flac"
        with whole_file(audio / name, "wb") as file:
            file.write(encoded(np.round(samples * 32_767).astype(np.int16), sample_rate, format="FLAC"))
        events[name] = own
        progress()
    with whole_file(folder / DURATIONS) as file:
        file.write("filename\tduration\n")
        file.writelines(f"{name}\t{seconds:g}\n" for name in events)
    write_events(folder / REFERENCE, events, "tsv")
