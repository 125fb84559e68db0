"""Encoding of clips: in memory, so that a full disk is an ordinary error of writing.

libsndfile calls back into Python to write to a file object. An error in such a call is printed as a
traceback, and reaches the caller as another error or not at all.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray


def encoded(
    samples: NDArray[np.generic], sample_rate: int, *, format: str, subtype: str = "PCM_16"
) -> memoryview:
    """Encode samples as a file.

    Args:
        samples: (n) or (n, channels).
        sample_rate: Hz.
        format: such as ``WAV`` or ``FLAC``.
        subtype: as soundfile calls it.
    """
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=format, subtype=subtype)
    return file.getbuffer()
