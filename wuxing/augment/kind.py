"""The step kind `augmentation`: a corpus with more records to train on, and the same ones held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from wuxing.augment.config import AugmentationConfig, Paraphrase
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.record import Fates
from wuxing.core.step import Draft, Parent, StepKind

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow

    from wuxing.augment.worker import Fate

MEMBERS = ("train.parquet", "validation.parquet", "test.parquet")
POOL_FROM_BYTES = 32 << 20
"""Smaller train splits are worked on in this process: a pool's start costs more than it gains."""


class AugmentationKind(StepKind[AugmentationConfig]):
    """Writes the three splits, the fates, `changed.parquet` with samples, `operations.json`, a page to look at."""

    kind: ClassVar[str] = "augmentation"
    Config = AugmentationConfig
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "pillow", "soundfile", "soxr")
    required: ClassVar[tuple[str, ...]] = (
        "fates_sum",
        "held_out_untouched",
        "held_out_apart",
        "replay_equal",
        "labels_kept",
        "ids_unique",
        "changed",
    )
    volatile: ClassVar[tuple[str, ...]] = ("report.html", "report.zh.html")

    def parents(self, config: AugmentationConfig) -> Mapping[str, Parent]:
        """The corpus; only its records decide the result."""
        return {"data": Parent(config.data, ("corpus", "task"), MEMBERS)}

    def make(self, config: AugmentationConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        """Copy what is held out, write the train split batch by batch, check."""
        import shutil

        from wuxing.augment.evidence import examine
        from wuxing.augment.page import write_page
        from wuxing.augment.sample import write_samples
        from wuxing.augment.worker import prepare
        from wuxing.core.file import write_json

        data, work = parents["data"].path, draft.path / ".work"
        for split in ("validation", "test"):
            shutil.copyfile(data / f"{split}.parquet", draft.file(f"{split}.parquet"))
        prepare(data, config, draft.seed, work)
        replies = replies_file(config, context, work)
        told = _write_train(config, data, draft, work, replies, context)
        fates = told.fates
        if not fates.counts["augmented"]:
            raise _nothing(config, draft, fates)
        write_json(draft.file("fates.json"), fates.to_json())
        write_json(draft.file("operations.json"), dict(sorted(told.operations.items())))
        if any(isinstance(step.operation, Paraphrase) for step in config.steps):
            shutil.copyfile(replies, draft.file("replies.jsonl"))
        with context.progress.bar("checking the augmentation"):
            examine(draft.path, parents["data"], config, draft.seed, fates, work, replies, draft.evidence)
        write_samples(draft.path, data, told.sampled)
        draft.summary.update(_summary(fates, told))
        write_page(draft, config, data, told.sampled, told.operations, fates)
        shutil.rmtree(work)


@dataclass
class Told:
    """What the writing of the train split counted."""

    fates: Fates = field(default_factory=Fates)
    operations: Counter[str] = field(default_factory=Counter)
    """How many copies each operation changed."""
    train: int = 0
    sampled: list[str] = field(default_factory=list)
    """Ids of some copies, to look at."""


def replies_file(config: AugmentationConfig, context: Context, work: Path) -> Path:
    """Where a model's replies are kept: in the cache, so that a killed step does not ask again."""
    from wuxing.core.digest import digest_of
    from wuxing.core.step import content_of

    asks = [content_of(step.operation) for step in config.steps if isinstance(step.operation, Paraphrase)]
    if not asks:
        return work / "replies.jsonl"
    directory = context.cache_directory / "replies"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{digest_of(asks)[:16]}.jsonl"
    path.touch()
    return path


def _write_train(
    config: AugmentationConfig, data: Path, draft: Draft, work: Path, replies: Path, context: Context
) -> Told:
    from wuxing.augment.sample import Sampler
    from wuxing.augment.worker import start
    from wuxing.core.pool import ordered_map
    from wuxing.core.splits import SplitWriter, corpus_schema, split_path

    told, sampler = Told(), Sampler()
    small = split_path(data, "train").stat().st_size < POOL_FROM_BYTES and config.workers is None
    workers = 1 if small else config.workers or context.workers
    arguments = (config, draft.seed, work, replies)
    with (
        context.progress.bar("augmenting") as bar,
        SplitWriter(draft.file("train.parquet"), corpus_schema()) as writer,
        _Named(draft.file("fates.parquet")) as named,
    ):
        for made in ordered_map(start, arguments, _batches(data, config), workers):
            context.stop.leave("an augmentation starts over; a model's replies are kept")
            writer.write(made.batch)
            named.add(made.fates)
            for id, fate, _ in made.fates:
                told.fates.count(fate)
                if fate == "augmented":
                    sampler.offer(id)
            told.fates.total += len(made.fates)
            told.operations.update(made.operations)
            bar.advance(made.batch.num_rows)
        for split in ("validation", "test"):
            for ids in _ids(data, split):
                named.add([(id, "kept", "") for id in ids])
                told.fates.total += len(ids)
                told.fates.count("kept", len(ids))
        told.train = writer.rows
    told.sampled = sampler.ids
    return told


def _batches(data: Path, config: AugmentationConfig) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow.parquet as pq

    from wuxing.augment.worker import ROWS

    with pq.ParquetFile(data / "train.parquet") as file:
        yield from file.iter_batches(ROWS[config.operations.content])


def _ids(data: Path, split: str) -> Iterator[list[str]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(data / f"{split}.parquet") as file:
        for batch in file.iter_batches(columns=["id"]):
            yield batch.column(0).to_pylist()


class _Named:
    """`fates.parquet`: id, fate, detail of every record and every copy."""

    def __init__(self, path: Path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema([(name, pa.string()) for name in ("id", "fate", "detail")])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def add(self, fates: list[Fate]) -> None:
        import pyarrow as pa

        if fates:
            columns = [list(column) for column in zip(*fates, strict=True)]
            self._writer.write_table(pa.table(columns, schema=self._schema))

    def __enter__(self) -> _Named:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()


def _nothing(config: AugmentationConfig, draft: Draft, fates: Fates) -> WuxingError:
    ends = ", ".join(f"{count:,} {fate}" for fate, count in fates.counts.most_common(4) if fate != "kept")
    return WuxingError(
        f"{draft.name} augments none of the train split: {ends or 'it is empty'}",
        f"Its operations change {config.operations.content}; give such records, or larger shares and rates",
    )


def _summary(fates: Fates, told: Told) -> dict[str, object]:
    from wuxing.augment.worker import asked

    return {
        "train": told.train,
        "copies": fates.counts["augmented"],
        "copies left out": asked(fates) - fates.counts["augmented"],
        **{f"changed by {name}": count for name, count in sorted(told.operations.items())},
    }
