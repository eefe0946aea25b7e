"""A small world to evaluate in: a corpus, a task, a tokenizer and models of a few thousand parameters, all signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file, digest_of_files
from wuxing.core.file import write_json
from wuxing.core.record import Record
from wuxing.core.step import Draft, StepKind

PEOPLE = ["Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Henry", "Irene", "Jonas"]
CITIES = ["Lisbon", "Vienna", "Oslo", "Prague", "Dublin", "Athens", "Warsaw", "Berne"]
TRADES = ["baker", "painter", "teacher", "sailor", "doctor", "farmer", "singer"]
ARITHMETIC: dict[str, Any] = {
    "make": "task",
    "task": "arithmetic",
    "operations": [{"operation": "add", "high": 12}, {"operation": "subtract", "high": 12}],
    "examples": {"train": 300, "validation": 8, "test": 30},
}


def stories(count: int, seed: str) -> list[Record]:
    """Short documents of a regular little world; no two are equal."""
    records, seen = [], set[str]()
    random = Random(seed)
    while len(records) < count:
        people = random.sample(PEOPLE, 3)
        lines = [f"{one} is a {random.choice(TRADES)} who lives in {random.choice(CITIES)}." for one in people]
        text = " ".join([*lines, f"{people[0]} knows {people[1]} and {people[2]}."])
        if text not in seen:
            seen.add(text)
            records.append(Record(f"{seed}-{len(records)}", "world", text))
    return records


class Shelf:
    """A home whose artifacts are made and signed without the executor, as the store would lay them."""

    def __init__(self, home: Path):
        self.home = home
        self.context = Context(home=home)

    def sign(
        self,
        draft: Draft,
        parents: Mapping[str, Artifact] | None = None,
        required: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> Artifact:
        write_json(draft.path / "evidence.json", draft.evidence.to_json())
        write_json(draft.path / "summary.json", draft.summary)
        found = sorted(path for path in draft.path.rglob("*") if path.is_file())
        files = {
            path.relative_to(draft.path).as_posix(): {"sha256": digest_of_file(path), "bytes": path.stat().st_size}
            for path in found
        }
        record = {
            "kind": draft.kind,
            "name": draft.name,
            "version": int(draft.path.name[1:]),
            "fingerprint": draft.fingerprint,
            "content": digest_of_files({name: entry["sha256"] for name, entry in files.items()}),
            "config": dict(config or {}),
            "parents": {role: {"id": parent.id, "content": parent.content} for role, parent in (parents or {}).items()},
            "files": files,
            "failures": draft.evidence.failures(required),
            "summary": draft.summary,
            "created": f"2026-01-01T00:00:{len(list(self.home.rglob('record.json'))):02d}+00:00",
            "seconds": 1.5,
            "environment": {"packages": {}, "commit": None},
        }
        write_json(draft.path / "record.json", record)
        return Artifact(draft.path, record)

    def draft(self, kind: str, name: str) -> Draft:
        directory = self.home / kind / name
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"v{len(list(directory.iterdir())) + 1}"
        path.mkdir()
        return Draft(path, kind, name, "0" * 64, 7)

    def make(
        self, kind: StepKind[Any], name: str, config: Mapping[str, Any], parents: Mapping[str, Artifact] | None = None
    ) -> Artifact:
        draft, values = self.draft(kind.kind, name), kind.Config.model_validate({"make": kind.kind, **config})
        kind.make(values, parents or {}, draft, self.context)
        return self.sign(draft, parents, kind.required, values.model_dump(mode="json"))

    def corpus(self, name: str, splits: Mapping[str, Sequence[Record]]) -> Artifact:
        from wuxing.core.splits import write_records

        draft = self.draft("corpus", name)
        for split in ("train", "validation", "test"):
            write_records(draft.path, split, splits.get(split, ()))
        kept = sum(map(len, splits.values()))
        write_json(draft.path / "fates.json", {"total": kept + 3, "counts": {"kept": kept, "duplicate": 3}})
        draft.evidence.judge("fates_sum", True, kept + 3, kept + 3)
        return self.sign(draft)

    def model(self, name: str, network: Any, tokenizer: Any, parents: Mapping[str, Artifact]) -> Artifact:
        from wuxing.model.files import save_network

        draft = self.draft("model", name)
        save_network(network, draft.path)
        tokenizer.save(draft.path)
        draft.evidence.judge("finite", True, True)
        return self.sign(draft, parents)


def trained(tokenizer: Any, records: Sequence[Record], steps: int, seed: int = 1) -> Any:
    """A tiny network after `steps` plain AdamW steps on documents that begin and end with an end-of-text."""
    import torch
    import torch.nn.functional as F

    from wuxing.model.architecture import Architecture, resolve
    from wuxing.model.network import Network

    architecture = Architecture(size="100k", width=64, layers=2, heads=2, kv_heads=1, max_positions=128)
    network = Network(resolve(architecture, tokenizer.vocab_size)).initialise(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    end = tokenizer.end_of_text_id
    rows = [[end, *_ids(tokenizer, record), end][:96] for record in records]
    for step in range(steps):
        chosen = [rows[(step * 16 + place) % len(rows)] for place in range(16)]
        width = max(map(len, chosen))
        tokens = torch.tensor([row + [end] * (width - len(row)) for row in chosen])
        loss = F.cross_entropy(network(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return network


def _ids(tokenizer: Any, record: Record) -> list[int]:
    return tokenizer.encode(record.text) if record.text else tokenizer.encode_dialogue(record.messages)[0]


EVALUATION: dict[str, Any] = {
    "make": "evaluation",
    "models": ["early", "late"],
    "corpus": "articles",
    "tasks": ["arithmetic"],
    "documents": 30,
    "items": 20,
    "max_tokens": 8,
    "reference": {"prompts": 10, "max_tokens": 8},
}


def evaluation_parents(made: Mapping[str, Artifact]) -> dict[str, Artifact]:
    return {
        "models.0": made["early"],
        "models.1": made["late"],
        "corpus": made["articles"],
        "tasks.0": made["arithmetic"],
    }
