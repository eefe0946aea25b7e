"""Samples on disk: what every model said to every problem and how well it predicted every document, one line each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wuxing.core.file import read_lines, write_text
from wuxing.evaluate.subject import Said, Score
from wuxing.task.task import Example, StoredTask


def reply_rows(
    task: StoredTask, examples: Sequence[Example], replies: Sequence[Said], judged: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    """One row per problem of a task."""
    return [
        {
            "id": example.id,
            "prompt": task.prompt(example),
            "reply": said.text,
            "answer": task.answer(example),
            "score": score,
            "mean_logprob": said.mean_logprob,
            "tokens": said.reply_tokens,
            "finish": said.finish,
            "slice": task.slice(example),
        }
        for example, said, score in zip(examples, replies, judged, strict=True)
    ]


def document_rows(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """One row per document of a corpus."""
    return [{"id": one.id, "nats": one.nats, "tokens": one.tokens, "bytes": one.bytes} for one in scores]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSON-lines file."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read it back."""
    return read_lines(path)
