"""All sounds in one form: one rate, one channel, one format, one loudness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Column
from wuxing.corpus.clean.media_cleaner import Look, MediaCleaner
from wuxing.corpus.clean.media_config import StandardiseAudioConfig

if TYPE_CHECKING:
    from wuxing.media.audio import Format, Sound

LOUDNESS_TOLERANCE_DB = 0.1


class AudioForm(MediaCleaner):
    """Re-encodes what is not in the asked form."""

    column: ClassVar[Column] = "audio"

    def __init__(self, settings: StandardiseAudioConfig):
        super().__init__()
        self.settings = settings

    def look(self, data: bytes) -> Look:
        """New bytes, where the old ones are in another form."""
        from wuxing.media.audio import decode, encode
        from wuxing.media.error import MediaError

        written = {b"RIFF": "wav", b"fLaC": "flac"}.get(data[:4])
        format: Format = "wav" if written == "wav" else "flac"
        if self.settings.format != "keep":
            format = self.settings.format
        try:
            sound = decode(data)
            formed, faults = self._formed(sound)
            if self.settings.format != "keep" and written != format:
                faults.append("format")
            for fault in faults:
                self.found[fault] += 1
            notes = {"seconds": round(formed.seconds, 4), "rate": formed.rate} if faults else {}
            return Look(data=encode(formed, format) if faults else None, notes=notes)
        except MediaError as error:
            return Look(Drop("broken_audio", error.what))

    def _formed(self, sound: Sound) -> tuple[Sound, list[str]]:
        """The sound as asked, and what was not so before, in words for the card."""
        from wuxing.media.audio import mono, resampled

        faults = []
        if self.settings.mono and len(sound.samples_CT) > 1:
            sound = mono(sound)
            faults.append("channels")
        if self.settings.rate is not None and sound.rate != self.settings.rate:
            sound = resampled(sound, self.settings.rate)
            faults.append("rate")
        if self.settings.loudness_dbfs is not None:
            louder = at_loudness(sound, self.settings.loudness_dbfs)
            if louder is not None:
                sound = louder
                faults.append("loudness")
        return sound, faults


def at_loudness(sound: Sound, dbfs: float) -> Sound | None:
    """The sound with this root mean square, or as near to it as full scale allows; None when it has it, or none."""
    import numpy as np

    from wuxing.media.audio import Sound

    level = float(np.sqrt(np.mean(np.square(sound.samples_CT, dtype=np.float64))))
    if level <= 0:
        return None
    gain = min(10 ** (dbfs / 20) / level, 32767 / 32768 / float(np.abs(sound.samples_CT).max()))
    if abs(20 * np.log10(gain)) <= LOUDNESS_TOLERANCE_DB:
        return None
    return Sound((sound.samples_CT * np.float32(gain)).astype(np.float32), sound.rate)


def build(settings: StandardiseAudioConfig, context: Context, fitted: Path | None = None) -> AudioForm:
    """The step."""
    return AudioForm(settings)
