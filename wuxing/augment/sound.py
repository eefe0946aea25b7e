"""Operations on sounds: each is a pure function of the samples, its settings and a source of random numbers.

Legend: C channels, T samples, L lines of a spectrogram, F its frames.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from wuxing.augment.config import AudioOperation, FrequencyMask, Noise, Speed, TimeMask, TimeShift
from wuxing.media.audio import Sound, resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

Numbers = dict[str, Any]
DIGITS = 4
LARGEST_SHARE = 3
"""A mask hides at most a third."""


def change(samples_CT: Samples, rate: int, operation: AudioOperation, random: Random) -> tuple[Samples, Numbers]:
    """The changed samples, and the numbers that were drawn; the samples themselves and no numbers where it cannot."""
    if not samples_CT.size:
        return samples_CT, {}
    match operation:
        case TimeShift():
            seconds = round(random.uniform(-operation.max_seconds, operation.max_seconds), DIGITS)
            return shift(samples_CT, round(seconds * rate), operation.wrap), {"seconds": seconds}
        case Noise():
            return noise(samples_CT, operation, random)
        case TimeMask():
            return time_mask(samples_CT, rate, operation, random)
        case FrequencyMask():
            return frequency_mask(samples_CT, rate, operation, random)
        case Speed():
            return speed(samples_CT, rate, operation, random)
    raise AssertionError(f"no audio operation {operation}")


def shift(samples_CT: Samples, by: int, wrap: bool) -> Samples:
    """Move by so many samples, to later ones when positive."""
    moved = np.roll(samples_CT, by, axis=1)
    if not wrap and by:
        gap = slice(0, by) if by > 0 else slice(by, None)
        moved[:, gap] = 0
    return moved


def noise(samples_CT: Samples, operation: Noise, random: Random) -> tuple[Samples, Numbers]:
    """Add noise of the drawn ratio; what would clip is made quieter as a whole."""
    snr_db = round(random.uniform(operation.min_snr_db, operation.max_snr_db), DIGITS)
    drawn = np.random.Generator(np.random.PCG64(random.getrandbits(128))).standard_normal(samples_CT.shape)
    power = float(np.square(samples_CT, dtype=np.float64).mean())
    if not power:
        return samples_CT, {}
    if operation.colour == "pink":
        drawn = _pink(drawn)
    drawn *= np.sqrt(power / 10 ** (snr_db / 10) / np.square(drawn).mean())
    noisy = samples_CT + drawn
    peak = float(np.abs(noisy).max())
    numbers: Numbers = {"snr_db": snr_db}
    if peak > 1:
        noisy, numbers["gain"] = noisy / peak, round(1 / peak, DIGITS)
    return noisy.astype(np.float32), numbers


def _pink(white_CT: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power that falls as 1/f, without a constant part."""
    spectrum = np.fft.rfft(white_CT, axis=1)
    weights = np.zeros(spectrum.shape[1])
    weights[1:] = 1 / np.sqrt(np.arange(1, spectrum.shape[1]))
    shaped = np.fft.irfft(spectrum * weights, white_CT.shape[1], axis=1)
    return shaped if np.square(shaped).mean() > 0 else white_CT


def time_mask(samples_CT: Samples, rate: int, operation: TimeMask, random: Random) -> tuple[Samples, Numbers]:
    """Silence drawn stretches."""
    total = samples_CT.shape[1]
    most = min(round(operation.max_seconds * rate), total // LARGEST_SHARE)
    masked, hidden = samples_CT.copy(), []
    for _ in range(operation.masks):
        start, stop = stretch(total, most, random)
        masked[:, start:stop] = 0
        hidden.append([round(start / rate, DIGITS), round(stop / rate, DIGITS)])
    return masked, {"seconds": hidden}


def frequency_mask(samples_CT: Samples, rate: int, operation: FrequencyMask, random: Random) -> tuple[Samples, Numbers]:
    """Take drawn bands out of the whole sound's spectrum."""
    spectrum = np.fft.rfft(samples_CT.astype(np.float64), axis=1)
    lines = spectrum.shape[1]
    width = rate / samples_CT.shape[1]
    most = min(max(1, round(operation.max_hz / width)), lines // LARGEST_SHARE)
    hidden = []
    for _ in range(operation.masks):
        start, stop = stretch(lines, most, random)
        spectrum[:, start:stop] = 0
        hidden.append([round(start * width, 1), round(stop * width, 1)])
    masked = np.fft.irfft(spectrum, samples_CT.shape[1], axis=1)
    return masked.astype(np.float32), {"hertz": hidden}


def stretch(total: int, most: int, random: Random) -> tuple[int, int]:
    """A stretch of 1 to `most` places (none when `most` is 0) somewhere in `total`."""
    length = random.randint(min(1, most), most)
    start = random.randint(0, total - length)
    return start, start + length


def speed(samples_CT: Samples, rate: int, operation: Speed, random: Random) -> tuple[Samples, Numbers]:
    """As if recorded at another rate: shorter and higher, or longer and lower."""
    factor = round(random.uniform(operation.min_factor, operation.max_factor), DIGITS)
    played = round(rate * factor)
    if played == rate:
        return samples_CT, {"factor": 1.0}
    changed = resampled(Sound(samples_CT, played), rate).samples_CT
    return np.clip(changed, -1, 1), {"factor": factor}


def mask_spectrogram(
    lines_LF: NDArray[np.floating[Any]],
    random: Random,
    bands: int,
    frames: int,
    masks: int = 1,
    value: float | None = None,
) -> NDArray[np.floating[Any]]:
    """SpecAugment on features (Park et al. 2019): hide up to `bands` neighbouring lines and up to `frames` neighbouring
    frames, `masks` times each, with the mean or `value`."""
    filled = float(lines_LF.mean()) if value is None else value
    masked = lines_LF.copy()
    for _ in range(masks):
        for axis, most in ((0, bands), (1, frames)):
            start, stop = stretch(lines_LF.shape[axis], min(most, lines_LF.shape[axis]), random)
            masked[(slice(start, stop), slice(None)) if axis == 0 else (slice(None), slice(start, stop))] = filled
    return masked
