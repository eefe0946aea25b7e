"""`statistics.json`: everything that the data report draws, and `changed.parquet`, `dropped.parquet` beside it.

The schema (a key that has nothing to say is there and empty; figures are exact unless they say otherwise):

    {
      "format": 1,
      "rows": 1000,                       # raw rows read
      "kept": 812,
      "fates": {"kept": 812, "filtered:too_short": 100, ...},          # largest first; they sum to `rows`
      "sources": [{"name": "wiki", "license": "CC-BY-SA-4.0", "rows": 1000, "kept": 812, "bytes": 123456,
                   "fates": {"kept": 812, ...}}],                      # bytes: of the raw files, 0 where unknown
      "steps": [{                                                      # in the order of the recipe
         "number": 0, "step": "quality", "parameters": {"min_words": 50, ...},
         "records": 950,                  # that reached it and hold its column
         "changed": 0, "dropped": {"too_short": 100}, "found": {"mail": 3},
         "measures": {"words": <histogram>, ...}                        # of all values that reached it
      }],
      "duplicates": {
         "exact": <clusters>, "near": <clusters>, "substring": {"records": 0, "characters": 0}
      },
      "splits": {"train": {
         "records": 800, "documents": 800, "dialogues": 0, "images": 0, "audio": 0,
         "characters": 123456, "bytes": 130000,                         # bytes: UTF-8 of text, or of images and audio
         "sources": {"wiki": 800}, "languages": {"en": 790, "zh": 10},  # `script:latin` where no step identified them
         "labels": {"cat": 12, "dog": 9},                               # the 200 most frequent; "" counts the others
         "lengths": <histogram>                                         # characters of text; bytes for images, audio
      }, "validation": {...}, "test": {...}},
      "privacy": {"found": {"mail": 3}, "left": {"ip": 1}}              # by the privacy steps; by the independent check
    }

    <histogram> = {
      "count": 950, "missing": 0, "min": 1.0, "max": 900.0, "mean": 120.5,
      "quantiles": {"0.01": .., "0.05": .., "0.25": .., "0.5": .., "0.75": .., "0.95": .., "0.99": ..},   # to 0.8 %
      "scale": "linear" | "log",
      "edges": [..n + 1 rising numbers..], "counts": [..n..]            # edges[i] <= value < edges[i + 1]; last: <=
    }
    <clusters> = {
      "dropped": 120,                     # records that left as duplicates of this kind
      "clusters": 45,                     # groups of two or more, the kept one counted in
      "sizes": {"2": 30, "3": 10, ...},   # size → number of groups; "8" is 8..15, "16" is 16..31, ...
      "largest": [{"id": "wiki/a#1", "size": 9, "members": ["wiki/a#7", ...up to 5]}]   # up to 20, `id` was kept
    }

`dropped.parquet`: id, fate, detail, text, image, audio – per fate the `dropped_samples` records whose ids have the
least hash: a uniform sample that does not depend on how the work was cut.  `changed.parquet`: id, step (`2:privacy`),
before, after – the same choice per step, cut around the first difference.  Where a recipe has a privacy step, every
text in both is redacted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wuxing.corpus.clean import Cleaner, StepCount, views_of
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.engine.histogram import Histogram

if TYPE_CHECKING:
    import pyarrow
    from numpy.typing import NDArray

LABELS = 200
LARGEST_CLUSTERS = 20
SHOWN_MEMBERS = 5


class Tally:
    """Counts over the rows of all shards, which may come in any cut."""

    def __init__(self, config: CorpusConfig, cleaners: list[Cleaner]):
        self.config = config
        self.steps = [StepCount(step.chosen) for step in config.clean]
        self.measures: dict[tuple[int, str], Histogram] = {}
        self.fates: Counter[str] = Counter()
        self.sources: dict[str, Counter[str]] = {source.label: Counter() for source in config.sources}
        self._views = [views_of(cleaner) for cleaner in cleaners]

    def found(self, found: list[dict[str, int]]) -> None:
        """What the steps met in one shard."""
        for step, counts in zip(self.steps, found, strict=True):
            step.found.update(counts)

    def rows(self, source: int, rows: pyarrow.Table, fates: pyarrow.Array) -> None:
        """Some rows of a source, and the fate that each of them has in the end."""
        import numpy as np

        ended = Counter({item["values"]: item["counts"] for item in fates.value_counts().to_pylist()})
        self.fates += ended
        self.sources[self.config.sources[source].label] += ended
        step, kind = rows.column("step").to_numpy(), rows.column("kind").to_numpy()
        changed = rows.column("changed").to_numpy()
        for number, count in enumerate(self.steps):
            reached = np.isin(kind, self._views[number]) & ((step == -1) | (step >= number))
            count.records += int(reached.sum())
            count.changed += int((changed >> np.uint64(number) & np.uint64(1)).sum())
            left = np.flatnonzero(step == number)
            if len(left):
                reasons = rows.column("fate").take(left).value_counts().to_pylist()
                count.dropped.update({r["values"].removeprefix("filtered:"): r["counts"] for r in reasons})
        for name in rows.column_names:
            place, _, measure = name.partition(":")
            if measure:
                self.measures.setdefault((int(place), measure), Histogram()).add(rows.column(name).to_numpy())

    def to_json(self, sizes: Mapping[str, int], seen: Mapping[str, Any], duplicates: Mapping[str, Any]) -> Any:
        """The whole file; `sizes`: bytes of each source, `seen`: what the check of the finished corpus saw."""
        found: Counter[str] = Counter()
        for step in self.steps:
            if step.step == "privacy":
                found += step.found
        return {
            "format": 1,
            "rows": sum(self.fates.values()),
            "kept": self.fates["kept"],
            "fates": ranked(self.fates),
            "sources": [
                {
                    "name": source.label,
                    "license": source.license,
                    "rows": sum(self.sources[source.label].values()),
                    "kept": self.sources[source.label]["kept"],
                    "bytes": sizes.get(source.label, 0),
                    "fates": ranked(self.sources[source.label]),
                }
                for source in self.config.sources
            ],
            "steps": [self._step(number, count) for number, count in enumerate(self.steps)],
            "duplicates": duplicates,
            "splits": seen["splits"],
            "privacy": {"found": dict(sorted(found.items())), "left": seen["private"]},
        }

    def _step(self, number: int, count: StepCount) -> dict[str, Any]:
        names = sorted(name for step, name in self.measures if step == number)
        return {
            "number": number,
            **count.to_json(),
            "parameters": self.config.clean[number].settings.model_dump(mode="json"),
            "measures": {name: self.measures[number, name].to_json() for name in names},
        }


def ranked(counts: Counter[str]) -> dict[str, int]:
    """Largest first, equal ones by name: the same however they were counted."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class Clusters:
    """The groups of records of which one was kept."""

    def __init__(self, root: NDArray[Any]):
        import numpy as np

        self.left = np.flatnonzero(root != np.arange(len(root), dtype=root.dtype))
        roots, self._first, sizes = np.unique(root[self.left], return_index=True, return_counts=True)
        self._root, self._sizes = roots, sizes + 1
        order = np.lexsort((roots, -sizes))[:LARGEST_CLUSTERS]
        self._largest = [
            (int(roots[n]), int(sizes[n]) + 1, self.left[root[self.left] == roots[n]][:SHOWN_MEMBERS].tolist())
            for n in order
        ]

    @property
    def indices(self) -> list[int]:
        """Records whose ids `to_json` asks for."""
        return [index for root, _, members in self._largest for index in (root, *members)]

    def to_json(self, names: Mapping[int, str]) -> dict[str, Any]:
        """As `statistics.json` has it."""
        sizes: Counter[int] = Counter()
        for size in self._sizes.tolist():
            sizes[size if size < 8 else 1 << (size.bit_length() - 1)] += 1
        return {
            "dropped": len(self.left),
            "clusters": len(self._root),
            "sizes": {str(size): count for size, count in sorted(sizes.items())},
            "largest": [
                {"id": names[root], "size": size, "members": [names[member] for member in members]}
                for root, size, members in self._largest
            ],
        }
