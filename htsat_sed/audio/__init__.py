"""A recording of any format as a stream of mono blocks at the model's rate.

- `streams`: blocks of a recording, and windows cut from them.
- `folders`: finding recordings in folders.
- `decoders`: libsndfile for uncompressed audio, FFmpeg for the rest.
- `headers`: what a recording's own bytes state and its decoder does not pass on.
"""

from htsat_sed.audio.folders import AUDIO_SUFFIXES, find_recordings, has_audio_suffix
from htsat_sed.audio.streams import AudioStream, Window, open_recording, open_source, read, windows

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioStream",
    "Window",
    "find_recordings",
    "has_audio_suffix",
    "open_recording",
    "open_source",
    "read",
    "windows",
]
