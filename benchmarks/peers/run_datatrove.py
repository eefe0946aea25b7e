"""python run_datatrove.py OUT EN.jsonl ZH.jsonl: Gopher's filters and MinHash as datatrove documents them.

One pipeline per language with that language's tokenizer (spaCy for English, spaCy with jieba for Chinese).  Bounds are
the filters' defaults, but for three of Chinese: length of words, signs among them, stop words.  datatrove has no
Unicode normalisation but ftfy's, so it is spared that work.  Each stage is a process, as in its examples.
"""

from __future__ import annotations

import json
import sys
from multiprocessing import get_context
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.typeshelper import Languages

STOP_WORDS = list("的是了在有不和一人我他這中為之以其而於也上來無何")
BOUNDS = {"en": {}, "zh": {"min_avg_word_length": 1, "max_non_alpha_words_ratio": 0.6, "stop_words": STOP_WORDS}}
LANGUAGES = {"en": Languages.english, "zh": Languages.mandarin_chinese}
CONFIG = MinhashConfig(hash_config=HashConfig(precision=64), n_grams=5, num_buckets=14, hashes_per_bucket=8)


def run(out: Path, file: Path) -> None:
    name, language = file.stem, LANGUAGES[file.stem]
    base = str(out / name)
    clean = [
        JsonlReader(str(file.parent), glob_pattern=file.name),
        GopherRepetitionFilter(language=language),
        GopherQualityFilter(language=language, **BOUNDS[name]),
        JsonlWriter(f"{base}/clean", compression=None),
    ]
    signatures = MinhashDedupSignature(f"{base}/signatures", config=CONFIG, language=language)
    kept = JsonlWriter(f"{base}/kept", compression=None)
    stages = [
        (clean, 1),
        ([JsonlReader(f"{base}/clean"), signatures], 1),
        ([MinhashDedupBuckets(f"{base}/signatures", f"{base}/buckets", config=CONFIG)], CONFIG.num_buckets),
        ([MinhashDedupCluster(f"{base}/buckets", f"{base}/remove", config=CONFIG)], 1),
        ([JsonlReader(f"{base}/clean"), MinhashDedupFilter(f"{base}/remove"), kept], 1),
    ]
    for number, (pipeline, tasks) in enumerate(stages):
        stage = LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{base}/logs/{number}")
        process = get_context("fork").Process(target=stage.run)
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"stage {number} of {name} failed")


def main() -> None:
    out, *files = map(Path, sys.argv[1:])
    for file in files:
        run(out, file)
    kept = sum(1 for path in out.glob("*/kept/*.jsonl") for _ in path.open(encoding="utf-8"))
    print(json.dumps({"kept": kept}))


if __name__ == "__main__":
    main()
