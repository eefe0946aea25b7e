"""Sounds: from the bytes of an encoded file to samples."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wuxing.media.error import MediaError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Sound:
    """Samples from -1 to 1, channels × time, and how many there are per second."""

    samples_CT: NDArray[np.float32]
    rate: int


def decode(data: bytes, rate: int | None = None) -> Sound:
    """The sound, brought to `rate` samples per second when given.  MediaError when it is broken."""
    import soundfile

    try:
        samples_TC, found = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError, ValueError) as error:
        raise MediaError(f"the sound cannot be decoded: {error}") from error
    if rate is not None and rate != found and len(samples_TC):
        import soxr

        samples_TC, found = soxr.resample(samples_TC, found, rate), rate
    return Sound(samples_TC.T, found)
