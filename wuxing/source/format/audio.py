"""Sound files: one record each, as they are.  Decoding is a cleaning step's work (`corpus/clean/audio.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from wuxing.source.config import SourceConfig
from wuxing.source.format.image import whole
from wuxing.source.row import Value


def read_audio(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    yield 0, whole(stream, "audio")
