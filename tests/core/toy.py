"""Small step kinds with which the executor is tested; run as a script it is a real process that can be killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.file import append_line, read_lines, write_json, write_text
from wuxing.core.recipe import Recipe, build_recipe
from wuxing.core.run import Outcome, run
from wuxing.core.step import Config, Draft, Parent, StepConfig, StepKind, plumbing
from wuxing.core.store import Store


class Letters(Config):
    small: str = "abc"
    """Letters to write."""


class TextConfig(StepConfig):
    text: str
    """What to write."""
    letters: Letters = Letters()
    upper: bool = False
    """Whether to write it in capitals."""
    workers: int = plumbing(1)
    """How many hands write."""


class TextKind(StepKind[TextConfig]):
    kind = "text"
    Config = TextConfig
    required = ("not_empty",)
    volatile = ("log.jsonl",)

    def make(self, config: TextConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        text = config.text.upper() if config.upper else config.text
        write_text(draft.file("text.txt"), text)
        append_line(draft.file("log.jsonl"), {"time": time.time()})
        if text != "no evidence":
            draft.evidence.judge("not_empty", bool(text), len(text), "> 0")
        if text == "disk full":
            with open("/dev/full", "w") as device:
                device.write("x" * 100_000)
        draft.summary["letters"] = len(text)


class JoinConfig(StepConfig):
    of: list[str]
    """The steps to join."""
    pieces: int = 1
    """How often, a piece at a time."""
    pause_seconds: float = plumbing(0.0)
    promote: bool = False


class JoinKind(StepKind[JoinConfig]):
    """Appends a line per piece; goes on after a kill where its file ends."""

    kind = "join"
    Config = JoinConfig
    volatile = ("starts.jsonl",)
    resumable = True

    def parents(self, config: JoinConfig) -> Mapping[str, Parent]:
        return {f"of.{i}": Parent(name, ("text", "join"), ("*.txt",)) for i, name in enumerate(config.of)}

    def content(self, config: JoinConfig) -> dict[str, Any]:
        return {"pieces": config.pieces, "promote": config.promote}

    def make(self, config: JoinConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        whole = "".join(parent.file("text.txt").read_text() for _, parent in sorted(parents.items()))
        append_line(draft.file("starts.jsonl"), {"time": time.time()})
        pieces = draft.file("pieces.jsonl")
        for i in range(len(read_lines(pieces)), config.pieces):
            context.stop.leave(f"{i} pieces are saved")
            append_line(pieces, [i, whole])
            time.sleep(config.pause_seconds)
        write_text(draft.file("text.txt"), whole)
        write_json(draft.file("count.json"), len(read_lines(pieces)))
        draft.evidence.judge("all_pieces", len(read_lines(pieces)) == config.pieces, config.pieces)
        if config.promote:
            draft.summary["promote"] = {"alias": "production"}


KINDS = {"text": TextKind, "join": JoinKind}


def recipe(steps: Mapping[str, Mapping[str, Any]], seed: int = 7) -> Recipe:
    return build_recipe({"name": "toy", "seed": seed, "steps": {k: dict(v) for k, v in steps.items()}}, KINDS)


def make(home: Path, steps: Mapping[str, Mapping[str, Any]], **options: Any) -> Outcome:
    return run(recipe(steps), Store(home), Context(home=home), **options)


LONG = {
    "a": {"make": "text", "text": "first"},
    "b": {"make": "join", "of": ["a"], "pieces": 40, "pause_seconds": 0.005},
    "c": {"make": "join", "of": ["a", "b"], "pieces": 40, "pause_seconds": 0.005},
}

if __name__ == "__main__":
    pause = {"pause_seconds": float(sys.argv[2])} if len(sys.argv) > 2 else {}
    make(
        Path(sys.argv[1]), {name: {**step, **(pause if step["make"] == "join" else {})} for name, step in LONG.items()}
    )
