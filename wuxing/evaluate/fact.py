"""Everything a report tells, read from the records of the store: nothing in it is typed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError, nearest
from wuxing.core.file import read_json, read_lines
from wuxing.evaluate.lineage import find_artifact
from wuxing.evaluate.sample import read_rows

Point = tuple[float, float]


@dataclass(frozen=True)
class ModelFacts:
    """One model of the evaluation and how it came to be."""

    name: str
    artifact: Artifact
    metrics: dict[str, dict[str, float]]
    details: dict[str, dict[str, Any]]
    training: dict[str, Any]
    """`training.json`."""
    curves: dict[str, list[Point]] = field(default_factory=dict)
    """Name of a logged figure → its course: (tokens seen so far, or steps of reinforcement learning; value)."""

    @property
    def objective(self) -> str:
        """`next_token`, `grpo`, …"""
        return next(iter(self.training.get("objective", {})), "")

    @property
    def by_tokens(self) -> bool:
        """Whether its courses are drawn over tokens: reinforcement learning is told by steps."""
        return self.objective != "grpo"

    @property
    def start(self) -> str | None:
        """Id of the model it went on from."""
        return self.artifact.parents.get("start_from")

    @property
    def data(self) -> list[str]:
        """Ids of what it learnt from itself, without what it inherited."""
        seen = self.training.get("lineage", {}).get("data", [])
        return sorted({entry["id"] for entry in seen if entry["by"] == self.artifact.name})

    def figure(self, name: str) -> Any:
        """A headline figure of its training, or None."""
        return self.artifact.record["summary"].get(name)


@dataclass(frozen=True)
class CorpusFacts:
    """A corpus or a task: how much came in and what became of it; `kept` first, then the commonest."""

    artifact: Artifact
    total: int
    fates: dict[str, int]
    rows: dict[str, int]
    """Rows per split."""


@dataclass
class Facts:
    """All of it."""

    evaluation: Artifact
    results: dict[str, Any]
    models: list[ModelFacts]
    corpora: list[CorpusFacts]
    tokenizers: list[Artifact]
    ancestors: dict[str, Artifact]
    """Id → artifact, for everything the evaluation stands on, itself included, in order of making."""
    missing: list[str] = field(default_factory=list)

    @property
    def recipe(self) -> str:
        """Name of the recipe that made the evaluation."""
        return str(self.evaluation.record.get("recipe", {}).get("name", "")) or self.evaluation.name

    def samples(self, model: str, set: str) -> list[dict[str, Any]]:
        """The stored samples of a model on a task or corpus."""
        return read_rows(self.evaluation.path / f"samples/{model}--{set}.jsonl")


def collect(home: Path, evaluation: Artifact, models: tuple[str, ...] = (), corpora: tuple[str, ...] = ()) -> Facts:
    """Read the records and files of an evaluation and of all that it stands on.

    `models` and `corpora` choose by name; UsageError when one of them is not there.
    """
    results = read_json(evaluation.path / "results.json")
    ancestors, missing = _ancestors(home, evaluation)
    _check_names("model", models, results["models"])
    chosen = {name: value for name, value in results["models"].items() if not models or name in models}
    data = [artifact for artifact in ancestors.values() if artifact.kind in ("corpus", "task")]
    _check_names("corpus", corpora, [artifact.name for artifact in data])
    return Facts(
        evaluation=evaluation,
        results=results,
        models=[
            _model(name, ancestors[value["id"]], value) for name, value in chosen.items() if value["id"] in ancestors
        ],
        corpora=[_corpus(artifact) for artifact in data if not corpora or artifact.name in corpora],
        tokenizers=[artifact for artifact in ancestors.values() if artifact.kind == "tokenizer"],
        ancestors=ancestors,
        missing=missing,
    )


def _check_names(kind: str, asked: tuple[str, ...], known: Any) -> None:
    for name in asked:
        if name not in known:
            raise UsageError(f'the evaluation has no {kind} "{name}"', nearest(name, known))


def _ancestors(home: Path, evaluation: Artifact) -> tuple[dict[str, Artifact], list[str]]:
    found, missing, queue = {evaluation.id: evaluation}, set[str](), [evaluation]
    while queue:
        for id in queue.pop().parents.values():
            if id in found or id in missing:
                continue
            artifact = find_artifact(home, id)
            if artifact is None:
                missing.add(id)
            else:
                found[id] = artifact
                queue.append(artifact)
    ordered = sorted(found.values(), key=lambda artifact: (str(artifact.record.get("created", "")), artifact.id))
    return {artifact.id: artifact for artifact in ordered}, sorted(missing)


def _model(name: str, artifact: Artifact, result: dict[str, Any]) -> ModelFacts:
    training = artifact.path / "training.json"
    found = ModelFacts(
        name=name,
        artifact=artifact,
        metrics=result["metrics"],
        details=result["details"],
        training=read_json(training) if training.exists() else {},
    )
    found.curves.update(read_curves(artifact.path / "log.jsonl", found.by_tokens))
    return found


def read_curves(path: Path, by_tokens: bool) -> dict[str, list[Point]]:
    """Every number of a training log as a course over the tokens seen so far, or over the steps."""
    seen, curves = 0.0, dict[str, list[Point]]()
    for row in read_lines(path):
        seen = seen + row.get("tokens", 0) if by_tokens else float(row["step"])
        for name, value in _numbers(row):
            curves.setdefault(name, []).append((seen, value))
    return curves


def _numbers(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + key, float(value)


def _corpus(artifact: Artifact) -> CorpusFacts:
    import pyarrow.parquet as pq

    fates = artifact.path / "fates.json"
    counted: dict[str, Any] = read_json(fates) if fates.exists() else {"total": 0, "counts": {}}
    rows = {
        split: pq.read_metadata(artifact.path / f"{split}.parquet").num_rows
        for split in ("train", "validation", "test")
        if (artifact.path / f"{split}.parquet").exists()
    }
    fates_of = dict(sorted(counted["counts"].items(), key=lambda fate: fate[0] != "kept"))
    return CorpusFacts(artifact, int(counted["total"]), fates_of, rows)
