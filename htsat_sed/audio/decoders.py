"""Choice of the decoder: libsndfile for uncompressed audio, FFmpeg (through PyAV) for the rest.

libsndfile reads WAV of any kind, RF64, W64, AIFF, AU and CAF several times faster than FFmpeg.
Compressed formats (FLAC, OGG, Opus, MP3, M4A, MP4, WebM, Matroska, ...) go to FFmpeg, which is as fast
there and continues where libsndfile 1.2 stops without an error: in the middle of an MP3 with variable bit
rate and no Xing header, after the first of several Ogg or FLAC streams in one file, and at a damaged packet.
FFmpeg also reads the files that libsndfile refuses.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import soundfile

from htsat_sed.audio.coded import Coded
from htsat_sed.audio.headers import UNCOMPRESSED, Header, peek, read_header
from htsat_sed.audio.signatures import sound_extent
from htsat_sed.audio.source import Source
from htsat_sed.audio.uncompressed import Uncompressed, Unwrapped
from htsat_sed.errors import AudioError


def open_decoder(path: str, file: BinaryIO, stack: ExitStack, *, track: int = 0) -> Source:
    """Open a recording with the decoder that suits it.

    Args:
        path: name in messages.
        file: the recording, open for reading.
        stack: closes the decoder, before `file`.
        track: index of the audio track.

    Raises:
        AudioError: it is empty, not audio, broken beyond reading, or without such an audio track.
        OSError: it cannot be read.
    """
    source = _decoder(path, file, stack, track)
    source.track = track
    source.again = lambda other, stack: _decoder(path, file, stack, other)
    return source


def _decoder(path: str, file: BinaryIO, stack: ExitStack, track: int) -> Source:
    extent = sound_extent(file)
    head = peek(file, extent[0], 12)
    if not head:
        raise AudioError(path, "is empty (0 bytes): record or copy it again")
    header = Header()
    options: dict[str, str] = {}
    if head[:4] in UNCOMPRESSED:
        header = read_header(file, extent[0])
        layout = header.layout
        found: Source | None = None
        if layout is not None and (header.runs_on or layout.spare or extent[0]) and header.present_bytes:
            found = Unwrapped(stack.enter_context(_anew(file.name)), header, layout)
        elif header.runs_on:
            options["ignore_length"] = "1"
        elif (decoder := _open_libsndfile(file.name, stack)) is not None:
            found = Uncompressed(decoder, header)
        if found is not None:
            if track:
                raise AudioError(path, f"has 1 audio track, no track {track + 1}")
            return found
        extent = (extent[0], file.seek(0, os.SEEK_END))
    return Coded(path, file, extent, stack, track=track, ending=header.ending, options=options)


def _anew(name: str) -> BinaryIO:
    """Open the file again, with an independent position."""
    return Path(name).open("rb")


def _open_libsndfile(name: str, stack: ExitStack) -> soundfile.SoundFile | None:
    """Open a file; None if libsndfile cannot read it or finds it empty, which FFmpeg may not."""
    try:
        if os.name == "nt":
            file = stack.enter_context(soundfile.SoundFile(name))
        else:  # by file descriptor, so that its suffix and names that are not Unicode do not matter
            numbered = stack.enter_context(_anew(name))
            file = stack.enter_context(soundfile.SoundFile(numbered.fileno(), closefd=False))
    except soundfile.LibsndfileError:
        return None
    return file if file.frames else None
