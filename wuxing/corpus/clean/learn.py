"""What cleaning steps read besides the records they clean, and what they learn from it before the first is cleaned.

A corpus asks here for the parents and inputs of its steps, lets them learn into `fitted/<number of the step>/`, and
afterwards for the evidence: a step's `evidence.json` there is a list of checks.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file, digest_of_files
from wuxing.core.error import UsageError
from wuxing.core.evidence import Evidence
from wuxing.core.step import Parent
from wuxing.corpus.clean.config import CleanStep
from wuxing.corpus.clean.filter_config import Examples, FilterConfig

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

    from wuxing.corpus.config import CorpusConfig
    from wuxing.source.row import Part

R = TypeVar("R")
POOL_FROM_BYTES = 32 << 20
"""Below this a pool's start costs more than it gains."""


def filters(config: CorpusConfig) -> Iterator[tuple[int, CleanStep, FilterConfig]]:
    """The steps that may read more than the records they clean, with their numbers."""
    for number, step in enumerate(config.clean):
        if isinstance(step.settings, FilterConfig):
            yield number, step, step.settings


def step_parents(config: CorpusConfig) -> dict[str, Parent]:
    """Role → parent of every step."""
    return {
        _role(number, step, reference): parent
        for number, step, settings in filters(config)
        for reference, parent in settings.parents().items()
    }


def step_inputs(config: CorpusConfig, context: Context) -> dict[str, str]:
    """Digests of the files and sources, and versions of the libraries, on which the steps depend."""
    from wuxing.source import source_digest

    inputs: dict[str, str] = {}
    for number, step, settings in filters(config):
        for name in settings.files():
            if not Path(name).is_file():
                raise UsageError(f'{step.chosen}: there is no file "{name}"', "Its path is relative to where you run")
            inputs[f"{number}:{step.chosen} file {len(inputs)}"] = digest_of_file(Path(name))
        for source in settings.sources():
            digest = source_digest(source, context)
            if digest is not None:
                inputs[f"{number}:{step.chosen} {source.label}"] = digest
        for library in settings.libraries():
            inputs[f"library {library}"] = importlib.metadata.version(library)
    return inputs


def fit_steps(
    config: CorpusConfig, parents: Mapping[str, Artifact], context: Context, directory: Path, evidence: Evidence
) -> dict[int, str]:
    """Let each step that learns do so, in the order of the recipe; returns step number → digest of what it learnt.

    A step finds in `directory/<its number>` what it wrote there; its checks go to `evidence`.
    """
    from wuxing.corpus.clean import CLEANERS

    digests: dict[int, str] = {}
    for number, step, settings in filters(config):
        if not settings.learns:
            continue
        mine = {reference: parents[_role(number, step, reference)] for reference in settings.parents()}
        place = directory / str(number)
        place.mkdir(parents=True, exist_ok=True)
        import_module(CLEANERS[step.chosen]).fit(settings, config, mine, context, place)
        found = sorted(path for path in place.rglob("*") if path.is_file())
        digests[number] = digest_of_files({str(path.relative_to(place)): digest_of_file(path) for path in found})
        if (place / "evidence.json").is_file():
            for check in Evidence.load(place / "evidence.json").checks:
                evidence._add(check)
        context.stop.leave("a corpus starts over")
    return digests


def finish_steps(
    config: CorpusConfig,
    parents: Mapping[str, Artifact],
    context: Context,
    directory: Path,
    found: Sequence[Mapping[str, int]],
    evidence: Evidence,
) -> None:
    """Let the steps look at the finished corpus in `directory`; `found` is what each of them counted while cleaning."""
    from wuxing.corpus.clean import CLEANERS

    for number, step, settings in filters(config):
        module = import_module(CLEANERS[step.chosen])
        if hasattr(module, "finish"):
            mine = {reference: parents[_role(number, step, reference)] for reference in settings.parents()}
            module.finish(settings, number, mine, context, directory, found[number], evidence)


def read_before(
    settings: FilterConfig,
    config: CorpusConfig,
    context: Context,
    directory: Path,
    work: Callable[[pyarrow.Array, Sequence[Any] | None], R],
    turns: bool = False,
) -> Iterator[R]:
    """`work(texts, their languages)` for all documents as the steps before this one leave them, in order.

    `work` runs where the texts are read, in several processes: a module's function, or a `partial` of one.  With
    `turns` it also gets the turns of dialogues.  `directory` is where this step writes.
    """
    from wuxing.core.pool import ordered_map
    from wuxing.source import open_source

    number = number_of(settings, config)
    with context.progress.bar(f"{config.clean[number].chosen}: reading the corpus first") as bar:
        for place, source in enumerate(config.sources):
            origin = open_source(source, context)
            arguments = (config, place, number, context.home, context.cache, directory.parent, work, turns)
            small = sum(getattr(part.blob, "bytes", 0) or 0 for part in origin.parts) < POOL_FROM_BYTES
            workers = 1 if small else config.workers or context.workers
            for results in ordered_map(_Reading, arguments, origin.parts, workers):
                context.stop.leave("a corpus starts over")
                bar.advance()
                yield from results


def documents_of(
    examples: Examples, parents: Mapping[str, Artifact], context: Context, splits: Iterable[str] = ("train",)
) -> Iterator[pyarrow.Array]:
    """The texts of examples: of a corpus (a dialogue's turns joined), or of a source."""
    import pyarrow as pa

    from wuxing.core.splits import read_table
    from wuxing.source import open_source

    if isinstance(examples, str):
        for split in splits:
            for batch in read_table(parents[examples].path, split, ["text", "messages"]).to_batches(1024):
                yield pa.array([_whole(row) for row in batch.to_pylist()], pa.string())
        return
    from wuxing.corpus.engine.rows import Reader

    for chunk in Reader(examples).chunks(open_source(examples, context).parts):
        records = [record for _, record in chunk.columns.records()]
        yield pa.array([_whole({"text": r.text, "messages": r.messages}) for r in records], pa.string())


def sampled(texts: Iterable[pyarrow.Array], count: int) -> list[str]:
    """The `count` different texts whose keys are least: a sample that does not depend on order or cuts."""
    import heapq

    from wuxing.text.key import keys

    chosen: dict[bytes, str] = {}
    heap: list[tuple[int, bytes]] = []  # the largest key on top
    for array in texts:
        for row, key in enumerate(keys(array, b"sample")):
            raw = key.tobytes()
            if raw in chosen or (len(heap) == count and -int.from_bytes(raw, "big") <= heap[0][0]):
                continue
            text = array[row].as_py()
            if not text.strip():
                continue
            chosen[raw] = text
            entry = (-int.from_bytes(raw, "big"), raw)
            if len(heap) < count:
                heapq.heappush(heap, entry)
            else:
                del chosen[heapq.heapreplace(heap, entry)[1]]
    return [chosen[key] for key in sorted(chosen)]


def corpus_sample(
    settings: FilterConfig, config: CorpusConfig, context: Context, directory: Path, count: int
) -> list[str]:
    """A sample of the documents that a step will judge, as the steps before it leave them."""
    languages = getattr(settings, "languages", ())
    work = partial(_part_sample, languages=languages, count=count)
    return sampled(read_before(settings, config, context, directory, work), count)


def _part_sample(
    values: pyarrow.Array, said: Sequence[Any] | None, languages: tuple[str, ...], count: int
) -> pyarrow.Array:
    import pyarrow as pa

    return pa.array(sampled([values.take(judged_places(values, said, languages))], count), pa.string())


def judged_places(values: pyarrow.Array, said: Sequence[Any] | None, languages: tuple[str, ...]) -> NDArray[np.int64]:
    """The places of texts in one of these languages, as `language` found them; all when none is named."""
    import numpy as np

    if not languages:
        return np.arange(len(values))
    if said is None:
        raise UsageError("languages needs a language step before it", "Put `language` before it in clean")
    return np.array([place for place, language in enumerate(said) if language in languages], np.int64)


def check_name(settings: FilterConfig, config: CorpusConfig, name: str) -> str:
    """The name of a check of a step; with the step's number from the second step of its kind on."""
    number = number_of(settings, config)
    kind = config.clean[number].chosen
    again = any(step.chosen == kind for step in config.clean[:number])
    return f"{name}_{number}" if again else name


def number_of(settings: FilterConfig, config: CorpusConfig) -> int:
    """The place of a step in the recipe."""
    return next(number for number, _, mine in filters(config) if mine is settings)


def _whole(row: Mapping[str, object]) -> str:
    messages = row["messages"]
    if isinstance(messages, list):
        return "\n".join(message["content"] for message in messages)
    return str(row["text"] or "")


class _Reading:
    """Reads a part of one source, cleans it by the steps before a given one, and does the work on what is left."""

    def __init__(
        self,
        config: CorpusConfig,
        source: int,
        number: int,
        home: Path,
        cache: Path | None,
        fitted: Path,
        work: Callable[[pyarrow.Array, Sequence[Any] | None], Any],
        turns: bool,
    ) -> None:
        from wuxing.corpus.clean import Cleaning
        from wuxing.corpus.clean.column import DOCUMENTS, TURNS
        from wuxing.corpus.engine.rows import Reader

        self.reader, self.work = Reader(config.sources[source]), work
        self.cleaning = Cleaning(config.clean[:number], Context(home=home, cache=cache), fitted)
        self.views = (DOCUMENTS, TURNS) if turns else (DOCUMENTS,)

    def __call__(self, part: Part) -> list[Any]:
        found = []
        for chunk in self.reader.chunks([part]):
            self.cleaning.run(chunk.columns)
            for view in (chunk.columns.views.get(kind) for kind in self.views):
                if view is not None and len(view.owners):
                    found.append(self.work(view.values, chunk.columns.notes(view).get("language")))
        return found


def _role(number: int, step: CleanStep, reference: str) -> str:
    return f"{number}:{step.chosen} {reference}"
