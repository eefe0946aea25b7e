"""Words of a list: whole words where words stand between spaces, any place in scripts without spaces.

A word or phrase of k tokens is looked for as a run of k tokens, by 64-bit hashes in compiled code: `ass` never in
`class`, and 坏话 in 说坏话的人.  The list is the user's; none is shipped.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.filter_config import ToxicityConfig

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

LEET = (("4", "a"), ("@", "a"), ("3", "e"), ("0", "o"), ("5", "s"), ("$", "s"), ("7", "t"))
_ONES = ("i", "l")
"""What `1`, `!` and `|` may stand for."""
_WORD = re.compile(r"[\w@$!|]*[^\W\d_](?:[\w@$!|]*[\w@$])?")
"""A word with a letter in it; an exclamation mark at its end is none."""
_SIGNED = r"[\p{L}][0-9@$!|]|[0-9@$!|][\p{L}]"


def read_list(path: Path) -> list[str]:
    """The words and phrases of a file; WuxingError when it holds none."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    words = [line.partition("#")[0].strip() for line in lines]
    if not any(words):
        raise WuxingError(f"{path} holds no word", "Write one word or phrase a line; # begins a comment")
    return [word for word in words if word]


class Toxicity:
    """Drops a text with too many words of a list; `found` counts hits, never which."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = True

    def __init__(self, config: ToxicityConfig, words: Iterable[str]):
        import numpy as np
        import pyarrow as pa

        from wuxing.text.token import runs, tokens

        self.config = config
        self.found: Counter[str] = Counter()
        keys: dict[int, set[int]] = defaultdict(set)
        variants = {form for word in words for form in (word, word.lower(), word.upper(), word.title())}
        for variant in variants:
            hashes = tokens(pa.array([variant])).hashes
            if len(hashes):
                keys[len(hashes)].add(int(runs(hashes, len(hashes))[0]))
        if not keys:
            raise WuxingError(f"{config.list} holds no word that could be found", "Signs alone are no words")
        self.keys = {width: np.array(sorted(mine), np.uint64) for width, mine in keys.items()}

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column, with the hits and their share of the words of each text."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        hits, share = self._hits(values)
        if self.config.leet:
            signed = np.flatnonzero(pc.match_substring_regex(values, _SIGNED).to_numpy(zero_copy_only=False))
            if len(signed):
                for one in _ONES:
                    more, larger = self._hits(_unmasked(values.take(pa.array(signed)), one))
                    hits[signed], share[signed] = np.maximum(hits[signed], more), np.maximum(share[signed], larger)
        most, large = self.config.max_hits, self.config.max_share
        most = 0 if most is None and large is None else most
        bad = np.zeros(len(values), bool)
        if most is not None:
            bad |= hits > most
        if large is not None:
            bad |= share > large
        self.found["hits"] += int(hits.sum())
        dropped = {n: Drop("toxic", f"{int(hits[n])} hits, {share[n]:.1%} of the words") for n in np.flatnonzero(bad)}
        return Cleaned(
            values, {int(n): drop for n, drop in dropped.items()}, measures={"hits": hits, "hit_share": share}
        )

    def _hits(self, values: pyarrow.Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """For each text the number of hits, and the share of its tokens that stand in one."""
        import numpy as np

        from wuxing.text.token import runs, tokens, whole_runs

        found = tokens(values)
        hits = np.zeros(len(values))
        inside = np.zeros(len(found.hashes) + 1, np.int64)
        for width, keys in self.keys.items():
            hashes = runs(found.hashes, width)
            place = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
            at = np.flatnonzero((keys[place] == hashes) & whole_runs(found.ends, width))
            np.add.at(hits, np.searchsorted(found.ends, at, side="right"), 1)
            np.add.at(inside, at, 1)
            np.add.at(inside, at + width, -1)
        covered = np.flatnonzero(np.cumsum(inside[:-1]) > 0)
        sums = np.bincount(np.searchsorted(found.ends, covered, side="right"), minlength=len(values))
        return hits, np.divide(sums, found.counts, out=np.zeros(len(values)), where=found.counts > 0)


def _unmasked(values: pyarrow.Array, one: str) -> pyarrow.Array:
    """The texts with letters in place of the digits and signs in words that may stand for them; numbers stay."""
    import pyarrow as pa

    table = str.maketrans({**dict(LEET), "1": one, "!": one, "|": one})
    texts = [_WORD.sub(lambda match: match[0].translate(table), text) for text in values.to_pylist()]
    return pa.array(texts, values.type)


def build(config: ToxicityConfig, context: Context, fitted: Path | None = None) -> Toxicity:
    """The step for a recipe."""
    return Toxicity(config, read_list(Path(config.list)))
