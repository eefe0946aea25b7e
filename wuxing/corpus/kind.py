"""The step kind `corpus`: sources → cleaned, deduplicated, split records, with a fate for every raw row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError, nearest
from wuxing.core.step import Draft, Parent, StepKind
from wuxing.corpus.config import CorpusConfig

if TYPE_CHECKING:
    from wuxing.corpus.engine.merge import Merged
    from wuxing.source.row import Origin

STANDS = "its finished shards are kept"
_AGAIN = "Type the same command again when nothing writes there any more; what is done is kept"


class CorpusKind(StepKind[CorpusConfig]):
    """Writes `train.parquet`, `validation.parquet`, `test.parquet`, the fates, samples of what was dropped, a card."""

    kind: ClassVar[str] = "corpus"
    Config = CorpusConfig
    code: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = (
        "ftfy",
        "fasttext-predict",
        "resiliparse",
        "pypdfium2",
        "opencc",
        "pillow",
        "soundfile",
        "soxr",
    )
    volatile: ClassVar[tuple[str, ...]] = (
        "shards.json",
        "report*.html",
    )
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
        """Clean shard by shard, where no kept shard stands already; then drop duplicates and write the splits."""
        from wuxing.core.memory import giving_memory_back

        with giving_memory_back():
            self._make(config, parents, draft, context)

    def _make(self, config: CorpusConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        import shutil

        from wuxing.core.file import write_json
        from wuxing.corpus.card import write_card
        from wuxing.corpus.clean.learn import finish_steps, fit_steps
        from wuxing.corpus.engine.cache import ShardCache
        from wuxing.corpus.engine.make import clean, merge
        from wuxing.corpus.evidence import examine
        from wuxing.corpus.report import write_report
        from wuxing.source import open_source
        from wuxing.source.fill import settled

        _announce_kernel(config, context)
        began = self.inputs(config, context)
        learned = [settled(source, context) for source in config.sources]
        config = config.model_copy(update={"sources": tuple(source for source, _ in learned)})
        fitted = draft.path / "fitted"
        fit_steps(config, parents, context, fitted, draft.evidence)
        origins = [open_source(source, context) for source in config.sources]
        for origin, (_, filled) in zip(origins, learned, strict=True):
            origin.card.update({"fill": filled} if filled else {})
        cache = ShardCache(context.cache_directory / "shards")
        with cache.reading():
            plan, said = clean(config, origins, cache, fitted if fitted.is_dir() else None, context)
            if began != self.inputs(config, context):
                raise WuxingError(f"{draft.name}: a source changed while it was being read", _AGAIN)
            merged = merge(draft.path, plan, config, context)
        if not merged.splits["train"]:
            raise _empty(config, merged, draft.name)
        write_json(draft.file("fates.json"), merged.fates.to_json())
        shutil.rmtree(draft.path / ".work")
        context.stop.leave(STANDS)
        merged.fates.judge(draft.evidence)
        with context.progress.bar("checking the corpus"):
            seen = examine(draft.path, config, draft.evidence)
        found = [step.found for step in merged.tally.steps]
        finish_steps(config, parents, context, draft.path, found, draft.evidence)
        sizes = {source.label: _bytes(origin) for source, origin in zip(config.sources, origins, strict=True)}
        write_json(draft.file("statistics.json"), merged.tally.to_json(sizes, seen, merged.duplicates))
        write_json(draft.file("shards.json"), plan.to_json(cache.directory))
        draft.summary.update(_summary(draft, merged, said))
        write_card(draft, config, origins, merged.fates, merged.tally.steps)
        with context.progress.bar("writing the data report"):
            write_report(draft.path, draft.name, draft.evidence)


def _announce_kernel(config: CorpusConfig, context: Context) -> None:
    from wuxing.text.kernel import missing_reason

    reason = missing_reason()
    if config.duplicates.near_jaccard is not None and reason:
        context.progress.say(f"  near duplicates are searched by NumPy, some 40 times slower: {reason}")


def _bytes(origin: Origin) -> int:
    return sum(origin.card.get("files", {}).values())


def _empty(config: CorpusConfig, merged: Merged, name: str) -> WuxingError:
    """Why a corpus has no record to train on, and what mends it."""
    fates, splits = merged.fates, merged.splits
    if not fates.total:
        return WuxingError(f"{name} is empty: its sources hold no row", "Look at the sources' files, format and rows")
    if any(splits.values()):
        return WuxingError(
            f"{name} has only {sum(splits.values())} records and none of them fell into train",
            "Give more data, or smaller shares to validation and test",
        )
    ends = ", ".join(f"{count:,} {fate}" for fate, count in fates.counts.most_common(4))
    if merged.lacking:
        field = min(merged.lacking)
        hint = nearest(field, merged.fields)
        return WuxingError(f'{name} keeps none of its {fates.total:,} rows: they have no "{field}"', hint)
    return WuxingError(
        f"{name} keeps none of its {fates.total:,} rows: {ends}",
        "wuxing inspect shows what they hold; loosen the cleaning step that drops them, or set format and fields",
    )


def _summary(draft: Draft, merged: Merged, shards: str) -> dict[str, Any]:
    sizes = draft.evidence.value("sizes")
    fates = merged.fates
    return {
        "rows read": fates.total,
        "kept": fates.counts["kept"],
        "dropped": fates.total - fates.counts["kept"],
        **merged.splits,
        "characters": sum(size["characters"] for size in sizes.values()),
        "shards": shards,
    }
