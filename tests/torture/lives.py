"""What the torture trains: a store with tiny data, and lives that between them use every setting of the trainer."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "train"))

from small_run import sentences

from wuxing.commands.kinds import all_kinds
from wuxing.core.recipe import Recipe, build_recipe

STEPS = 30
SPLIT = {"validation": 0.1, "test": 0.05}
PLAIN: dict[str, Any] = {
    "make": "model",
    "architecture": {"size": "60k", "width": 32, "layers": 2, "max_positions": 64},
    "tokenizer": "vocabulary",
    "data": {"articles": 0.75, "dialogues": 0.25},
    "objective": "next_token",
    "length_tokens": 64,
    "batch_tokens": 512,
    "budget": {"steps": STEPS},
    "validation": {"times": 3, "tokens": 1024},
    "optimizer": {"learning_rate": 0.01},
    "save_every_seconds": 1e-6,
}
TUNED: dict[str, Any] = {key: value for key, value in PLAIN.items() if key not in ("architecture", "tokenizer")}
LEAP = [{"after": 0.7, "data": {"strange": 1.0}}, {"after": 0.733, "data": {"articles": 1.0}}]
"""One step of nonsense after 21 of 30: the loss leaps."""
HALVES = {"articles": 0.5, "dialogues": 0.5}
FOLLOW = {"rule": "progress", "times": 6, "tokens": 512}

REWARDS: dict[str, Any] = {
    "make": "model",
    "start_from": "base",
    "task": "arithmetic",
    "objective": {"grpo": {"kl": 0.01}},
    "rollout": {"prompts": 4, "group": 4, "reply_tokens": 6, "reward": {"correct": 1.0, "answered": 0.5}},
    "length_tokens": 60,
    "budget": {"steps": 12},
    "validation": {"times": 2, "prompts": 8},
    "optimizer": {"learning_rate": 0.002},
    "save_every_seconds": 1e-6,
}

LIVES: dict[str, dict[str, Any]] = {
    "muon": PLAIN | {"average": 0.9, "dropout": 0.1, "keep": "best", "keep_for_replay": 2},
    "adamw": PLAIN
    | {
        "optimizer": {"kind": "adamw", "learning_rate": 0.005},
        "freeze": {"names": ["model.embed_tokens.*"], "thaw_every": 0.3},
        "schedule": {"shape": "plateau", "patience": 1},
        "validation": {"times": 10, "tokens": 512},
    },
    "lion": PLAIN
    | {
        "optimizer": {"kind": "lion", "learning_rate": 0.001, "l1": 1e-4, "l2": 1e-2, "embedding_rate": 0.5},
        "phases": [{"after": 0.5, "data": {"dialogues": 1.0}}],
        "curriculum": {"by": "length", "buckets": 4},
        "save_every_seconds": 0.05,
    },
    "adafactor": PLAIN
    | {
        "data": {"articles": 1.0},
        "optimizer": {"kind": "adafactor", "learning_rate": 0.01},
        "schedule": {"shape": "cosine", "warmup_share": 0.2},
        "batch_ramp": [{"until": 0.2, "batch_tokens": 128}, {"until": 0.5, "batch_tokens": 256}],
        "length_ramp": [{"until": 0.3, "length_tokens": 32}],
    },
    "schedule_free": PLAIN
    | {
        "optimizer": {"kind": "schedule_free", "learning_rate": 0.01},
        "schedule": {"shape": "constant"},
        "objective": {"next_token": {"smoothing": 0.1, "z_weight": 1e-3}},
        "keep": "best",
        "stop": {"patience": 2},
        "validation": {"times": 10, "tokens": 512},
        "piece_tokens": 128,
    },
    "rewind": PLAIN
    | {
        "data": {"articles": 1.0, "strange": 0.0},
        "phases": LEAP,
        "guard": {"spike": "rewind", "rewind_steps": 18},
        "schedule": {"shape": "linear"},
        "average": 0.95,
    },
    "skip": PLAIN
    | {
        "data": {"articles": 1.0, "strange": 0.0},
        "phases": LEAP,
        "guard": {"spike": "skip"},
        "schedule": {"shape": "inverse_sqrt"},
        "keep_checkpoints": 1,
    },
    "adjust": PLAIN | {"keep": "best"},
    "chat": TUNED
    | {"start_from": "base", "data": {"dialogues": 1.0}, "dropout": 0.2, "whole_documents": True, "keep_for_replay": 1},
    "grpo": REWARDS,
    "compiled": PLAIN | {"compile": "always", "average": 0.9},
    "mixture": PLAIN | {"data": HALVES, "mixture": FOLLOW, "keep_for_replay": 1},
    "two_ranks": PLAIN | {"average": 0.9, "dropout": 0.1, "keep": "best"},
    "mixed_ranks": PLAIN | {"data": HALVES, "mixture": FOLLOW, "keep_for_replay": 1},
    "sharded": PLAIN | {"sharding": "shard", "average": 0.9, "keep": "best", "keep_for_replay": 2},
    "cut_rewards": REWARDS | {"sharding": "shard", "keep_for_replay": 1},
    "cut_mixture": PLAIN | {"data": HALVES, "mixture": FOLLOW, "sharding": "shard", "keep_for_replay": 1},
}
"""By name.  `adjust` has its knobs turned while it runs."""
RANKS = {"two_ranks": 2, "mixed_ranks": 2, "sharded": 2, "cut_rewards": 2, "cut_mixture": 2}
"""Lives that several processes train."""


def recipe(root: Path, life: str) -> Recipe:
    """The recipe of one life, with all that it stands on."""
    base = PLAIN | {"budget": {"steps": 8}, "data": {"articles": 0.5, "dialogues": 0.3, "strange": 0.2}}
    files = {name: [{"files": str(root / file)}] for name, file in FILES.items()}
    articles = [{**files["articles"][0], "per": "line"}]
    strange = [{**files["strange"][0], "per": "line"}]
    steps = {
        "articles": {"make": "corpus", "sources": articles, "split": SPLIT},
        "dialogues": {"make": "corpus", "sources": files["dialogues"], "split": SPLIT},
        "strange": {"make": "corpus", "sources": strange, "split": SPLIT},
        "arithmetic": {
            "make": "task",
            "task": "arithmetic",
            "operations": [{"operation": "add", "high": 30}],
            "examples": {"train": 60, "validation": 16, "test": 4},
        },
        "vocabulary": {"make": "tokenizer", "corpus": "articles", "vocab_size": 400},
        "base": base,
    }
    if life != "base":
        steps["life"] = {**LIVES[life], "name": life}
    return build_recipe({"name": "torture", "seed": 7, "steps": steps}, all_kinds())


FILES = {"articles": "articles.txt", "dialogues": "dialogues.jsonl", "strange": "strange.txt"}


def write_data(root: Path) -> None:
    """The raw files that the corpora are made of."""
    root.mkdir(parents=True, exist_ok=True)
    numbered = [f"{text} Page {number}." for number, text in enumerate(sentences(0, 400))]
    (root / FILES["articles"]).write_text("\n".join(numbered))
    pairs = zip(sentences(10, 300), sentences(20, 300), strict=True)
    turns = [
        [{"role": "user", "content": f"{question} {number}?"}, {"role": "assistant", "content": reply}]
        for number, (question, reply) in enumerate(pairs)
    ]
    (root / FILES["dialogues"]).write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    draw = Random(5)
    letters = "".join(chr(number) for number in range(0x21, 0x7E))
    (root / FILES["strange"]).write_text("\n".join("".join(draw.choices(letters, k=200)) for _ in range(80)))


def copy_home(base: Path, home: Path) -> None:
    """A store of its own with everything that a life stands on."""
    shutil.copytree(base, home)
