"""Decontamination: records that share a run of words with an item of an evaluation set leave, or lose the run.

Runs of 13 words as for GPT-3 (Brown et al. 2020, appendix C).  The items become 64-bit hashes of runs before the first
record is cleaned; a column is compared by its own runs in compiled code, single texts only where one is found.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.file import write_json
from wuxing.core.record import Drop, Record
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.filter_config import DecontaminateConfig
from wuxing.corpus.clean.lines import put

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

    from wuxing.core.evidence import Evidence
    from wuxing.corpus.config import CorpusConfig
    from wuxing.text.token import Tokens

_UNIT_END = r"[\n\r。！？!?；;]|\.\s"
_NOT_SAID = r"[^\p{L}\p{N}\p{M}+\-*/=<>^%×÷]+"
"""Signs of arithmetic make another question of the same words, other signs do not."""
_LEAD = r"^ *(?:q|question|user|human|问|问题|题目|题) "
_FILTER_BITS = 22

Item = tuple[str, str, list[str]]
"""Its set, its id, its pieces: a document, or what is asked and what is answered."""


def items_of(settings: DecontaminateConfig, parents: Mapping[str, Artifact], context: Context) -> Iterator[Item]:
    """The evaluation items that a recipe names."""
    from wuxing.core.splits import read_records
    from wuxing.corpus.engine.rows import Reader
    from wuxing.source import open_source

    for one in settings.against:
        if isinstance(one, str):
            for split in settings.splits:
                for record in read_records(parents[one].path, split):
                    yield one, record.id, _pieces(record)
        else:
            for chunk in Reader(one).chunks(open_source(one, context).parts):
                for _, record in chunk.columns.records():
                    yield one.label, record.id, _pieces(record)


def _pieces(record: Record) -> list[str]:
    if record.messages is None:
        return [record.text] if record.text else []
    asked = [message["content"] for message in record.messages if message["role"] == "user"]
    said = [message["content"] for message in record.messages if message["role"] == "assistant"]
    replies = [reply for reply in (record.chosen, record.rejected) if reply]
    return [*asked, *(f"\x00{reply}" for reply in said + replies)]


def fit(
    settings: DecontaminateConfig,
    config: CorpusConfig,
    parents: Mapping[str, Artifact],
    context: Context,
    directory: Path,
) -> None:
    """Write the index of all items: `runs.npz` (hashes and whose they are) and `items.parquet` (which there are)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = _Building(settings)
    with context.progress.bar("decontaminate: reading the evaluation items") as bar:
        for item in items_of(settings, parents, context):
            index.add(item)
            bar.advance()
    if not index.names:
        raise WuxingError("decontaminate: the evaluation sets hold no item", "Look at their splits, or leave them out")
    arrays: dict[str, NDArray[Any]] = {}
    for width, owned in sorted(index.runs.items()):
        keys = np.concatenate([np.unique(mine) for mine, _ in owned])
        owners = np.concatenate([np.full(len(np.unique(mine)), item, np.int64) for mine, item in owned])
        order = np.lexsort([owners, keys])
        arrays[f"keys_{width}"], arrays[f"items_{width}"] = keys[order], owners[order]
    np.savez(directory / "runs.npz", **arrays)  # type: ignore[arg-type]
    sets, ids = zip(*index.names, strict=True)
    table = {"set": sets, "id": ids, "words": index.words, "runs": index.sizes}
    pq.write_table(pa.table(table), directory / "items.parquet", compression="zstd")


class _Building:
    """Gathers the runs of items: under each width the hashes and their item; under 0 keys of short texts."""

    def __init__(self, settings: DecontaminateConfig):
        self.settings = settings
        self.names: list[tuple[str, str]] = []
        self.words: list[int] = []
        self.sizes: list[int] = []
        self.runs: dict[int, list[tuple[NDArray[np.uint64], int]]] = defaultdict(list)

    def add(self, item: Item) -> None:
        import numpy as np
        import pyarrow as pa

        from wuxing.text.token import runs, tokens

        name, id, pieces = item
        number, width = len(self.names), self.settings.ngram_words
        mine: dict[int, list[NDArray[np.uint64]]] = defaultdict(list)
        words = 0
        for piece in pieces:
            answer, text = piece.startswith("\x00"), piece.removeprefix("\x00")
            hashes = tokens(pa.array([text])).hashes
            words += len(hashes)
            if len(hashes) >= width:
                mine[width].append(runs(hashes, width))
            elif answer or not len(hashes):
                continue  # a short answer stands anywhere
            elif len(hashes) >= self.settings.short_words:
                mine[len(hashes)].append(runs(hashes, len(hashes)))
            else:
                mine[0].append(unit_keys(pa.array([text]))[1][:1])
        self.names.append((name, id))
        self.words.append(words)
        merged = {width: np.unique(np.concatenate(parts)) for width, parts in mine.items()}
        self.sizes.append(sum(map(len, merged.values())))
        for width, keys in merged.items():
            self.runs[width].append((keys, number))


def unit_keys(texts: pyarrow.Array) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Of each text the keys of the whole and of its lines and sentences, as (place of the text, key)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from wuxing.text.key import keys

    parts = pc.split_pattern_regex(texts, _UNIT_END)
    owners = np.concatenate([np.arange(len(texts)), pc.list_parent_indices(parts).to_numpy().astype(np.int64)])
    said = pc.replace_substring_regex(pa.concat_arrays([texts, pc.list_flatten(parts)]), _NOT_SAID, " ")
    said = pc.replace_substring_regex(said, r" *([+\-*/=<>^%×÷]) *", r"\1")
    said = pc.utf8_trim_whitespace(pc.replace_substring_regex(said, "(?i)" + _LEAD, ""))
    some = pc.greater(pc.binary_length(said), 0)
    found = keys(said.filter(some), b"unit")
    whole = np.frombuffer(found.tobytes(), np.uint64).reshape(-1, 2)[:, 0].copy()
    return owners[some.to_numpy(zero_copy_only=False)], whole


@dataclass(frozen=True)
class _Runs:
    """The runs of one width: rising hashes, the item of each, and a bitmap that most other hashes fail."""

    keys: NDArray[np.uint64]
    items: NDArray[np.int64]
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, keys: NDArray[np.uint64], items: NDArray[np.int64]) -> _Runs:
        import numpy as np

        seen = np.zeros(1 << _FILTER_BITS, bool)
        seen[keys >> np.uint64(64 - _FILTER_BITS)] = True
        return cls(keys, items, seen)

    def hits(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The places of hashes that are among the keys."""
        import numpy as np

        near = np.flatnonzero(self.seen[hashes >> np.uint64(64 - _FILTER_BITS)])
        place = np.searchsorted(self.keys, hashes[near])
        found: NDArray[np.int64] = near[self.keys[np.minimum(place, len(self.keys) - 1)] == hashes[near]]
        return found

    def owners(self, key: np.uint64) -> list[int]:
        """The items with a key."""
        import numpy as np

        low, high = np.searchsorted(self.keys, key, "left"), np.searchsorted(self.keys, key, "right")
        owners: list[int] = self.items[low:high].tolist()
        return owners


class Decontaminate:
    """Drops or cuts what shares runs with evaluation items; counts in `found` how often each item was met."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = True

    def __init__(self, settings: DecontaminateConfig, fitted: Path):
        import numpy as np
        import pyarrow.parquet as pq

        self.settings = settings
        self.found: Counter[str] = Counter()
        table = pq.read_table(fitted / "items.parquet")
        names = zip(table["set"].to_pylist(), table["id"].to_pylist(), strict=True)
        self.names = [id if id.startswith(f"{name}/") else f"{name}/{id}" for name, id in names]
        self.sizes: list[int] = table["runs"].to_pylist()
        with np.load(fitted / "runs.npz", allow_pickle=False) as arrays:
            widths = [int(name.removeprefix("keys_")) for name in arrays.files if name.startswith("keys_")]
            self.runs = {width: _Runs.of(arrays[f"keys_{width}"], arrays[f"items_{width}"]) for width in widths}

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column without what the evaluation sets ask."""
        from wuxing.text.token import tokens

        found = tokens(values)
        hits = self._hits(values, found)
        dropped: dict[int, Drop] = {}
        new: dict[int, str] = {}
        for place, mine in sorted(hits.items()):
            shares = self._shares(mine)
            if not shares:
                continue
            self.found.update(self.names[item] for item in shares)
            if self.settings.action == "drop":
                dropped[place] = Drop("contaminated", self._named(shares))
                continue
            left = self._cut(values[place].as_py(), mine, set(shares), found)
            left = None if left is None else self._cut_again(left)
            if left is None:
                dropped[place] = Drop("contaminated", self._named(shares))
            else:
                new[place] = left
        return Cleaned(put(values, new), dropped)

    def _hits(self, values: pyarrow.Array, found: Tokens) -> dict[int, list[tuple[int, int, np.uint64]]]:
        """Of each text that holds a run of an item: (width, first token or -1 for a unit, hash)."""
        import numpy as np

        from wuxing.text.token import runs, whole_runs

        hits: dict[int, list[tuple[int, int, np.uint64]]] = defaultdict(list)
        for width, known in self.runs.items():
            if width == 0:
                owners, keys = unit_keys(values)
                for at in known.hits(keys).tolist():
                    hits[int(owners[at])].append((0, -1, keys[at]))
                continue
            hashes = runs(found.hashes, width)
            at = known.hits(hashes)
            at = at[whole_runs(found.ends, width)[at]]
            for first, owner in zip(at.tolist(), np.searchsorted(found.ends, at, side="right").tolist(), strict=True):
                hits[owner].append((width, first, hashes[first]))
        return hits

    def _shares(self, hits: list[tuple[int, int, np.uint64]]) -> dict[int, float]:
        """The items that a text gives away, and the share of their runs that it holds; the largest first."""
        met: Counter[int] = Counter()
        for width, key in {(width, key) for width, _, key in hits}:
            met.update(self.runs[width].owners(key))
        shares = {item: count / self.sizes[item] for item, count in met.items()}
        enough = {item: share for item, share in shares.items() if share >= self.settings.min_share}
        return dict(sorted(enough.items(), key=lambda pair: (-pair[1], pair[0])))

    def _named(self, shares: Mapping[int, float]) -> str:
        item, share = next(iter(shares.items()))
        more = f" and {len(shares) - 1} more" if len(shares) > 1 else ""
        return f"{self.names[item]} {share:.2f}{more}"

    def _cut(self, text: str, hits: list[tuple[int, int, np.uint64]], items: set[int], found: Tokens) -> str | None:
        """The text without the runs of these items; None when too little is left."""
        from wuxing.corpus.substring import without
        from wuxing.text.shingle import tokens_of

        spans = []
        for width, first, key in hits:
            if items.isdisjoint(self.runs[width].owners(key)):
                continue
            if width:
                spans.append((int(found.starts[first]), int(found.stops[first + width - 1])))
            else:
                spans += [span for span, unit in _units(text) if unit == key]
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(spans):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            else:
                merged.append((start, stop))
        left = without(text, merged)
        return left if left and len(tokens_of(left)) >= self.settings.min_left_words else None

    def _cut_again(self, text: str) -> str | None:
        """A cut text without the runs that cutting joined."""
        import pyarrow as pa

        from wuxing.text.token import tokens

        left: str | None = text
        while left is not None:
            alone = pa.array([left])
            found = tokens(alone)
            hits = self._hits(alone, found).get(0, [])
            shares = self._shares(hits)
            if not shares:
                return left
            left = self._cut(left, hits, set(shares), found)
        return None


def _units(text: str) -> Iterator[tuple[tuple[int, int], np.uint64]]:
    """The bytes of a text's lines and sentences and of the whole, with their keys."""
    import pyarrow as pa

    bounds, at = [(0, len(text))], 0
    for match in re.finditer(_UNIT_END, text):
        bounds.append((at, match.start()))
        at = match.end()
    bounds.append((at, len(text)))
    for start, stop in bounds:
        _, keys = unit_keys(pa.array([text[start:stop]]))
        if len(keys):
            before = len(text[:start].encode())
            yield (before, before + len(text[start:stop].encode())), keys[0]


def build(config: DecontaminateConfig, context: Context, fitted: Path | None = None) -> Decontaminate:
    """The step for a recipe."""
    assert fitted is not None, "the evaluation items are read before the cleaning"
    return Decontaminate(config, fitted)


def finish(
    settings: DecontaminateConfig,
    number: int,
    parents: Mapping[str, Artifact],
    context: Context,
    directory: Path,
    found: Mapping[str, int],
    evidence: Evidence,
) -> None:
    """Write `contamination.json` of a finished corpus and judge what is left, by other means than those of cleaning."""
    from wuxing.corpus.clean.leak import left_over

    sets = Counter(name for name, _, _ in items_of(settings, parents, context))
    met = dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))
    again = any(check.name == "evaluation_overlap" for check in evidence.checks)
    mark = f"_{number}" if again else ""
    write_json(
        directory / f"contamination{mark}.json", {"items": dict(sets), "found": len(met), "records_by_item": met}
    )
    looked, left = left_over(settings, items_of(settings, parents, context), sets.total(), directory)
    value = {"items": sets.total(), "found": len(met), "checked": looked, "left": len(left)}
    shown = f"; first: {', '.join(left[:3])}" if left else ""
    note = f"evaluation items that a record still gives away, by plain sets of strings{shown}"
    evidence.judge(f"evaluation_overlap{mark}", not left, value, {"left": 0}, note)
