"""A world in which whole training runs take a second: generated text, arithmetic, a tiny tokenizer and models."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.file import write_json
from wuxing.core.record import Record
from wuxing.core.splits import write_records
from wuxing.core.step import Draft, StepKind
from wuxing.data.tokens_kind import TokensKind
from wuxing.task.task_kind import TaskKind
from wuxing.text.train import train_tokenizer
from wuxing.train.model_kind import ModelKind

NOUNS = ("river", "mountain", "city", "painter", "metal", "star", "forest", "king", "engine", "island")
VERBS = ("crosses", "was named after", "lies near", "produced", "is older than", "borders")


def sentences(seed: int, count: int) -> list[str]:
    random = Random(seed)
    return [
        " ".join(
            f"The {random.choice(NOUNS)} {random.choice(VERBS)} the {random.choice(NOUNS)}."
            for _ in range(random.randint(1, 4))
        )
        for _ in range(count)
    ]


def signed(directory: Path, kind: str, name: str, failures: list[str] | None = None) -> Artifact:
    """An artifact whose record is kept in memory only."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    files = {
        str(path.relative_to(directory)): {"sha256": digest_of_file(path), "bytes": path.stat().st_size}
        for path in paths
    }
    record = {"kind": kind, "name": name, "version": 1, "content": f"content of {name}", "files": files}
    return Artifact(directory, {**record, "failures": failures or [], "summary": {}})


def make_in(
    directory: Path, kind: StepKind[Any], config: dict[str, Any], parents: dict[str, Artifact], context: Context
) -> Artifact:
    """One step, in this very directory: a second call goes on from what the first left there."""
    directory.mkdir(parents=True, exist_ok=True)
    draft = Draft(directory, kind.kind, directory.name, "0" * 64, 7)
    kind.make(kind.Config.model_validate({"make": kind.kind, **config}), parents, draft, context)
    write_json(directory / "evidence.json", draft.evidence.to_json())
    write_json(directory / "summary.json", draft.summary)
    return signed(directory, kind.kind, directory.name, draft.evidence.failures(kind.required))


def build_world(root: Path) -> dict[str, Artifact]:
    """Every parent that the runs below read, by name."""
    context = Context(home=root)
    corpora = {}
    for name in ("articles", "dialogues"):
        (root / name).mkdir(parents=True)
        for number, (split, count) in enumerate({"train": 300, "validation": 30, "test": 10}.items()):
            write_records(root / name, split, _records(name, number, count))
        corpora[name] = signed(root / name, "corpus", name)
    words = root / "vocabulary"
    words.mkdir()
    train_tokenizer(sentences(0, 300), 400).save(words)
    vocabulary = signed(words, "tokenizer", "vocabulary")
    task = {"task": "arithmetic", "operations": [{"operation": "add", "high": 30}]}
    task["examples"] = {"train": 60, "validation": 16, "test": 4}
    world = {"vocabulary": vocabulary, "arithmetic": make_in(root / "arithmetic", TaskKind(), task, {}, context)}
    for name in ("articles", "dialogues"):
        parents = {"tokenizer": vocabulary, "data": corpora[name]}
        config = {"tokenizer": "vocabulary", "data": name}
        world[name] = make_in(root / f"{name}.vocabulary", TokensKind(), config, parents, context)
    return world


def _records(name: str, number: int, count: int) -> list[Record]:
    texts = sentences(number + (10 if name == "dialogues" else 0), count)
    if name == "articles":
        return [Record(f"{name}-{number}-{i}", name, text=text) for i, text in enumerate(texts)]
    replies = sentences(number + 20, count)
    return [
        Record(
            f"{name}-{number}-{i}",
            name,
            messages=[{"role": "user", "content": text}, {"role": "assistant", "content": reply}],
        )
        for i, (text, reply) in enumerate(zip(texts, replies, strict=True))
    ]


def base_config(**changes: Any) -> dict[str, Any]:
    """Pretraining on a mixture: 24 steps of 512 positions."""
    config: dict[str, Any] = {
        "architecture": {"size": "60k", "width": 32, "layers": 2, "max_positions": 64},
        "tokenizer": "vocabulary",
        "data": {"articles": 0.75, "dialogues": 0.25},
        "objective": "next_token",
        "length_tokens": 64,
        "batch_tokens": 512,
        "budget": {"steps": 24},
        "validation": {"times": 3, "tokens": 1024},
        "optimizer": {"learning_rate": 0.01},
    }
    return config | changes


def base_parents(world: dict[str, Artifact]) -> dict[str, Artifact]:
    return {
        "tokenizer": world["vocabulary"],
        "data.articles": world["articles"],
        "data.dialogues": world["dialogues"],
    }


def solver_config(**changes: Any) -> dict[str, Any]:
    """Reinforcement learning: 12 steps of 4 prompts with 4 replies."""
    config: dict[str, Any] = {
        "start_from": "base",
        "task": "arithmetic",
        "objective": {"grpo": {"kl": 0.01}},
        "rollout": {"prompts": 4, "group": 4, "reply_tokens": 6, "reward": {"correct": 1.0, "answered": 0.5}},
        "length_tokens": 60,
        "budget": {"steps": 12},
        "validation": {"times": 2, "prompts": 8},
        "optimizer": {"learning_rate": 0.002},
    }
    return config | changes


def train_base(directory: Path, world: dict[str, Artifact], context: Context | None = None, **changes: Any) -> Artifact:
    return make_in(
        directory, ModelKind(), base_config(**changes), base_parents(world), context or Context(home=directory)
    )


def train_solver(
    directory: Path, world: dict[str, Artifact], start: Artifact, context: Context | None = None, **changes: Any
) -> Artifact:
    parents = {"start_from": start, "task": world["arithmetic"]}
    return make_in(directory, ModelKind(), solver_config(**changes), parents, context or Context(home=directory))
