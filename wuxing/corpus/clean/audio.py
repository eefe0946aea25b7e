"""Sounds that decode, are long and loud enough, and are not clipped.  Shape letters: C channels, T time, F frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Column
from wuxing.corpus.clean.media_cleaner import Look, MediaCleaner
from wuxing.corpus.clean.media_config import AudioConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRAME_SECONDS = 0.02
FLAT_TOP_SAMPLES = 3
QUIETEST_CLIP = 0.1
"""A peak below a tenth of full scale is not looked at: of a few levels, neighbours are often equal."""


class AudioCheck(MediaCleaner):
    """Decodes, measures, drops."""

    column: ClassVar[Column] = "audio"

    def __init__(self, settings: AudioConfig):
        super().__init__()
        self.settings = settings

    def look(self, data: bytes) -> Look:
        """Length, rate, loudness, silence, clipping."""
        import numpy as np

        from wuxing.media.audio import decibels, decode
        from wuxing.media.error import MediaError

        try:
            sound = decode(data, max_seconds=self.settings.max_seconds)
        except MediaError as error:
            return Look(Drop("too_long" if "longer than" in str(error) else "broken_audio", error.what))
        mono_T = sound.mono_T
        measures = {
            "seconds": sound.seconds,
            "rate": float(sound.rate),
            "channels": float(len(sound.samples_CT)),
            "loudness_dbfs": decibels(float(np.sqrt(np.mean(np.square(mono_T, dtype=np.float64))))),
            "peak_dbfs": decibels(float(np.abs(sound.samples_CT).max())),
            "silence_share": silence_share(mono_T, sound.rate, self.settings.silence_dbfs),
            "clipped_share": clipped_share(sound.samples_CT),
            "bytes": float(len(data)),
        }
        notes = {"seconds": round(sound.seconds, 4), "rate": sound.rate}
        return Look(self._fault(measures), measures=measures, notes=notes)

    def _fault(self, seen: dict[str, float]) -> Drop | None:
        asked = self.settings
        if seen["seconds"] < asked.min_seconds:
            return Drop("too_short", f"{seen['seconds']:.3f} s")
        if seen["seconds"] > asked.max_seconds:
            return Drop("too_long", f"{seen['seconds']:.1f} s")
        if seen["rate"] < asked.min_rate:
            return Drop("low_rate", f"{seen['rate']:.0f} Hz")
        if seen["loudness_dbfs"] < asked.min_loudness_dbfs:
            return Drop("silent", f"{seen['loudness_dbfs']:.1f} dBFS")
        if seen["silence_share"] > asked.max_silence_share:
            return Drop("mostly_silent", f"{seen['silence_share']:.1%} below {asked.silence_dbfs:g} dBFS")
        if seen["clipped_share"] > asked.max_clipped_share:
            return Drop("clipped", f"{seen['clipped_share']:.2%} of the samples stand in flat tops")
        return None


def levels_dbfs(samples_T: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Root mean square of each frame of 20 ms, the last one shorter, in dB below full scale."""
    import numpy as np

    frame = max(1, round(rate * FRAME_SECONDS))
    starts = np.arange(0, len(samples_T), frame)
    sums = np.add.reduceat(np.square(samples_T, dtype=np.float64), starts)
    sizes = np.diff(np.append(starts, len(samples_T)))
    return 10 * np.log10(np.maximum(sums / sizes, 1e-12))


def silence_share(samples_T: NDArray[np.float32], rate: int, below_dbfs: float) -> float:
    """Share of frames below a level."""
    return float((levels_dbfs(samples_T, rate) < below_dbfs).mean())


def clipped_share(samples_CT: NDArray[np.float32]) -> float:
    """Share of samples that stand in runs of three or more at the highest or the lowest level of their channel.

    The level is the sound's own extreme, not full scale: a sound that was clipped and then made quieter is found too.
    A tolerance of 1.5 levels of 16 bits allows for dither.
    """
    import numpy as np

    if not samples_CT.shape[1]:
        return 0.0
    clipped = 0
    for samples_T in samples_CT:
        for tops_T in (samples_T, -samples_T):
            peak = float(tops_T.max())
            if peak >= QUIETEST_CLIP:
                at = np.flatnonzero(np.diff(np.concatenate([[False], tops_T >= peak - 1.5 / 32768, [False]])))
                runs = at[1::2] - at[::2]
                clipped += int(runs[runs >= FLAT_TOP_SAMPLES].sum())
    return clipped / samples_CT.size


def build(settings: AudioConfig, context: Context, fitted: Path | None = None) -> AudioCheck:
    """The step."""
    return AudioCheck(settings)
