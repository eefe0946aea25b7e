"""Boilerplate: lines that many documents share, counted over the corpus first, and lines of a page's frame by rules.

A line counts once per document, without case, space and digits.  The counts are exact: 8-byte keys go to files by their
leading bits, and one file is sorted at a time, so memory stays bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.file import write_json
from wuxing.core.record import Drop
from wuxing.corpus.clean.boilerplate_rules import BUTTON, MAX_CHARACTERS, RULES, pattern
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.filter_config import BoilerplateConfig
from wuxing.corpus.clean.lines import JOINTS, pieces_of, put

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

    from wuxing.corpus.config import CorpusConfig

FILES = 64
SHOWN = 100
"""Of so many frequent lines the text is written down, to look at."""
_KNOWN = 20_000
CODE = r"^(\t|  )|[{}()\[\];,]\s*$|^[)}\]]"
"""A line that looks like code."""

Counted = tuple[int, "NDArray[np.uint64]", dict[int, str]]
"""Documents, the keys of the lines of each of them, the text of some."""


def line_keys(lines: pyarrow.Array) -> NDArray[np.uint64]:
    """64 bits of each line without case, space and the value of numbers; 0 for a line without any letter."""
    import numpy as np
    import pyarrow.compute as pc

    from wuxing.text.key import keys

    plain = pc.replace_substring_regex(lines, "[0-9]+", "0")
    found = keys(plain, b"line").view(np.uint64)[:, 0].copy()
    found[~pc.match_substring_regex(lines, r"\p{L}").to_numpy(zero_copy_only=False)] = 0
    return found


def count_lines(values: pyarrow.Array, languages: Sequence[Any] | None, unit: str) -> Counted:
    """What one chunk of documents adds to the counts."""
    import numpy as np

    lines, owners = pieces_of(values, unit)
    keys = line_keys(lines)
    order = np.lexsort([keys, owners])
    ordered, mine = keys[order], owners[order]
    once = np.ones(len(order), bool)
    once[1:] = (ordered[1:] != ordered[:-1]) | (mine[1:] != mine[:-1])
    once &= ordered != 0
    places = order[once]
    different, first, counts = np.unique(keys[places], return_index=True, return_counts=True)
    often = np.argsort(-counts, kind="stable")[:SHOWN]
    often = often[counts[often] > 1]
    texts = {int(different[n]): lines[int(places[first[n]])].as_py()[:MAX_CHARACTERS] for n in often.tolist()}
    return len(values), keys[places], texts


def fit(
    settings: BoilerplateConfig,
    config: CorpusConfig,
    parents: Mapping[str, Artifact],
    context: Context,
    directory: Path,
) -> None:
    """Count the lines of the corpus; write the keys of the frequent ones, and the most frequent as text."""
    import numpy as np

    from wuxing.corpus.clean.learn import read_before

    documents, known, files = 0, dict[int, str](), [directory / f"lines-{number}" for number in range(FILES)]
    work = partial(count_lines, unit=settings.unit)
    if settings.min_documents is not None:
        with ExitStack() as stack:
            out = [stack.enter_context(path.open("wb")) for path in files]
            for count, keys, texts in read_before(settings, config, context, directory, work):
                documents += count
                known.update({key: text for key, text in texts.items() if len(known) < _KNOWN or key in known})
                keys.sort()
                bounds = np.searchsorted(keys >> np.uint64(58), np.arange(FILES + 1, dtype=np.uint64))
                for number in range(FILES):
                    keys[bounds[number] : bounds[number + 1]].tofile(out[number])
    least = max(settings.min_documents or 0, settings.min_share * documents)
    frequent: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    counts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for path in files if settings.min_documents is not None else []:
        keys, times = np.unique(np.fromfile(path, np.uint64), return_counts=True)
        frequent.append(keys[times >= least])
        counts.append(times[times >= least])
        path.unlink()
    np.save(directory / "lines.npy", np.concatenate(frequent), allow_pickle=False)
    every, times = np.concatenate(frequent), np.concatenate(counts)
    top = np.lexsort([every, -times])[:SHOWN].tolist()
    shown = [{"line": known.get(int(every[n])), "documents": int(times[n])} for n in top]
    found = {"documents": documents, "min_documents": least, "lines": len(every), "most_frequent": shown}
    write_json(directory / "lines.json", found)


class Boilerplate:
    """Removes frequent lines and lines of a page's frame; counts in `found` how many of which kind."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = False

    def __init__(self, config: BoilerplateConfig, fitted: Path | None):
        import numpy as np

        self.config = config
        self.found: Counter[str] = Counter()
        known = fitted is not None and config.min_documents is not None
        self.frequent = np.load(fitted / "lines.npy", allow_pickle=False) if known and fitted else None

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The documents without their boilerplate, and the share of characters that went."""
        import numpy as np
        import pyarrow.compute as pc

        if not len(values):
            return Cleaned(values)
        left = self._without_frequent(values) if self.frequent is not None else values
        left = self._without_ruled(left) if self.config.rules else left
        before, after = (pc.utf8_length(texts).to_numpy().astype(np.float64) for texts in (values, left))
        share = 1 - np.divide(after, before, out=np.ones(len(values)), where=before > 0)
        much = (share > self.config.max_removed) | ((after == 0) & (before > 0))
        dropped = {n: Drop("boilerplate", f"{share[n]:.0%} of its characters") for n in np.flatnonzero(much).tolist()}
        return Cleaned(left, dropped, measures={"boilerplate_share": share})

    def _without_frequent(self, values: pyarrow.Array) -> pyarrow.Array:
        import numpy as np
        import pyarrow.compute as pc

        assert self.frequent is not None
        lines, owners = pieces_of(values, self.config.unit)
        keys = line_keys(lines)
        place = np.minimum(np.searchsorted(self.frequent, keys), max(0, len(self.frequent) - 1))
        gone = self.frequent[place] == keys if len(self.frequent) else np.zeros(len(keys), bool)
        if not gone.any():
            return values
        if not self.config.code:
            gone &= ~pc.match_substring_regex(lines, CODE).to_numpy(zero_copy_only=False)
        short = pc.binary_length(lines).to_numpy() < self.config.short_line_characters
        gone = _in_company(gone, short, lines, owners)
        self.found["frequent"] += int(gone.sum())
        return _without(values, lines, owners, gone, JOINTS[self.config.unit])

    def _without_ruled(self, values: pyarrow.Array) -> pyarrow.Array:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        lines, owners = pieces_of(values, "line")
        sizes = pc.utf8_length(lines).to_numpy()
        near = np.flatnonzero((sizes > 0) & (sizes <= MAX_CHARACTERS))
        short = lines.take(pa.array(near))
        kinds = np.full(len(lines), "", object)
        for kind in RULES:
            mine = near[pc.match_substring_regex(short, pattern(kind)).to_numpy(zero_copy_only=False)]
            kinds[mine[kinds[mine] == ""]] = kind
        gone = _in_company(kinds != "", kinds == BUTTON, lines, owners)
        self.found.update(kinds[gone].tolist())
        return _without(values, lines, owners, gone, "\n")


def _in_company(
    found: NDArray[np.bool_], weak: NDArray[np.bool_], lines: pyarrow.Array, owners: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """What was found, less the weak findings that stand beside no other; empty lines between do not count."""
    import numpy as np
    import pyarrow.compute as pc

    said = np.flatnonzero(pc.binary_length(pc.utf8_trim_whitespace(lines)).to_numpy() > 0)
    here, owner = found[said], owners[said]
    beside = np.zeros(len(said), bool)
    same = owner[1:] == owner[:-1]
    beside[1:] |= same & here[:-1]
    beside[:-1] |= same & here[1:]
    gone = np.zeros(len(found), bool)
    gone[said] = here & (beside | ~weak[said])
    return gone


def _without(
    values: pyarrow.Array, lines: pyarrow.Array, owners: NDArray[np.int64], gone: NDArray[np.bool_], joint: str
) -> pyarrow.Array:
    import numpy as np

    bounds = np.searchsorted(owners, np.arange(len(values) + 1))
    new = {}
    for place in np.unique(owners[gone]).tolist():
        low, high = int(bounds[place]), int(bounds[place + 1])
        new[place] = _left(lines[low:high].to_pylist(), gone[low:high].tolist(), joint)
    return put(values, new)


def _left(lines: list[str], gone: list[bool], joint: str) -> str:
    """The lines that stay; a removed line takes one of the empty lines around it along."""
    kept: list[str] = []
    gap = False
    for line, goes in zip(lines, gone, strict=True):
        if goes:
            gap = True
        elif gap and not line.strip() and (not kept or not kept[-1].strip()):
            continue
        else:
            kept.append(line)
            gap = gap and not line.strip()
    return joint.join(kept).strip("\n")


def build(config: BoilerplateConfig, context: Context, fitted: Path | None = None) -> Boilerplate:
    """The step for a recipe."""
    return Boilerplate(config, fitted)
