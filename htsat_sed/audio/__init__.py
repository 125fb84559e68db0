"""Reads recordings of any format as streams of mono blocks at the model's sample rate.

- `streams`: blocks of a recording, and windows cut from them.
- `memory`: recordings in memory: samples, bytes, file objects.
- `folders`: finding recordings in folders.
- `mixing`: mixing to mono; `resampling`: conversion of sample rates.
- `time_limit`: decoders in threads, with a time limit.
- `decoders`: choice of the decoder; `uncompressed`: libsndfile; `coded`: FFmpeg; `source`: their interface.
- `forward`: recordings from a pipe, without a copy on disk.
- `remote`: addresses and devices that FFmpeg reads, with reconnection.
- `headers`, `signatures`: information in a file that its decoder does not report.
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
