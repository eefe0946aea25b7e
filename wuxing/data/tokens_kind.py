"""The step kind `tokens`: a corpus or task, encoded once, that any number of models reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import RefusedError
from wuxing.core.file import write_json
from wuxing.core.record import Fates
from wuxing.core.step import Draft, Parent, StepConfig, StepKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wuxing.data.shard import Task
    from wuxing.text.tokenizer import Tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
DATA_FILES = ("train.parquet", "validation.parquet", "test.parquet")
SPLITS = ("train", "validation", "test")
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
"""Row lengths for which the evidence says what would be cut."""
FEWEST_POOLED = 4
"""Shards with rows from which on starting processes pays."""
SHARD_KEYS = ("number", "leads", "ids", "documents", "masked", "digests")
SHARD_BYTES = 32 << 20
"""Of a split's rows, as Parquet counts them, in one shard: what a kill loses at most, and what a worker takes."""


class TokensConfig(StepConfig):
    """Which text, in which alphabet."""

    tokenizer: str
    """A tokenizer, or a model whose tokenizer is used."""
    data: str
    """The corpus or task to encode."""
    scores: tuple[str, ...] = ()
    """Numbers of the records' meta that are kept beside their documents, for a curriculum."""


class TokensKind(StepKind[TokensConfig]):
    """Encodes every split; dialogues with everything but the assistant's words masked."""

    kind = "tokens"
    Config = TokensConfig
    code = 2
    libraries = ("tokenizers", "numpy")
    required = ("fates_sum", "counts_equal", "ids_in_vocabulary", "round_trip", "taught_share", "cut_at_length")
    resumable = True

    def parents(self, config: TokensConfig) -> Mapping[str, Parent]:
        return {
            "tokenizer": Parent(config.tokenizer, ("tokenizer", "model"), TOKENIZER_FILES),
            "data": Parent(config.data, ("corpus", "task", "augmentation"), DATA_FILES),
        }

    def make(self, config: TokensConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        from wuxing.data.tokens import DESCRIPTION, REJECTED
        from wuxing.text.tokenizer import Tokenizer

        tokenizer, data = Tokenizer.load(parents["tokenizer"].path), parents["data"]
        if isinstance(tokenizer.fast, str):
            context.progress.say(f"{draft.name}: the library tokenizers encodes, slower, because {tokenizer.fast}")
        tasks = list(_tasks(config, data, draft.path))
        notes: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        earlier = _earlier(draft, tokenizer, context)
        rows = {split: _rows(data.file(f"{split}.parquet")) for split in SPLITS}
        with context.progress.bar(f"{draft.name}: encode", sum(rows.values())) as bar:
            for task, note in zip(tasks, _notes(tasks, parents["tokenizer"].path, earlier, context), strict=True):
                notes[task.split].append(note)
                bar.advance(note["rows"])
        splits = {split: _counts(found) for split, found in notes.items()}
        _refuse_silence(data, splits)
        worse = {
            f"{split}{REJECTED}": _counts([{"counts": note["rejected"]} for note in found if note["rejected"]])
            for split, found in notes.items()
            if any(note["rejected"] for note in found)
        }
        write_json(draft.file(DESCRIPTION), _description(config, data, tokenizer, splits | worse))
        _refuse_unknown(config, data, draft.path)
        _judge(draft, rows, splits, notes, tokenizer.vocab_size)
        totals = {key: sum(counts[key] for counts in splits.values()) for key in ("documents", "tokens", "taught")}
        reused = sum(note.get("reused", 0) for found in notes.values() for note in found)
        draft.summary.update({"documents": totals.pop("documents"), **({"reused": reused} if reused else {})})
        draft.summary.update(totals, share_taught=round(totals["taught"] / max(1, totals["tokens"]), 3))


def _rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _tasks(config: TokensConfig, data: Artifact, directory: Path) -> Iterator[Task]:
    """Neighbouring row groups together, up to SHARD_BYTES; every split has a shard, be it empty."""
    import pyarrow.parquet as pq

    from wuxing.data.shard import Task

    for split in SPLITS:
        source = data.file(f"{split}.parquet")
        groups = pq.read_metadata(source)
        first, held, number = 0, 0, 0
        for group in range(groups.num_row_groups):
            size = groups.row_group(group).total_byte_size
            if held and held + size > SHARD_BYTES:
                yield Task(source, (first, group), directory, split, number, config.scores)
                first, held, number = group, 0, number + 1
            held += size
        yield Task(source, (first, groups.num_row_groups), directory, split, number, config.scores)


def _earlier(draft: Draft, tokenizer: Tokenizer, context: Context) -> Path | None:
    """The version of this artifact whose documents may be copied."""
    from wuxing.core.store import Store
    from wuxing.data.earlier import newest_usable

    versions = [artifact.path for artifact in Store(context.home).versions(draft.kind, draft.name)]
    return newest_usable(versions, tokenizer.digest, tokenizer.template_digest)


class _Encode:
    """What makes a shard, with what all shards need; memory that one took is given back before the next."""

    def __init__(self, tokenizer: Path, earlier: Path | None):
        from wuxing.data.earlier import Earlier
        from wuxing.text.tokenizer import Tokenizer

        self._tokenizer, self._earlier = Tokenizer.load(tokenizer), Earlier(earlier) if earlier else None

    def __call__(self, task: Task) -> dict[str, Any]:
        from wuxing.core.memory import giving_memory_back
        from wuxing.data.shard import make_shard

        with giving_memory_back():
            return make_shard(task, self._tokenizer, self._earlier)


def _notes(tasks: list[Task], tokenizer: Path, earlier: Path | None, context: Context) -> Iterator[dict[str, Any]]:
    """The shards' notes in order; made in this process when they are few, else in a pool."""
    from wuxing.core.pool import ordered_map

    large = sum(task.groups[1] > task.groups[0] for task in tasks)
    workers = min(context.workers, large) if large >= FEWEST_POOLED else 1
    for note in ordered_map(_Encode, (tokenizer, earlier), tasks, workers):
        yield note
        context.stop.leave("finished shards are kept")


def _counts(notes: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of a split, and its shards."""
    from wuxing.core.digest import digest_of

    shards = [note["counts"] for note in notes]
    keys = ("documents", "tokens", "taught", "bytes", "fully_masked")
    return {
        **{key: sum(shard[key] for shard in shards) for key in keys},
        "no_text": sum(note.get("no_text", 0) for note in notes),
        "largest": max((shard["largest"] for shard in shards), default=0),
        "digest": digest_of([shard["digests"] for shard in shards]),
        "shards": [{key: s[key] for key in SHARD_KEYS} for s in shards],
    }


def _description(
    config: TokensConfig, data: Artifact, tokenizer: Tokenizer, splits: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    from wuxing.data.shard import dtype_of
    from wuxing.data.tokens import FORMAT

    return {
        "format": FORMAT,
        "data": {"id": data.id, "content": data.content},
        "tokenizer": tokenizer.digest,
        "template": tokenizer.template_digest,
        "vocab_size": tokenizer.vocab_size,
        "end_of_text_id": tokenizer.end_of_text_id,
        "dtype": dtype_of(tokenizer.vocab_size),
        "scores": list(config.scores),
        "splits": {split: {k: v for k, v in counts.items() if k != "largest"} for split, counts in splits.items()},
    }


def _refuse_silence(data: Artifact, splits: dict[str, dict[str, Any]]) -> None:
    for split, counts in splits.items():
        if counts["no_text"] and not counts["documents"]:
            raise RefusedError(
                f"{data.id} ({split}) holds no text: a tokenizer has nothing to encode",
                "Tokens are for records with text or messages; images and sounds go to tasks of their own",
            )
        if counts["documents"] and not counts["taught"]:
            raise RefusedError(
                f"every label of {data.id} ({split}) is masked: a model could learn nothing from it",
                "Its dialogues need a turn of the role assistant, in words of the tokenizer's chat template",
            )


def _refuse_unknown(config: TokensConfig, data: Artifact, directory: Path) -> None:
    """A number that no record has is a slip of the pen."""
    import numpy as np

    for name in config.scores:
        known = [not np.isnan(part).all() for part in _index(directory, "train", f"score.{name}") if len(part)]
        if known and not any(known):
            raise RefusedError(f'no record of {data.id} has a number "{name}" in its meta', "Order by another one")


def _index(directory: Path, split: str, name: str) -> Iterator[NDArray[Any]]:
    """One column of a split's index, a shard at a time: the whole would grow with the corpus."""
    import pyarrow.parquet as pq

    for path in sorted((directory / split).glob("*.parquet")):
        yield pq.read_table(path, columns=[name]).column(0).to_numpy()


def _judge(
    draft: Draft,
    rows: dict[str, int],
    splits: dict[str, dict[str, Any]],
    notes: dict[str, list[dict[str, Any]]],
    vocab_size: int,
) -> None:
    evidence = draft.evidence
    fates = Fates(sum(rows.values()))
    for counts in splits.values():
        fates.count("kept", counts["documents"] - counts["fully_masked"])
        fates.count("fully_masked", counts["fully_masked"])
        fates.count("no_text", counts["no_text"])
    fates.counts = +fates.counts
    fates.judge(evidence)
    write_json(draft.file("fates.json"), fates.to_json())
    documents = {split: counts["documents"] + counts["no_text"] for split, counts in splits.items()}
    evidence.judge("counts_equal", documents == rows, documents, rows, "documents encoded, records of the data")
    largest = max(counts["largest"] for counts in splits.values())
    evidence.judge("ids_in_vocabulary", largest < vocab_size, largest, f"< {vocab_size}", "largest id")
    unequal = [name for found in notes.values() for note in found for name in note["unequal"]]
    evidence.judge("round_trip", not unequal, unequal[:5], [], "documents that decode to another text")
    tokens, taught = (sum(counts[key] for counts in splits.values()) for key in ("tokens", "taught"))
    share = taught / max(1, tokens)
    evidence.judge("taught_share", taught > 0, round(share, 4), "> 0", "ids whose prediction is taught, of all")
    masked = sum(counts["fully_masked"] for counts in splits.values())
    evidence.measure("fully_masked", masked, "documents without a label that teaches: training leaves them out")
    beyond = _beyond(draft.path)
    cut = {str(length): round(ids / max(1, tokens), 4) for length, ids in beyond.items()}
    evidence.measure("cut_at_length", cut, "share of ids beyond the first N of their document")


def _beyond(directory: Path) -> dict[int, int]:
    """For each row length the ids that stand beyond the first so many of their document."""
    import numpy as np

    beyond = dict.fromkeys(LENGTHS, 0)
    for split in SPLITS:
        for sizes in _index(directory, split, "tokens"):
            for length in LENGTHS:
                beyond[length] += int(np.maximum(sizes - length, 0).sum())
    return beyond
