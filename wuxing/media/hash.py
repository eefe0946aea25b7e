"""Perceptual hashes: 64 bits that change little when a picture or a sound is re-encoded, resized or made louder.

Two of them are compared by their Hamming distance.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from wuxing.media.audio import Sound, mono, resampled
from wuxing.media.image import grey

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

SIDE = 32
"""Pixels to which a picture is shrunk before its transform."""
LOW = 8
"""Frequencies kept in each direction."""
HASH_RATE = 8000
BANDS = 9
CELLS = 8


def image_hash(image: Image.Image) -> int:
    """pHash: the signs of the 8 × 8 lowest frequencies of a 32 × 32 shrunk luma against their median.

    After C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2.
    """
    import numpy as np
    from PIL import Image

    small = Image.fromarray(grey(image)).resize((SIDE, SIDE), Image.Resampling.BOX)
    basis = _cosines(SIDE, LOW + 1)
    frequencies = (basis @ np.asarray(small, dtype=np.float64) @ basis.T)[1:, 1:]
    return _bits((frequencies > np.median(frequencies)).ravel())


@cache
def _cosines(side: int, count: int) -> NDArray[np.float64]:
    """The first rows of the discrete cosine transform II."""
    import numpy as np

    places = (np.arange(side) + 0.5) * np.pi / side
    return np.cos(np.arange(count)[:, None] * places[None, :])


def _bits(signs: NDArray[np.bool_]) -> int:
    import numpy as np

    return int(np.packbits(signs).view(">u8")[0])


def sound_hash(sound: Sound) -> int:
    """Signs of how the loudness of 9 mel bands falls from band to band more than on average, in 8 stretches of time.

    Silence before and after does not count, nor does loudness: the spirit of Haitsma and Kalker, A Highly Robust
    Audio Fingerprinting System (2002), for whole clips.
    """
    import numpy as np

    energies_TF = _spectrum(resampled(mono(sound), HASH_RATE).mono_T)
    loud = energies_TF.sum(axis=1)
    heard = np.flatnonzero(loud > loud.max(initial=0.0) * 1e-3)
    if not len(heard):
        return 0
    energies_TF = energies_TF[heard[0] : heard[-1] + 1]
    edges = np.linspace(0, len(energies_TF), CELLS + 1)
    bands_TB = energies_TF @ _mel_bands(energies_TF.shape[1]).T
    sums = np.vstack([np.zeros(BANDS), np.cumsum(bands_TB, axis=0)])
    at = np.stack([np.interp(edges, np.arange(len(sums)), sums[:, band]) for band in range(BANDS)], axis=1)
    cells = np.log(np.diff(at, axis=0) + loud.max() * 1e-6)
    falls = cells[:, :-1] - cells[:, 1:]
    return _bits((falls > falls.mean(axis=0)).ravel())


def _spectrum(samples_T: NDArray[np.float32]) -> NDArray[np.float64]:
    """Power of frames of 32 ms every 8 ms."""
    import numpy as np

    size, hop = 256, 64
    padded = np.pad(samples_T.astype(np.float64), (size // 2, size // 2 + size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][: 1 + len(samples_T) // hop]
    power: NDArray[np.float64] = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
    return power


@cache
def _mel_bands(bins: int) -> NDArray[np.float64]:
    """Triangles between 100 and 3,600 Hz, evenly spaced on the mel scale (2595 lg(1 + f / 700))."""
    import numpy as np

    low, high = (2595 * np.log10(1 + f / 700) for f in (100.0, 3600.0))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    places = np.linspace(0, HASH_RATE / 2, bins)
    rising = (places[None, :] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - places[None, :]) / (edges[2:] - edges[1:-1])[:, None]
    triangles: NDArray[np.float64] = np.clip(np.minimum(rising, falling), 0.0, None)
    return triangles
