"""The step kind `features`: records → rows of numbers, by a transform that is fitted on the train split and stored."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.record import Fates
from wuxing.core.step import Draft, Parent, StepKind
from wuxing.feature.config import FeaturesConfig, SentenceEmbedding, WordSettings

if TYPE_CHECKING:
    from pathlib import Path

    from wuxing.feature.probe import Probe
    from wuxing.feature.transform import Transform

MEMBERS = ("train.parquet", "validation.parquet", "test.parquet")
POOL_FROM_BYTES = 64 << 20
"""Splits smaller than this are worked on in this process: a pool's start costs more than it gains."""


class FeaturesKind(StepKind[FeaturesConfig]):
    """Writes `transform.json` with its parts, `matrix/{train,validation,test}.parquet`, `reference.json`, fates."""

    kind: ClassVar[str] = "features"
    Config = FeaturesConfig
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy", "pillow", "soxr", "torch")
    volatile: ClassVar[tuple[str, ...]] = ("probe.json",)
    required: ClassVar[tuple[str, ...]] = (
        "fates_sum",
        "finite",
        "shapes",
        "constant_columns",
        "fitted_on_train_only",
        "reapplied_equal",
        "probe",
    )

    def parents(self, config: FeaturesConfig) -> Mapping[str, Parent]:
        """The corpus; only its records decide the features."""
        return {"data": Parent(config.data, ("corpus", "task", "augmentation"), MEMBERS)}

    def inputs(self, config: FeaturesConfig, context: Context) -> Mapping[str, str]:
        """Digests of encoders that lie in local directories, versions of libraries that only some transforms use."""
        digests: dict[str, str] = {}
        for label, choice in zip(config.labels, config.transforms, strict=True):
            if isinstance(choice.settings, WordSettings) and choice.settings.words == "rjieba":
                digests["library rjieba"] = _version_of_rjieba()
            if isinstance(choice.settings, SentenceEmbedding):
                digests["library transformers"] = importlib.metadata.version("transformers")
            if isinstance(choice.settings, SentenceEmbedding) and choice.settings.directory is not None:
                from wuxing.feature.sentence import digest_of_encoder

                digests[f"encoder of {label}"] = digest_of_encoder(choice.settings, context)
        return digests

    def make(self, config: FeaturesConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        """Fit on the train split, store, read what was stored, apply that to every split, check."""
        import shutil

        from wuxing.core.file import write_json
        from wuxing.feature.evidence import examine
        from wuxing.feature.fitted import Room
        from wuxing.feature.reference import write_reference
        from wuxing.feature.transform import fit_transform

        data = parents["data"].path
        room = Room(draft.path / ".work", draft.seed, context)
        with context.progress.bar("fitting on the train split", 1) as bar:

            def say(share: float, figure: float) -> None:
                context.stop.leave("features start over")
                bar.set(share)
                bar.note(f"loss {figure:.3f}")

            transform = fit_transform(config, data, replace(room, said=say))
        if not transform.names:
            raise WuxingError(
                f"{draft.name} has no features: no term of the train split is within the bounds",
                "Give more data, or a smaller min_records",
            )
        transform.save(draft.path)
        context.stop.leave("features start over")
        fates = _apply(config, data, draft, transform, context)
        write_json(draft.file("fates.json"), fates.to_json())
        with context.progress.bar("checking the features"):
            reference = write_reference(draft.path)
            found = examine(draft.path, data, config, fates, reference, room, draft.evidence)
        shutil.rmtree(room.scratch, ignore_errors=True)
        draft.summary.update(_summary(transform, draft, fates, found))
        if found is not None:
            write_json(draft.file("probe.json"), found.to_json() | {"telling": found.telling})


def _version_of_rjieba() -> str:
    try:
        return importlib.metadata.version("rjieba")
    except importlib.metadata.PackageNotFoundError as error:
        raise WuxingError("words: rjieba needs the library rjieba", "pip install 'wuxing[chinese]'") from error


def _apply(config: FeaturesConfig, data: Path, draft: Draft, transform: Transform, context: Context) -> Fates:
    """Write the matrix of each split, batch by batch, and the fate of each record."""
    from wuxing.core.pool import ordered_map
    from wuxing.core.splits import SPLITS, split_path
    from wuxing.feature.matrix import MatrixWriter, matrix_path, schema_of
    from wuxing.feature.transform import applier

    fates, named = Fates(), _Named(draft.path / "fates.parquet")
    with context.progress.bar("computing features") as bar, named:
        for split in SPLITS:
            small = split_path(data, split).stat().st_size < POOL_FROM_BYTES and config.workers is None
            workers = 1 if small else config.workers or context.workers
            batches = transform.reader.batches(data, split)
            with MatrixWriter(matrix_path(draft.path, split), schema_of(transform)) as writer:
                for rows in ordered_map(applier, (draft.path,), batches, workers):
                    context.stop.leave("features start over")
                    writer.write(rows)
                    fates.total += len(rows.ids) + len(rows.lost)
                    fates.count("kept", len(rows.ids))
                    named.add(rows.ids, rows.lost)
                    for _, fate, _ in rows.lost:
                        fates.count(fate)
                    bar.advance(len(rows.ids))
            if split == "train" and not writer.rows:
                raise WuxingError(
                    f"{draft.name} has no record to learn from: none of train holds {transform.reader.content}",
                    "Name transforms of the content that the corpus holds",
                )
    return fates


class _Named:
    """`fates.parquet`: id, fate, detail of every record."""

    def __init__(self, path: Path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema([(name, pa.string()) for name in ("id", "fate", "detail")])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def add(self, kept: list[str], lost: list[tuple[str, str, str]]) -> None:
        import pyarrow as pa

        rows = [(id, "kept", "") for id in kept] + lost
        if rows:
            self._writer.write_table(
                pa.table([list(column) for column in zip(*rows, strict=True)], schema=self._schema)
            )

    def __enter__(self) -> _Named:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()


def _summary(transform: Transform, draft: Draft, fates: Fates, found: Probe | None) -> dict[str, Any]:
    summary: dict[str, Any] = {"features": len(transform.names), "records": fates.counts["kept"]}
    if fates.total != fates.counts["kept"]:
        summary["records without features"] = fates.total - fates.counts["kept"]
    if found is not None:
        summary[f"linear model ({found.split})"] = found.accuracy.value
        summary["most frequent label"] = found.majority.value
    for label, shares in (draft.evidence.value("unseen") if _has(draft, "unseen") else {}).items():
        if shares["validation"] is not None:
            summary[f"unseen terms ({label})"] = shares["validation"]
    return summary


def _has(draft: Draft, name: str) -> bool:
    return any(check.name == name for check in draft.evidence.checks)
