"""All pictures in one form: upright, one format, one mode, no metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Column
from wuxing.corpus.clean.media_cleaner import Look, MediaCleaner
from wuxing.corpus.clean.media_config import StandardiseImageConfig

if TYPE_CHECKING:
    from PIL import Image

    from wuxing.media.image import Format

_STARTS: tuple[tuple[bytes, Format], ...] = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"RIFF", "webp"))
_METADATA = {
    "png": (b"eXIf", b"tEXt", b"iTXt", b"zTXt", b"tIME"),
    "jpeg": (b"\xff\xe1", b"\xff\xed", b"\xff\xfe"),
    "webp": (b"EXIF", b"XMP "),
}


class ImageForm(MediaCleaner):
    """Re-encodes what is not in the asked form."""

    column: ClassVar[Column] = "image"

    def __init__(self, settings: StandardiseImageConfig):
        super().__init__()
        self.settings = settings

    def look(self, data: bytes) -> Look:
        """New bytes, where the old ones are in another form."""
        from wuxing.media.error import MediaError
        from wuxing.media.image import decode, encode

        written = next((name for start, name in _STARTS if data.startswith(start)), None)
        asked = self.settings
        format: Format = (written or "png") if asked.format == "keep" else asked.format
        try:
            image = decode(data)
            formed = self._formed(image)
            faults = self._faults(data, image, formed, written, format)
            for fault in faults:
                self.found[fault] += 1
            return Look(data=encode(formed, format, asked.quality)) if faults else Look()
        except MediaError as error:
            return Look(Drop("broken_image", error.what))

    def _formed(self, image: Image.Image) -> Image.Image:
        from wuxing.media.image import in_mode, within

        if self.settings.mode != "keep":
            image = in_mode(image, self.settings.mode)
        return image if self.settings.max_side_pixels is None else within(image, self.settings.max_side_pixels)

    def _faults(
        self, data: bytes, image: Image.Image, formed: Image.Image, written: str | None, format: str
    ) -> list[str]:
        """What is not as asked, in words for the card."""
        faults = []
        if written != format:
            faults.append("format")
        if formed.mode != image.mode:
            faults.append("mode")
        if formed.size != image.size:
            faults.append("size")
        if has_metadata(data, written):
            faults.append("metadata")
        return faults


def has_metadata(data: bytes, written: str | None) -> bool:
    """Whether a file holds more than what is needed to show it: EXIF, XMP, comments."""
    if written == "png":
        return any(kind in _METADATA["png"] for kind in _png_chunks(data))
    if written == "jpeg":
        return any(marker in _METADATA["jpeg"] for marker in _jpeg_markers(data))
    return written == "webp" and any(kind in _METADATA["webp"] for kind in _riff_chunks(data))


def _png_chunks(data: bytes) -> list[bytes]:
    """The types of a PNG's chunks (PNG specification, section 5)."""
    place, found = 8, []
    while place + 8 <= len(data):
        found.append(data[place + 4 : place + 8])
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return found


def _jpeg_markers(data: bytes) -> list[bytes]:
    """The markers before a JPEG's first scan (ITU T.81, annex B); its own JFIF header is none of them."""
    place, found = 2, []
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        found.append(data[place : place + 2])
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return found


def _riff_chunks(data: bytes) -> list[bytes]:
    place, found = 12, []
    while place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        found.append(data[place : place + 4])
        place += 8 + size + size % 2
    return found


def build(settings: StandardiseImageConfig, context: Context, fitted: Path | None = None) -> ImageForm:
    """The step."""
    return ImageForm(settings)
