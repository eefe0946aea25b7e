"""What two records must share to count as the same content, and the split that follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wuxing.core.record import Record
from wuxing.text.key import KEY_BYTES, key_of, plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wuxing.corpus.config import SplitConfig

__all__ = ["KEY_BYTES", "content_key", "plain", "split_key", "split_of", "splits_of"]


def content_key(record: Record) -> bytes:
    """128 bits of the record's content: the same for equal records, wherever they come from.

    Texts are equal but for case and space; a preference with its replies and judgement; images have the same pixels
    and sounds the same samples.
    """
    if record.messages is not None:
        parts = [f"{message['role']}\x1f{plain(message['content'])}" for message in record.messages]
        for name, reply in (("chosen", record.chosen), ("rejected", record.rejected)):
            if reply is not None:
                parts.append(f"{name}\x1f{plain(reply)}")
        if record.liked is not None:
            parts.append(f"liked\x1f{record.liked}")
        return key_of("\x1e".join(parts), b"dialogue")
    if record.text is not None:
        return key_of(plain(record.text), b"document")
    return media_key(record.image or b"", b"image") if record.audio is None else media_key(record.audio, b"audio")


def media_key(content: bytes, kind: bytes) -> bytes:
    """128 bits of an image's pixels or a sound's samples, however they are encoded; of the bytes where none decode."""
    import hashlib

    from wuxing.media.audio import decode as sound
    from wuxing.media.audio import samples_key
    from wuxing.media.error import MediaError
    from wuxing.media.image import decode as picture
    from wuxing.media.image import pixels_key

    try:
        return pixels_key(picture(content)) if kind == b"image" else samples_key(sound(content))
    except MediaError:
        pass  # a cleaning step says so, where the recipe has one
    return hashlib.blake2b(content, digest_size=KEY_BYTES, person=kind).digest()


def split_key(record: Record) -> bytes:
    """128 bits that decide the split.

    For a dialogue, those of its first question, so that two answers to one question never meet across a split.
    """
    if record.messages is None:
        return content_key(record)
    question = next((m for m in record.messages if m["role"] == "user"), record.messages[0])
    return key_of(plain(question["content"]), b"question")


def split_of(key: bytes, split: SplitConfig) -> str:
    """`train`, `validation` or `test`, by the key's place in [0, 1): the same for the same content, always."""
    place = int.from_bytes(key[:8], "big") / 2**64
    if place < split.test:
        return "test"
    return "validation" if place < split.test + split.validation else "train"


def splits_of(keys: NDArray[np.uint8], split: SplitConfig) -> NDArray[np.int8]:
    """`split_of` for each row of 16 bytes, as the number of the split in `SPLITS`."""
    import numpy as np

    places = np.ascontiguousarray(keys[:, :8]).view(">u8").ravel().astype(np.float64) / 2**64
    held_out = np.where(places < split.test, np.int8(2), np.int8(1))
    return np.where(places < split.test + split.validation, held_out, np.int8(0)).astype(np.int8)
