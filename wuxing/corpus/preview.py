"""Pictures and sounds made small enough to look at: thumbnails, outlines of sounds, what kind of file the bytes are."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

from wuxing.media.error import MediaError

THUMB_PIXELS = 84
"""The longer side; smaller pictures are enlarged by whole factors."""
WAVE_STEPS = 160
INLINE_AUDIO_BYTES = 48_000
"""Longer sounds are drawn, not written into a page."""
PREVIEW_SECONDS = 120.0
"""Longer sounds are only named: their samples would fill the memory."""
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"BM", 0, "image/bmp"),
    (b"WAVE", 8, "audio/wav"),
    (b"fLaC", 0, "audio/flac"),
    (b"OggS", 0, "audio/ogg"),
    (b"ID3", 0, "audio/mpeg"),
    (b"\xff\xfb", 0, "audio/mpeg"),
    (b"\xff\xf3", 0, "audio/mpeg"),
    (b"\xff\xf2", 0, "audio/mpeg"),
)


def kind_of(data: bytes) -> str:
    """The media type of an encoded file by its first bytes, of those that a browser may be given; else octets.

    SVG is not among them: it is a program.
    """
    return next((kind for magic, at, kind in _KINDS if data[at : at + len(magic)] == magic), "application/octet-stream")


@dataclass(frozen=True)
class Picture:
    """A small version of a picture, and the size of the whole one."""

    uri: str
    width: int
    height: int


def picture(data: bytes) -> Picture | None:
    """A thumbnail as a data URI; None when the bytes cannot be shown."""
    from PIL import Image

    from wuxing.media.image import decode, in_mode

    try:
        image = decode(data)
    except MediaError:
        return None
    width, height = image.size
    small = image if image.mode in ("L", "RGB") else in_mode(image, "RGB")
    factor = THUMB_PIXELS // max(width, height)
    if factor >= 2:
        small = small.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    else:
        small.thumbnail((THUMB_PIXELS, THUMB_PIXELS))
    out = io.BytesIO()
    if factor >= 2:
        small.save(out, "PNG", optimize=False)
    else:
        small.save(out, "JPEG", quality=72)
    return Picture(data_uri(out.getvalue()), width, height)


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header alone; None when it is no picture."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


@dataclass(frozen=True)
class Outline:
    """A sound at a glance."""

    seconds: float
    rate: int
    peaks: list[tuple[float, float]]
    uri: str
    """The whole sound as a data URI when it is short, else empty."""


def outline(data: bytes) -> Outline | None:
    """The lowest and highest sample of each stretch; None when the bytes cannot be heard."""
    import numpy as np

    from wuxing.media.audio import decode

    try:
        sound = decode(data, max_seconds=PREVIEW_SECONDS)
    except MediaError:
        return None
    samples = sound.samples_CT.mean(axis=0)
    parts = np.array_split(samples, min(WAVE_STEPS, len(samples)))
    peaks = [(round(float(part.min()), 3), round(float(part.max()), 3)) for part in parts if len(part)]
    short = len(data) <= INLINE_AUDIO_BYTES and kind_of(data).startswith("audio/")
    return Outline(samples.shape[0] / sound.rate, sound.rate, peaks, data_uri(data) if short else "")


def seconds_of(data: bytes) -> float | None:
    """The length of a sound from its header; None when it is none."""
    import soundfile

    try:
        info: Any = soundfile.info(io.BytesIO(data))
    except (soundfile.LibsndfileError, RuntimeError, OSError, ValueError):
        return None
    return float(info.duration)


def data_uri(data: bytes) -> str:
    """The bytes as an address that holds them."""
    return f"data:{kind_of(data)};base64,{base64.b64encode(data).decode()}"
