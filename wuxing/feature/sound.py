"""Features of sounds: mel spectrograms and cepstral coefficients.  Nothing in them is fitted.

Definitions are those that librosa documents: frames centred on multiples of the hop with zeros beyond the ends, a
periodic Hann window, power, Slaney's or HTK's mel filters, decibels 10 log10(max(1e-10, S)), an orthonormal DCT-II.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from wuxing.feature.config import Mfcc, SoundSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wuxing.feature.fitted import Room

FLOOR = 1e-10
"""Power below which a band counts as silent: -100 dB."""
DELTA_FRAMES = 9
STATISTICS = ("mean", "deviation", "least", "largest")


class Sounds:
    """A transform of single sounds (mono samples at `settings.rate`)."""

    sparse: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.0

    def __init__(self, settings: SoundSettings):
        self.settings = settings

    @property
    def _lines(self) -> list[str]:
        """What each line of the spectrogram is."""
        if not isinstance(self.settings, Mfcc):
            return [f"mel{band}" for band in range(self.settings.bands)]
        prefixes = ["", "delta ", "delta2 "][: self.settings.deltas + 1]
        return [f"{prefix}mfcc{i}" for prefix in prefixes for i in range(self.settings.coefficients)]

    @cached_property
    def names(self) -> list[str]:
        """What each column is."""
        if self.settings.pool == "statistics":
            return [f"{what} {line}" for what in STATISTICS for line in self._lines]
        return [f"{line} frame {t}" for line in self._lines for t in range(self.frames or 0)]

    @property
    def frames(self) -> int | None:
        """The frames of a row, where all are kept."""
        if self.settings.seconds is None:
            return None
        return 1 + round(self.settings.seconds * self.settings.rate) // _hop(self.settings)

    def apply(self, sounds: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """One row per sound."""
        rows = np.zeros((len(sounds), len(self.names)), np.float32)
        for row, samples in zip(rows, sounds, strict=True):
            row[:] = self._one(samples)
        return rows

    def _one(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        settings = self.settings
        if settings.seconds is not None:
            length = round(settings.seconds * settings.rate)
            samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
        lines_LT = spectrogram(samples, settings)
        if settings.pool == "frames":
            return lines_LT.ravel()
        parts = [lines_LT.mean(1), lines_LT.std(1), lines_LT.min(1), lines_LT.max(1)]
        return np.concatenate(parts)

    def save(self, directory: Path) -> None:
        """Nothing is fitted: the settings say all."""

    @classmethod
    def load(cls, directory: Path, settings: SoundSettings) -> Sounds:
        """From the settings."""
        return cls(settings)


def fit(settings: SoundSettings, sounds: object, room: Room) -> Sounds:
    """Nothing is fitted."""
    return Sounds(settings)


def spectrogram(samples: NDArray[np.float32], settings: SoundSettings) -> NDArray[np.float64]:
    """Lines × frames: the mel bands in decibels (`LogMel`), or the coefficients and their deltas (`Mfcc`)."""
    decibels_BT = log_mel(samples, settings)
    if not isinstance(settings, Mfcc):
        return decibels_BT
    lines = [dct(settings.bands)[: settings.coefficients] @ decibels_BT]
    for _ in range(settings.deltas):
        lines.append(delta(lines[-1]))
    return np.concatenate(lines)


def log_mel(samples: NDArray[np.float32], settings: SoundSettings) -> NDArray[np.float64]:
    """Bands × frames, in decibels."""
    top = settings.high_hz or settings.rate / 2
    filters = mel_filters(
        settings.rate, fft_size(settings), settings.bands, settings.low_hz, top, settings.mel, settings.area
    )
    powers = power(samples, fft_size(settings), _window(settings), _hop(settings))
    return 10 * np.log10(np.maximum(FLOOR, filters @ powers))


def _window(settings: SoundSettings) -> int:
    return max(2, round(settings.window_ms * settings.rate / 1000))


def _hop(settings: SoundSettings) -> int:
    return max(1, round(settings.hop_ms * settings.rate / 1000))


def fft_size(settings: SoundSettings) -> int:
    """The power of two that holds a window."""
    return 1 << (_window(settings) - 1).bit_length()


def hann(length: int) -> NDArray[np.float64]:
    """The periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def power(samples: NDArray[np.float32], size: int, window: int, hop: int) -> NDArray[np.float64]:
    """Frequencies × frames: the squared size of the short-time Fourier transform.

    Frame t is centred on sample t · hop; the window stands in the middle of `size` points.
    """
    wide = np.pad(samples.astype(np.float64), size // 2)
    frames_TS = np.lib.stride_tricks.sliding_window_view(wide, size)[::hop]
    shape = np.zeros(size)
    start = (size - window) // 2
    shape[start : start + window] = hann(window)
    return np.square(np.abs(np.fft.rfft(frames_TS * shape, axis=1))).T


def to_mel(hertz: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """Pitch: Slaney's scale is 3/200 mel per Hz below 1 kHz and 27 mel per factor 6.4 above; HTK's is logarithmic."""
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    above = 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4)
    return np.where(hertz < 1000, hertz * 3 / 200, above)


def to_hertz(mels: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """The inverse of `to_mel`."""
    if scale == "htk":
        return 700 * (10 ** (mels / 2595) - 1)
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(np.log(6.4) * (mels - 15) / 27))


@lru_cache(maxsize=16)
def mel_filters(
    rate: int, size: int, bands: int, low_hz: float, high_hz: float, scale: str, area: bool
) -> NDArray[np.float64]:
    """Bands × frequencies: triangles whose feet are the neighbours' tips, evenly spaced in mel."""
    ends = to_mel(np.array([low_hz, high_hz]), scale)
    tips = to_hertz(np.linspace(ends[0], ends[1], bands + 2), scale)
    frequencies = np.arange(size // 2 + 1) * rate / size
    rising = (frequencies - tips[:-2, None]) / (tips[1:-1] - tips[:-2])[:, None]
    falling = (tips[2:, None] - frequencies) / (tips[2:] - tips[1:-1])[:, None]
    filters = np.maximum(0, np.minimum(rising, falling))
    if area:
        filters *= (2 / (tips[2:] - tips[:-2]))[:, None]
    return filters


@lru_cache(maxsize=16)
def dct(size: int) -> NDArray[np.float64]:
    """The orthonormal DCT-II as a matrix."""
    k, n = np.arange(size)[:, None], np.arange(size)[None, :]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * k * (2 * n + 1) / (2 * size))
    matrix[0] /= np.sqrt(2)
    return matrix


def delta(lines_LT: NDArray[np.float64]) -> NDArray[np.float64]:
    """The slope of a straight line through the 9 frames around each; ends are repeated."""
    half = DELTA_FRAMES // 2
    wide = np.pad(lines_LT, ((0, 0), (half, half)), mode="edge")
    frames = lines_LT.shape[1]
    slopes = sum(
        n * (wide[:, half + n : half + n + frames] - wide[:, half - n : half - n + frames]) for n in (1, 2, 3, 4)
    )
    return np.asarray(slopes / (2 * sum(n * n for n in range(1, half + 1))))
