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
      "sizes": {"2": 30, "3": 10, ...},   # size → number of groups; from 10 on in powers of two: "16" is 16..31
      "largest": [{"id": "wiki/a#1", "size": 9, "members": ["wiki/a#7", ...up to 5]}]   # up to 20, `id` was kept
    }

`dropped.parquet`: id, fate, detail, text, image, audio – per fate the `dropped_samples` records whose ids have the
least hash: a uniform sample that does not depend on how the work was cut.  `changed.parquet`: id, step (`2:privacy`),
before, after – the same choice per step, cut around the first difference.  Where a recipe has a privacy step, every
text in both is redacted.
"""

from __future__ import annotations
