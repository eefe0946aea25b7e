"""A stretch of a longer sound: NeMo's manifests name one file in many rows, each with its offset and duration."""

from __future__ import annotations

import io
from typing import Any

from wuxing.core.record import Drop


def cut_sound(data: bytes, offset: Any, duration: Any) -> bytes | Drop:
    """The stretch as FLAC of 16 bits; the whole file where it is the stretch; a reason where it lies outside."""
    import soundfile

    try:
        start, seconds = float(offset), float(duration)
    except (TypeError, ValueError):
        return Drop("broken_offset", f"offset {str(offset)[:40]}, duration {str(duration)[:40]}")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            first, stop = round(start * file.samplerate), round((start + seconds) * file.samplerate)
            if first <= 0 and stop >= file.frames:
                return data
            if not 0 <= first < stop <= file.frames + file.samplerate // 100:
                return Drop("broken_offset", f"{start} s to {start + seconds} s of {file.frames / file.samplerate} s")
            file.seek(first)
            samples_TC = file.read(stop - first, dtype="int16", always_2d=True)
            written = io.BytesIO()
            soundfile.write(written, samples_TC, file.samplerate, format="FLAC", subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        return Drop("broken_audio", str(error.error_string))
    except (RuntimeError, ValueError, OverflowError) as error:
        return Drop("broken_audio", type(error).__name__)
    return written.getvalue()
