"""Sounds: from the bytes of an encoded file to samples, and back.  Shape letters: C channels, T time."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from wuxing.media.error import MediaError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SECONDS = 4 * 3600.0
"""Longer sounds are not unpacked: a FLAC of digital silence holds hours in a few bytes."""
MAX_CHANNELS = 64
MAX_SAMPLES = 256 << 20
"""Samples of all channels together: 1 GiB as float32."""
Format = Literal["wav", "flac", "ogg", "mp3"]
_FORMATS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "mp3": ("MP3", None)}


@dataclass(frozen=True)
class Sound:
    """Samples from -1 to 1, channels × time, and how many there are per second."""

    samples_CT: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return float(self.samples_CT.shape[1] / self.rate)

    @cached_property
    def mono_T(self) -> NDArray[np.float32]:
        """The mean of the channels."""
        one = self.samples_CT[0] if len(self.samples_CT) == 1 else self.samples_CT.mean(axis=0)
        return one


def decode(data: bytes, rate: int | None = None, max_seconds: float = MAX_SECONDS) -> Sound:
    """The sound, brought to `rate` samples per second when given.

    WAV, FLAC, OGG (Vorbis, Opus), MP3, AIFF and what else libsndfile reads.  MediaError when it is broken, holds fewer
    samples than its header promises (cut short), values that are no number, or more than `max_seconds`.
    """
    import numpy as np
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            found, promised, channels = file.samplerate, file.frames, file.channels
            if not 1 <= channels <= MAX_CHANNELS or not 1 <= found <= 10_000_000:
                raise MediaError(f"the sound cannot be decoded: {channels} channels at {found} Hz")
            bound = min(int(max_seconds * found) + 1, MAX_SAMPLES // channels)
            samples_TC = file.read(min(promised, bound) if promised > 0 else bound, dtype="float32", always_2d=True)
    except MediaError:
        raise
    except soundfile.LibsndfileError as error:
        raise MediaError(f"the sound cannot be decoded: {error.error_string}") from error
    except (RuntimeError, OSError, ValueError, TypeError, MemoryError) as error:
        raise MediaError(f"the sound cannot be decoded: {' '.join(str(error).split())}") from error
    if len(samples_TC) >= bound:
        raise MediaError(f"the sound is longer than {min(max_seconds, bound / found):.0f} s")
    if not len(samples_TC):
        raise MediaError("the sound holds no sample")
    if missing := _missing(data, len(samples_TC), promised):
        raise MediaError(missing)
    if not np.isfinite(samples_TC).all():
        raise MediaError("the sound holds values that are no number")
    samples_CT = np.ascontiguousarray(samples_TC.T)
    return resampled(Sound(samples_CT, found), rate) if rate is not None else Sound(samples_CT, found)


def _missing(data: bytes, read: int, promised: int) -> str | None:
    """Why a file ends too soon.  libsndfile believes the bytes there are, so a WAV's own header is asked as well."""
    if read < promised:
        return f"the sound is cut short: {read} of {promised} samples"
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        place = 12
        while place + 8 <= len(data):
            size = int.from_bytes(data[place + 4 : place + 8], "little")
            if data[place : place + 4] == b"data":
                there = len(data) - place - 8
                unknown = size in (0, 0xFFFFFFFF, 0x7FFFFFFF)  # a stream's header is written before its end is known
                return None if unknown or size <= there else f"the sound is cut short: {there} of {size} bytes"
            place += 8 + size + size % 2
    if data[:4] == b"OggS" and not _ogg_ends(data):
        return "the sound is cut short: its last page is missing"
    return None


def _ogg_ends(data: bytes) -> bool:
    """Whether the last Ogg page is whole and marked as the last (RFC 3533, section 6)."""
    place = data.rfind(b"OggS")
    if place + 27 > len(data):
        return False
    lengths = data[place + 27 : place + 27 + data[place + 26]]
    whole = place + 27 + data[place + 26] + sum(lengths) <= len(data)
    return whole and bool(data[place + 5] & 4)


def resampled(sound: Sound, rate: int) -> Sound:
    """The sound at another rate (soxr, high quality)."""
    if rate == sound.rate:
        return sound
    import numpy as np
    import soxr

    samples_TC = soxr.resample(np.ascontiguousarray(sound.samples_CT.T), sound.rate, rate)
    return Sound(np.ascontiguousarray(samples_TC.T, dtype=np.float32), rate)


def mono(sound: Sound) -> Sound:
    """The mean of the channels as one channel."""
    return sound if len(sound.samples_CT) == 1 else Sound(sound.mono_T[None, :], sound.rate)


def encode(sound: Sound, format: Format = "wav") -> bytes:
    """A file of 16 bits a sample (WAV, FLAC), Vorbis or MP3.  WAV and FLAC of equal sounds are equal bytes."""
    import numpy as np
    import soundfile

    written = io.BytesIO()
    kind, subtype = _FORMATS[format]
    levels_CT = np.clip(sound.samples_CT, -1.0, 32767 / 32768)
    if format in ("wav", "flac"):
        soundfile.write(written, as_int16(sound).T, sound.rate, format=kind, subtype=subtype)
    else:
        soundfile.write(written, levels_CT.T, sound.rate, format=kind, subtype=subtype)
    return written.getvalue()


def as_int16(sound: Sound) -> NDArray[np.int16]:
    """The samples on 65,536 levels; what came from 16-bit files comes back exactly."""
    import numpy as np

    return np.clip(np.rint(sound.samples_CT * 32768.0), -32768, 32767).astype(np.int16)


def samples_key(sound: Sound) -> bytes:
    """128 bits of what is heard: the same for every lossless file of the same 16-bit samples, any metadata."""
    import hashlib

    state = hashlib.blake2b(digest_size=16, person=b"audio")
    state.update(f"{len(sound.samples_CT)}x{sound.rate}".encode())
    state.update(as_int16(sound).tobytes())
    return state.digest()


def decibels(ratio: float) -> float:
    """A ratio of amplitudes in dB; -120 for silence."""
    return max(-120.0, 20.0 * math.log10(ratio)) if ratio > 0 else -120.0
