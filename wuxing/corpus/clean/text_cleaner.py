"""A cleaner that maps text to text, in documents and in each turn of dialogues."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import ClassVar

from wuxing.core.record import Drop, Record


class TextCleaner:
    """Subclasses give `change`.  A document or turn of which nothing is left drops its record (`empty`)."""

    dialogues: ClassVar[bool] = True

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def change(self, text: str) -> str:
        """The cleaned text."""
        raise NotImplementedError

    def clean(self, record: Record) -> Record | Drop:
        """The record with every text of it changed."""
        if record.messages is not None:
            contents = [self.change(message["content"]) for message in record.messages]
            if not all(contents):
                return Drop("empty", f"turn {contents.index('')} is empty after cleaning")
            if all(new == old["content"] for new, old in zip(contents, record.messages, strict=True)):
                return record
            turns = zip(record.messages, contents, strict=True)
            return replace(record, messages=[{"role": m["role"], "content": content} for m, content in turns])
        assert record.text is not None
        text = self.change(record.text)
        if not text:
            return Drop("empty", "nothing but space")
        return record if text == record.text else replace(record, text=text)
