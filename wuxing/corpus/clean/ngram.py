"""An n-gram model of text: interpolated Kneser-Ney (Chen and Goodman 1999, equation 8 with one discount per order).

Tokens are words, or single characters in scripts without spaces; runs of them are 64-bit hashes.  Tokens that the
training text holds once stand for all unknown ones, and share their probability: a text of unknown words surprises.
Plain arrays: nothing is trained but counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wuxing.text.token import Tokens, runs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BEGIN, UNKNOWN = 0xB9E4, 0x0B5C
"""Hashes of the marks before a text and for unknown tokens; real tokens' hashes are mixed 64 bits."""


@dataclass(frozen=True)
class Order:
    """Counts of the runs of one length, and of their beginnings."""

    grams: NDArray[np.uint64]
    counts: NDArray[np.int32]
    """How often a run occurs; in all but the longest, how many different tokens stand before it."""
    contexts: NDArray[np.uint64]
    totals: NDArray[np.int32]
    """Sum of the counts of the runs that begin with a context."""
    types: NDArray[np.int32]
    """How many different tokens follow it."""
    discount: float


@dataclass(frozen=True)
class NgramModel:
    """Probabilities of tokens after the tokens before them."""

    vocabulary: NDArray[np.uint64]
    """Rising hashes of the known tokens."""
    orders: list[Order]
    unknown: int = 1
    """How many tokens share the probability of the unknown one: those that the training text holds once."""

    @property
    def size(self) -> int:
        """Tokens that share the probability: the known ones and the unknown one."""
        return len(self.vocabulary) + 1

    def perplexities(self, tokens: Tokens, most: int) -> NDArray[np.float64]:
        """The perplexity per token of the first `most` tokens of each text; NaN for a text without any."""
        import numpy as np

        ids, here, owner = _padded(self._known(tokens.hashes), tokens, len(self.orders), most)
        logs = np.log(self._probabilities(ids, here)) if len(here) else np.empty(0)
        sums = np.bincount(owner, logs, len(tokens.ends))
        counts = np.bincount(owner, minlength=len(tokens.ends))
        mean = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
        found: NDArray[np.float64] = np.exp(-mean)
        return found

    def _known(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        import numpy as np

        return np.where(_place(self.vocabulary, hashes) >= 0, hashes, np.uint64(UNKNOWN))

    def _probabilities(self, ids: NDArray[np.uint64], here: NDArray[np.int64]) -> NDArray[np.float64]:
        import numpy as np

        found = np.full(len(here), 1.0 / self.size)
        for length, order in enumerate(self.orders, 1):
            context = _contexts(ids, here, length)
            place = _place(order.contexts, context)
            seen = np.flatnonzero(place >= 0)
            total = order.totals[place[seen]].astype(np.float64)
            spread = order.discount * order.types[place[seen]] / total
            gram = _place(order.grams, runs(ids, length)[here[seen] - length + 1])
            count = np.where(gram >= 0, order.counts[np.maximum(gram, 0)], 0)
            found[seen] = np.maximum(count - order.discount, 0) / total + spread * found[seen]
        found[ids[here] == UNKNOWN] /= self.unknown
        return found

    def save(self, path: Path) -> None:
        """Write the counts as plain arrays."""
        import numpy as np

        arrays = {
            "vocabulary": self.vocabulary,
            "unknown": np.array(self.unknown),
            "discounts": np.array([order.discount for order in self.orders]),
        }
        for length, order in enumerate(self.orders, 1):
            for name in ("grams", "counts", "contexts", "totals", "types"):
                arrays[f"{name}_{length}"] = getattr(order, name)
        np.savez(path, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> NgramModel:
        """Read what `save` wrote."""
        import numpy as np

        names = ("grams", "counts", "contexts", "totals", "types")
        with np.load(path, allow_pickle=False) as arrays:
            orders = [
                Order(**{name: arrays[f"{name}_{length}"] for name in names}, discount=float(discount))
                for length, discount in enumerate(arrays["discounts"], 1)
            ]
            return cls(arrays["vocabulary"], orders, int(arrays["unknown"]))


def train(tokens: Tokens, order: int, most: int) -> NgramModel:
    """A model of the first `most` tokens of each text."""
    import numpy as np

    mine = tokens.hashes[_early(tokens, most)]
    every, counts = np.unique(mine, return_counts=True)
    vocabulary = every[counts > 1]
    model = NgramModel(vocabulary, [])
    ids, here, _ = _padded(model._known(tokens.hashes), tokens, order, most)
    places = [here] * order
    for length in range(order - 1, 0, -1):  # the end of the first run of each kind that is one token longer
        longer = runs(ids, length + 1)[places[length] - length]
        places[length - 1] = places[length][np.unique(longer, return_index=True)[1]]
    orders = [_counted(ids, places[length - 1], length) for length in range(1, order + 1)]
    return NgramModel(vocabulary, orders, max(1, int((counts == 1).sum())))


def _counted(ids: NDArray[np.uint64], ends: NDArray[np.int64], length: int) -> Order:
    """The counts of the runs of one length that end at these places."""
    import numpy as np

    grams, first, counts = np.unique(runs(ids, length)[ends - length + 1], return_index=True, return_counts=True)
    contexts, back = np.unique(_contexts(ids, ends[first], length), return_inverse=True)
    totals = np.bincount(back, counts, len(contexts)).astype(np.int32)
    types = np.bincount(back, minlength=len(contexts)).astype(np.int32)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once and twice else 0.75
    return Order(grams, counts.astype(np.int32), contexts, totals, types, discount)


def _contexts(ids: NDArray[np.uint64], ends: NDArray[np.int64], length: int) -> NDArray[np.uint64]:
    """The hash of the tokens before the last of runs that end at these places."""
    import numpy as np

    if length == 1:
        return np.zeros(len(ends), np.uint64)
    return runs(ids, length - 1)[ends - length + 1]


def _early(tokens: Tokens, most: int) -> NDArray[np.bool_]:
    """The tokens that are among the first `most` of their text."""
    import numpy as np

    starts = tokens.ends - tokens.counts
    place = np.arange(len(tokens.hashes)) - np.repeat(starts, tokens.counts)
    found: NDArray[np.bool_] = place < most
    return found


def _padded(
    hashes: NDArray[np.uint64], tokens: Tokens, order: int, most: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """The tokens with marks before each text, the places of the tokens among them, and the text of each."""
    import numpy as np

    early = _early(tokens, most)
    owner = np.repeat(np.arange(len(tokens.ends)), tokens.counts)[early]
    here = np.arange(len(owner)) + (owner + 1) * (order - 1)
    ids = np.full(len(owner) + len(tokens.ends) * (order - 1), BEGIN, np.uint64)
    ids[here] = hashes[early]
    return ids, here, owner


def _place(known: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each key stands among rising known ones; -1 for those that do not."""
    import numpy as np

    if not len(known):
        return np.full(len(keys), -1, np.int64)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found: NDArray[np.int64] = np.where(known[place] == keys, place, -1)
    return found
