"""python run_daft.py OUT EN.jsonl ZH.jsonl: Daft's expressions for the same work, as far as they go.

Normalisation, Gopher's counts of words, symbols and lines, MinHash of 128 x 5 words, bands joined, connected components
by repeated minima.  Daft has no repetition statistics, and its words are what stands between spaces: Chinese documents
have hardly any, and most leave as too short.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ |= {"DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "true", "DAFT_PROGRESS_BAR": "0"}

BANDS, ROWS = 16, 8


def main() -> None:
    import daft
    from daft import col
    from daft import functions as f

    out, *files = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    rows = daft.read_json([str(file) for file in files])
    rows = rows.with_column("text", f.normalize(col("text"), nfd_unicode=True, white_space=True))
    words = f.regexp_count(col("text"), r"\S+")
    symbols = f.regexp_count(col("text"), r"#|\.\.\.|…")
    letters = f.regexp_count(col("text"), r"\S*\p{L}\S*")
    rows = rows.where((words >= 50) & (words <= 100_000) & (symbols <= words * 0.1) & (letters >= words * 0.8))
    rows = rows.where(f.regexp_count(col("text"), r"\b(the|be|to|of|and|that|have|with)\b") >= 2)
    rows = rows.with_column("number", f.monotonically_increasing_id())
    rows = rows.with_column("hashes", f.minhash(col("text"), num_hashes=BANDS * ROWS, ngram_size=5, seed=1)).collect()
    remove: set[int] = set()
    for band in range(BANDS):
        key = f.hash(f.slice(col("hashes"), band * ROWS, (band + 1) * ROWS))
        grouped = rows.select(col("number"), key.alias("key")).groupby("key").agg(f.list_agg(col("number")))
        for numbers in grouped.where(f.length(col("number")) > 1).to_pydict()["number"]:
            remove.update(sorted(numbers)[1:])
    kept = rows.where(~col("number").is_in(sorted(remove))) if remove else rows
    kept.select("id", "text").write_parquet(str(out / "kept"))
    print(json.dumps({"kept": kept.count_rows()}))


if __name__ == "__main__":
    main()
