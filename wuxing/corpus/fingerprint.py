"""What two records must share to count as the same content, and the split that follows from it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from wuxing.core.record import Record

if TYPE_CHECKING:
    from wuxing.corpus.config import SplitConfig

KEY_BYTES = 16


def plain(text: str) -> str:
    """The text without the differences that make no other content: case and space."""
    return " ".join(text.casefold().split())


def content_key(record: Record) -> bytes:
    """128 bits of the record's content: the same for equal documents or dialogues, wherever they come from."""
    if record.messages is not None:
        parts = [f"{message['role']}\x1f{plain(message['content'])}" for message in record.messages]
        return _digest("\x1e".join(parts), b"dialogue")
    assert record.text is not None
    return _digest(plain(record.text), b"document")


def split_key(record: Record) -> bytes:
    """128 bits that decide the split.

    For a dialogue, those of its first question, so that two answers to one question never meet across a split.
    """
    if record.messages is None:
        return content_key(record)
    question = next((m for m in record.messages if m["role"] == "user"), record.messages[0])
    return _digest(plain(question["content"]), b"question")


def _digest(text: str, kind: bytes) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", errors="surrogatepass"), digest_size=KEY_BYTES, person=kind).digest()


def split_of(key: bytes, split: SplitConfig) -> str:
    """`train`, `validation` or `test`, by the key's place in [0, 1): the same for the same content, always."""
    place = int.from_bytes(key[:8], "big") / 2**64
    if place < split.test:
        return "test"
    return "validation" if place < split.test + split.validation else "train"
