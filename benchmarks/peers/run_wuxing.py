"""python run_wuxing.py OUT EN.jsonl ZH.jsonl: the corpus step in one process; prints the evidence's CPU seconds."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import wuxing.corpus.evidence as evidence
from wuxing.core.context import Context
from wuxing.core.step import Draft
from wuxing.corpus.kind import CorpusKind


def main() -> None:
    out, *files = map(Path, sys.argv[1:])
    spent = 0.0
    examine = evidence.examine

    def timed(*arguments: Any, **named: Any) -> Any:
        nonlocal spent
        start = time.process_time()
        try:
            return examine(*arguments, **named)
        finally:
            spent += time.process_time() - start

    evidence.examine = timed
    out.mkdir(parents=True)
    config = CorpusKind.Config.model_validate(
        {
            "make": "corpus",
            "sources": [{"files": str(file), "name": file.stem} for file in files],
            "clean": ["normalise", "quality", "repetition"],
            "duplicates": {"near_jaccard": 0.8},
            "split": {"validation": 0.01, "test": 0.01},
            "workers": 1,
        }
    )
    draft = Draft(out, "corpus", "benchmark", "benchmark", 7)
    CorpusKind().make(config, {}, draft, Context(home=out / "home"))
    fates = json.loads((out / "fates.json").read_text())
    print(json.dumps({"evidence_seconds": round(spent, 2), "kept": draft.summary["kept"], "fates": fates}))


if __name__ == "__main__":
    main()
