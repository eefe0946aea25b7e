"""From scores of documents and of replies to figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from wuxing.core.record import Record
from wuxing.core.statistic import Estimate, ratio
from wuxing.evaluate.subject import Score, counted_text


def bits_per_byte(scores: Sequence[Score]) -> float:
    """Nats of all counted tokens, in bits, per UTF-8 byte of the text they stand for: comparable across tokenizers."""
    return sum(score.nats for score in scores) / math.log(2) / sum(score.bytes for score in scores)


def bits_estimate(scores: Sequence[Score], seed: int) -> Estimate:
    """Bits per byte with a bootstrap interval over documents."""
    return ratio([score.nats / math.log(2) for score in scores], [score.bytes for score in scores], seed)


def byte_entropy(train: Iterable[Record], held_out: Sequence[Record], limit: int = 2000) -> float:
    """Bits per byte of a predictor that knows only how often each byte occurs in `train`: what any model must beat."""
    counts: Counter[int] = Counter(range(256))
    for record in islice(train, limit):
        counts.update(counted_text(record).encode())
    total = sum(counts.values())
    held = Counter(byte for record in held_out for byte in counted_text(record).encode())
    return sum(n * -math.log2(counts[byte] / total) for byte, n in held.items()) / max(1, sum(held.values()))
