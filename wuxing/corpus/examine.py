"""What a look at records notes chunk by chunk: lengths, languages, duplicates, private data, what would be dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.record import Record
from wuxing.page.text import cut

if TYPE_CHECKING:
    from wuxing.corpus.clean.language import Language

EXAMPLE_CHARACTERS = 240
NEAR_JACCARD = 0.8
HASHES, SHINGLE_WORDS = 128, 5
DEFAULT_STEPS = ("quality", "repetition", "image", "audio")
"""Steps that judge single records by bounds of their own."""


class Examined:
    """Figures of all records so far, and the keys to compare them by."""

    def __init__(self, context: Context):
        from wuxing.corpus.clean import Cleaning
        from wuxing.corpus.clean.config import CleanStep
        from wuxing.corpus.clean.privacy import Privacy
        from wuxing.corpus.engine.histogram import Histogram

        self._steps = [CleanStep.model_validate(name) for name in DEFAULT_STEPS]
        self._cleaning = Cleaning(self._steps, context)
        self._privacy = Privacy()
        self._private: Counter[str] = Counter()
        self._language, self._notes = _language(context)
        self._languages: Counter[str] = Counter()
        self._lengths = Histogram()
        self._total = 0
        self._has_text = False
        self._measures: dict[tuple[int, str], Histogram] = {}
        self._drops: Counter[str] = Counter()
        self._examples: dict[str, dict[str, str]] = {}
        self._keys = bytearray()
        self._signatures: list[Any] = []
        self._documents = bytearray()

    def add(self, records: Sequence[Record]) -> None:
        """Look at some records; none of them is kept."""
        import numpy as np
        import pyarrow as pa

        from wuxing.corpus.fingerprint import content_key
        from wuxing.text.kernel import minhash

        texts = [" ".join(texts_of(record)) for record in records]
        media = [record.image or record.audio for record in records]
        sizes = [len(m) if m is not None else len(text) for m, text in zip(media, texts, strict=True)]
        self._lengths.add(np.array(sizes, np.float32))
        self._total += sum(sizes)
        self._has_text |= any(m is None for m in media)
        written = [text for m, text in zip(media, texts, strict=True) if m is None]
        self._languages.update(map(self._identify, written))
        self._keys += b"".join(map(content_key, records))
        documents = [record.text for record in records if record.text is not None]
        self._documents += bytes(record.text is not None for record in records)
        if documents:
            self._signatures.append(minhash(pa.array(documents, pa.large_string()), SHINGLE_WORDS, HASHES))
        self._judge(records)

    def _identify(self, text: str) -> str:
        from wuxing.corpus.residue import script_of

        return self._language.identify(text)[0] if self._language else script_of(text)

    def _judge(self, records: Sequence[Record]) -> None:
        """What the steps with their defaults say."""
        from wuxing.corpus.clean.column import Columns
        from wuxing.corpus.engine.histogram import Histogram

        columns = Columns.of(records)
        self._cleaning.run(columns)
        for key, values in columns.measures.items():
            self._measures.setdefault(key, Histogram()).add(values)
        before = Counter(self._privacy.found)
        redacted = self.redact(records)
        self._private += self._privacy.found - before
        for number, drop in sorted(columns.drops.items()):
            self._drops[drop.reason] += 1
            if drop.reason not in self._examples:
                record = redacted[number]
                text = cut("\n".join(texts_of(record)), EXAMPLE_CHARACTERS)
                self._examples[drop.reason] = {"id": record.id, "detail": drop.detail, "text": text}

    def redact(self, records: Sequence[Record]) -> list[Record]:
        """The records with private data replaced; those of which nothing else is left stay out of sight as well."""
        from dataclasses import replace

        from wuxing.corpus.clean import apply

        done = apply(self._privacy, records)
        return [r if isinstance(r, Record) else replace(old, text="") for r, old in zip(done, records, strict=True)]

    def found(self) -> dict[str, Any]:
        """The fields of an inspection that this answers."""
        lengths = self._lengths.to_json()
        return {
            "characters": self._characters(lengths) if self._has_text else {},
            "lengths": lengths if lengths["count"] else {},
            "measures": self._measured(),
            "languages": dict(self._languages.most_common(20)),
            "duplicates": self._duplicates(),
            "private": dict(sorted(self._private.items())),
            "would_drop": dict(self._drops.most_common()),
            "would_drop_examples": {reason: self._examples[reason] for reason, _ in self._drops.most_common()},
            "notes": self._notes,
        }

    def _characters(self, lengths: dict[str, Any]) -> dict[str, int]:
        if not lengths["count"]:
            return {}
        q = lengths["quantiles"]
        values = {"min": lengths["min"], "5 %": q["0.05"], "median": q["0.5"], "95 %": q["0.95"], "max": lengths["max"]}
        return {name: round(value) for name, value in values.items()} | {"total": self._total}

    def _measured(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for (number, name), values in sorted(self._measures.items()):
            histogram = values.to_json()
            if histogram["count"]:
                found.setdefault(self._steps[number].chosen, {})[name] = histogram
        return found

    def _duplicates(self) -> dict[str, float]:
        import numpy as np

        from wuxing.corpus.duplicate import first_of_equal, near_clusters
        from wuxing.corpus.fingerprint import KEY_BYTES

        keys = np.frombuffer(bytes(self._keys), np.dtype((np.void, KEY_BYTES)))
        if not len(keys):
            return {}
        first = first_of_equal(keys) == np.arange(len(keys))
        found = {"equal": round(1 - float(first.mean()), 4)}
        if self._signatures:
            own = first[np.frombuffer(bytes(self._documents), np.uint8) > 0]
            signatures = np.concatenate(self._signatures)[own]
            clusters = near_clusters(signatures, NEAR_JACCARD, (signatures != 0xFFFFFFFF).any(axis=1))
            found["near"] = round(float((clusters != np.arange(len(signatures))).sum()) / max(1, len(signatures)), 4)
        return found


def texts_of(record: Record) -> Iterator[str]:
    """The text of a document, or each turn of a dialogue with the replies to choose from."""
    if record.messages is not None:
        yield from (message["content"] for message in record.messages)
        yield from (reply for reply in (record.chosen, record.rejected) if reply is not None)
    elif record.text is not None:
        yield record.text


def _language(context: Context) -> tuple[Language | None, list[str]]:
    from wuxing.corpus.clean.language import Language, model_path

    try:
        return Language(model_path(context)), []
    except WuxingError as error:
        return None, [f"scripts in place of languages: {error.what}"]
