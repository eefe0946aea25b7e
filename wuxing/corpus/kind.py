"""The step kind `corpus`: sources → cleaned, deduplicated, split records, with a fate for every raw row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError, nearest
from wuxing.core.record import Fates
from wuxing.core.step import Draft, Parent, StepKind
from wuxing.corpus.config import CorpusConfig

if TYPE_CHECKING:
    from wuxing.corpus.merge import Spool
    from wuxing.source.config import SourceConfig
    from wuxing.source.row import Origin, Row

ROWS_PER_SHARD = 1000
POOL_FROM_BYTES = 32 << 20
"""Below this a pool's start costs more than it gains."""


class CorpusKind(StepKind[CorpusConfig]):
    """Writes `train.parquet`, `validation.parquet`, `test.parquet`, the fates, samples of what was dropped, a card."""

    kind: ClassVar[str] = "corpus"
    Config = CorpusConfig
    libraries: ClassVar[tuple[str, ...]] = ("ftfy", "fasttext-predict")
    required: ClassVar[tuple[str, ...]] = (
        "fates_sum",
        "not_empty",
        "splits_disjoint",
        "duplicate_residue",
        "privacy_residue",
        "languages",
    )

    def parents(self, config: CorpusConfig) -> Mapping[str, Parent]:
        """What cleaning steps read besides the records."""
        from wuxing.corpus.clean.learn import step_parents

        return step_parents(config)

    def inputs(self, config: CorpusConfig, context: Context) -> Mapping[str, str]:
        """Digests of the files and exchanges that the sources and the cleaning steps name."""
        from wuxing.corpus.clean.learn import step_inputs
        from wuxing.source import source_digest

        digests = {source.label: source_digest(source, context) for source in config.sources}
        named = {f"source {label}": digest for label, digest in digests.items() if digest is not None}
        return named | step_inputs(config, context)

    def make(self, config: CorpusConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        """Read and clean shard by shard, then drop duplicates and write the splits."""
        import shutil

        from wuxing.core.file import write_json
        from wuxing.corpus.card import write_card
        from wuxing.corpus.evidence import examine
        from wuxing.corpus.merge import Spool, write_splits
        from wuxing.source import open_source

        _announce_kernel(config, context)
        origins = [open_source(source, context) for source in config.sources]
        with Spool(draft.path / ".work", config) as spool:
            _clean(config, origins, spool, context)
        with context.progress.bar("writing the splits", spool.records) as bar:
            fates, splits = write_splits(draft.path, spool, bar.advance)
        if not splits["train"]:
            raise _empty(config, fates, splits, spool, draft.name)
        write_json(draft.file("fates.json"), fates.to_json())
        shutil.rmtree(draft.path / ".work")
        context.stop.leave("a corpus starts over")
        fates.judge(draft.evidence)
        with context.progress.bar("checking the corpus") as bar:
            examine(draft.path, config, draft.evidence)
        draft.summary.update(_summary(draft, fates, splits))
        write_card(draft, config, origins, fates, spool.steps)


def _announce_kernel(config: CorpusConfig, context: Context) -> None:
    from wuxing.text.kernel import missing_reason

    reason = missing_reason()
    if config.duplicates.near_jaccard is not None and reason:
        context.progress.say(f"  near duplicates are searched by NumPy, some 40 times slower: {reason}")


def _clean(config: CorpusConfig, origins: list[Origin], spool: Spool, context: Context) -> None:
    from wuxing.corpus.shard import run_shards

    workers = config.workers or context.workers
    size = sum(sum(origin.card.get("files", {}).values()) for origin in origins)
    if size < POOL_FROM_BYTES and config.workers is None:
        workers = 1
    with context.progress.bar("reading and cleaning") as bar:
        for shard in run_shards(config, context, _tasks(origins, config.sources), workers):
            context.stop.leave("a corpus starts over")
            spool.add(shard)
            bar.advance(len(shard.fates))
            bar.note(f"{spool.rows:,} rows read, {spool.records:,} go on")


def _tasks(origins: list[Origin], sources: Sequence[SourceConfig]) -> Iterator[tuple[int, list[Row]]]:
    from wuxing.corpus.shard import cut
    from wuxing.source import rows_of

    for number, origin in enumerate(origins):
        every = (row for part in origin.parts for row in rows_of(part, sources[number]))
        yield from ((number, rows) for rows in cut(every, ROWS_PER_SHARD))


def _empty(config: CorpusConfig, fates: Fates, splits: dict[str, int], spool: Spool, name: str) -> WuxingError:
    """Why a corpus has no record to train on, and what mends it."""
    if not fates.total:
        return WuxingError(f"{name} is empty: its sources hold no row", "Look at the sources' files, format and rows")
    if any(splits.values()):
        return WuxingError(
            f"{name} has only {sum(splits.values())} records and none of them fell into train",
            "Give more data, or smaller shares to validation and test",
        )
    ends = ", ".join(f"{count:,} {fate}" for fate, count in fates.counts.most_common(4))
    lacking = {detail for _, fate, detail in spool.fates() if fate == "filtered:missing_field"}
    if lacking:
        hint = nearest(min(lacking), spool.fields)
        return WuxingError(f'{name} keeps none of its {fates.total:,} rows: they have no "{min(lacking)}"', hint)
    return WuxingError(
        f"{name} keeps none of its {fates.total:,} rows: {ends}",
        "wuxing inspect shows what they hold; loosen the cleaning step that drops them, or set format and fields",
    )


def _summary(draft: Draft, fates: Fates, splits: dict[str, int]) -> dict[str, Any]:
    sizes = draft.evidence.value("sizes")
    return {
        "rows read": fates.total,
        "kept": fates.counts["kept"],
        "dropped": fates.total - fates.counts["kept"],
        **splits,
        "characters": sum(size["characters"] for size in sizes.values()),
    }
