"""Perceptual signatures: 72 bytes that change little when a picture or a sound is re-encoded, resized or made louder.

The first 8 are a hash, which finds candidates by Hamming distance; the other 64 are a sketch of 8 × 8 levels, whose
correlation decides.  `corpus/lookalike.py` searches with them.
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
"""Frequencies kept in each direction; cells of a sketch in each direction."""
HASH_RATE = 8000
BANDS = LOW + 1
SIGNATURE_BYTES = 8 + LOW * LOW


def image_signature(image: Image.Image) -> bytes:
    """pHash (the signs of the 8 × 8 lowest frequencies of a 32 × 32 shrunk luma against their median), 8 × 8 luma.

    After C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2.
    """
    import numpy as np
    from PIL import Image

    whole = Image.fromarray(grey(image))
    small = np.asarray(whole.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    basis = _cosines(SIDE, LOW + 1)
    frequencies = (basis @ small @ basis.T)[1:, 1:]
    sketch = small.reshape(LOW, SIDE // LOW, LOW, SIDE // LOW).mean(axis=(1, 3))
    return _signature(frequencies > np.median(frequencies), sketch)


def _signature(signs: NDArray[np.bool_], sketch: NDArray[np.float64]) -> bytes:
    """Hash, then the sketch stretched over 0 to 255."""
    import numpy as np

    low, high = float(sketch.min()), float(sketch.max())
    levels = np.rint((sketch - low) * (255.0 / (high - low))) if high - low > 1e-9 else np.zeros_like(sketch)
    return np.packbits(signs.ravel()).tobytes() + levels.astype(np.uint8).tobytes()


@cache
def _cosines(side: int, count: int) -> NDArray[np.float64]:
    """The first rows of the discrete cosine transform II."""
    import numpy as np

    places = (np.arange(side) + 0.5) * np.pi / side
    return np.cos(np.arange(count)[:, None] * places[None, :])


def sound_signature(sound: Sound) -> bytes:
    """Loudness of 8 mel bands in 8 stretches of time; signs of how it falls from band to band more than on average.

    Silence before and after does not count, nor does loudness: the spirit of Haitsma and Kalker, A Highly Robust
    Audio Fingerprinting System (2002), for whole clips.
    """
    import numpy as np

    energies_TF = _spectrum(resampled(mono(sound), HASH_RATE).mono_T)
    loud = energies_TF.sum(axis=1)
    heard = np.flatnonzero(loud > loud.max(initial=0.0) * 1e-3)
    if not len(heard):
        return bytes(SIGNATURE_BYTES)
    energies_TF = energies_TF[heard[0] : heard[-1] + 1]
    edges = np.linspace(0, len(energies_TF), LOW + 1)
    bands_TB = energies_TF @ _mel_bands(energies_TF.shape[1]).T
    sums = np.vstack([np.zeros(BANDS), np.cumsum(bands_TB, axis=0)])
    at = np.stack([np.interp(edges, np.arange(len(sums)), sums[:, band]) for band in range(BANDS)], axis=1)
    cells = np.log(np.maximum(np.diff(at, axis=0), 0.0) + loud.max() * 1e-4)
    falls = cells[:, :-1] - cells[:, 1:]
    return _signature(falls > falls.mean(axis=0), cells[:, :LOW])


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
