"""A recording of any format as a stream of mono blocks at the model's rate.

- `streams`: blocks of a recording, and windows cut from them.
- `memory`: sound that is not in a file: samples, bytes, file objects.
- `folders`: finding recordings in folders.
- `mixing`: channels to mono; `resampling`: one rate to another.
- `patience`: decoders in threads, with a time limit.
- `decoders`: the choice of one; `uncompressed`: libsndfile; `coded`: FFmpeg; `source`: their interface.
- `forward`: recordings from a pipe, without a copy on the disk.
- `remote`: addresses and devices that FFmpeg reads, opened again where they break off.
- `headers`, `signatures`: facts in a recording's bytes that its decoder does not report.
"""

from htsat_sed.audio.folders import AUDIO_SUFFIXES, find_recordings, has_audio_suffix
from htsat_sed.audio.memory import InMemory
from htsat_sed.audio.streams import (
    AudioStream,
    Window,
    check_channel,
    check_choice,
    cut,
    open_recording,
    open_source,
    read,
    stream_of,
    windows,
)

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioStream",
    "InMemory",
    "Window",
    "check_channel",
    "check_choice",
    "cut",
    "find_recordings",
    "has_audio_suffix",
    "open_recording",
    "open_source",
    "read",
    "stream_of",
    "windows",
]
