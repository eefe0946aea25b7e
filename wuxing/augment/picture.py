"""Sounds as pictures, for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wuxing.media.image import encode

if TYPE_CHECKING:
    from numpy.typing import NDArray

PEAKS = 160
WINDOW = 256
FLOOR_DB = -70.0
WIDTH, HEIGHT = 320, 96


def peaks_of(samples_T: NDArray[np.float32]) -> list[tuple[float, float]]:
    """The lowest and highest sample of each of at most `PEAKS` stretches."""
    stretches = np.array_split(samples_T, min(PEAKS, len(samples_T)))
    return [(float(part.min()), float(part.max())) for part in stretches]


def spectrogram(samples_T: NDArray[np.float32]) -> bytes:
    """A PNG: time to the right, frequency upwards, dark where loud; 70 dB below full scale is white."""
    hop = max(1, len(samples_T) // WIDTH)
    wide = np.pad(samples_T.astype(np.float64), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(wide, WINDOW)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1))).T / (WINDOW / 4) ** 2
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    shade = np.clip(255 * decibels / FLOOR_DB, 0, 255).astype(np.uint8)[::-1]
    return encode(Image.fromarray(shade).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
