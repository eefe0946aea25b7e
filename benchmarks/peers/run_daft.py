"""python run_daft.py OUT EN.jsonl ZH.jsonl: Daft's expressions for the same work, as far as they go.

Normalisation, Gopher's counts of words, symbols and lines, MinHash of 128 x 5 words, bands joined, connected components
by repeated minima.  Daft has no repetition statistics.  Its MinHash takes what stands between spaces for words; regular
expressions make its counts those of Chinese characters, so that Chinese documents stay and the work is the same.
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
    words = f.regexp_count(col("text"), r"\p{Han}|[^\s\p{Han}]+")
    han = f.regexp_count(col("text"), r"\p{Han}")
    symbols = f.regexp_count(col("text"), r"#|\.\.\.|…")
    letters = han + f.regexp_count(col("text"), r"[^\s\p{Han}]*[\p{L}--\p{Han}][^\s\p{Han}]*")
    rows = rows.where((words >= 50) & (words <= 100_000) & (symbols <= words * 0.1) & (letters >= words * 0.8))
    stops = f.regexp_count(
        col("text"), r"\b(the|be|to|of|and|that|have|with)\b|[的是了在有不和一人我他之以其而也上無何]"
    )
    rows = rows.where(stops >= 2)
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
