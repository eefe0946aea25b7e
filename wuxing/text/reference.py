"""Byte-level BPE as it is defined (Sennrich et al. 2016, on bytes): the slow truth of the fast encoder."""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import pairwise
from typing import Any

from wuxing.text.tokenizer import Tokenizer, byte_alphabet


class ReferenceEncoder:
    """Encodes by the definition: split by the pattern, then merge the pair of the lowest rank until none is left."""

    def __init__(self, tokenizer: Tokenizer):
        import regex

        model = json.loads(tokenizer.backend.to_str())
        splits = [step["pattern"]["Regex"] for step in _steps(model["pre_tokenizer"]) if step["type"] == "Split"]
        assert len(splits) == 1, "the reference knows tokenizers with one splitting pattern"
        self._split = regex.compile(splits[0])
        self._ids: dict[str, int] = model["model"]["vocab"]
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(map(_pair, model["model"]["merges"]))}
        self._alphabet = byte_alphabet()
        self._word = lru_cache(maxsize=100_000)(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        return [number for piece in self._split.findall(text) for number in self._word(piece)]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        parts = [self._alphabet[byte] for byte in word.encode()]
        while len(parts) > 1:
            ranked = [(self._ranks.get(pair), place) for place, pair in enumerate(pairwise(parts))]
            rank, place = min(((r, p) for r, p in ranked if r is not None), default=(None, 0))
            if rank is None:
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        return tuple(self._ids[part] for part in parts)


def _steps(pre_tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    return pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _pair(merge: Any) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else list(merge)
