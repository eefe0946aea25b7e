"""python run_data_juicer.py OUT EN.jsonl ZH.jsonl: data-juicer's operators for the same work.

One process and one recipe per language, for the operators take their language as a parameter.  Operators that download
a model or word list when they start (stop words, sentencepiece) are left out; so is ftfy (fix_unicode_mapper), which
costs it more than all the rest.  Chinese is split into characters by the deduplicator, as its documentation advises.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def recipe(out: Path, file: Path) -> dict:
    chinese = file.stem == "zh"
    lang = {"lang": file.stem, "tokenization": False}
    repetition = (
        [{"character_repetition_filter": {"rep_len": 10, "max_ratio": 0.5}}]
        if chinese
        else [
            {"character_repetition_filter": {"rep_len": 10, "max_ratio": 0.5}},
            {"word_repetition_filter": {**lang, "rep_len": 5, "max_ratio": 0.5}},
            {"word_repetition_filter": {**lang, "rep_len": 10, "max_ratio": 0.5}},
        ]
    )
    length = (
        [{"text_length_filter": {"min_len": 50, "max_len": 100_000}}]
        if chinese
        else [{"words_num_filter": {**lang, "min_num": 50, "max_num": 100_000}}]
    )
    minhash = {"tokenization": "character" if chinese else "space", "window_size": 5, "num_permutations": 128}
    return {
        "project_name": file.stem,
        "dataset_path": str(file),
        "export_path": str(out / f"{file.stem}.jsonl"),
        "work_dir": str(out / file.stem),
        "np": 1,
        "use_cache": False,
        "open_tracer": False,
        "open_monitor": False,
        "auto_op_parallelism": False,
        "process": [
            {"whitespace_normalization_mapper": {}},
            *length,
            {"alphanumeric_filter": {"tokenization": False, "min_ratio": 0.25}},
            {"average_line_length_filter": {"min_len": 5}},
            {"special_characters_filter": {"max_ratio": 0.5}},
            *repetition,
            {"document_deduplicator": {"lowercase": True}},
            {"document_minhash_deduplicator": {**minhash, "jaccard_threshold": 0.8, "lowercase": True}},
        ],
    }


def main() -> None:
    out, *files = map(Path, sys.argv[1:])
    from data_juicer.config import init_configs
    from data_juicer.core import DefaultExecutor

    kept = 0
    for file in files:
        made = recipe(out, file)
        path = out / f"{file.stem}.recipe.json"
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made, ensure_ascii=False))
        yaml = path.with_suffix(".yaml")
        yaml.write_text(path.read_text())  # JSON is YAML
        DefaultExecutor(init_configs(["--config", str(yaml)])).run()
        with Path(made["export_path"]).open(encoding="utf-8") as lines:
            kept += sum(1 for _ in lines)
    print(json.dumps({"kept": kept}), file=sys.__stdout__)  # data-juicer takes sys.stdout for its log


if __name__ == "__main__":
    main()
