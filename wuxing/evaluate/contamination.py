"""Which evaluation items each model saw in training, through every model it started from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.file import write_json
from wuxing.core.step import Draft
from wuxing.evaluate.evaluation_kind import Overlap
from wuxing.evaluate.lineage import Lineage, trace
from wuxing.evaluate.overlap import Index, Match, items_of_corpus, items_of_task

if TYPE_CHECKING:
    from wuxing.evaluate.evaluation import Sets


@dataclass
class Contamination:
    """Matches of every model, and the data that were searched."""

    items: int
    lineages: dict[str, Lineage]
    matches: dict[str, list[Match]] = field(default_factory=dict)

    @property
    def leaked(self) -> set[tuple[str, str]]:
        """(set, item) of every item that some model saw as it is."""
        return {(m.set, m.item) for matches in self.matches.values() for m in matches if m.how != "near"}

    @property
    def near(self) -> set[tuple[str, str]]:
        """(set, item) of items of which a training row holds many of the same words."""
        return {(m.set, m.item) for matches in self.matches.values() for m in matches if m.how == "near"}

    @property
    def missing(self) -> list[str]:
        """Ancestors whose data could not be searched."""
        return sorted({id for lineage in self.lineages.values() for id in lineage.missing})

    def to_json(self) -> dict[str, Any]:
        """Counts per model; `overlap.json` holds the matches."""
        return {
            "items": self.items,
            "leaked": len(self.leaked),
            "near": len(self.near),
            "missing": self.missing,
            "models": {
                name: {
                    "data": lineage.ids,
                    "exact": sum(match.how == "exact" for match in self.matches[name]),
                    "problem": sum(match.how == "problem" for match in self.matches[name]),
                    "near": sum(match.how == "near" for match in self.matches[name]),
                }
                for name, lineage in self.lineages.items()
            },
        }


def check_overlap(
    config: Overlap,
    models: Mapping[str, Artifact],
    sets: Sets,
    known: Iterable[Artifact],
    context: Context,
    draft: Draft,
) -> Contamination:
    """Search the training data of every model for the items; writes `overlap.json` and the evidence."""
    items = items_of_corpus(sets.corpus.name, sets.documents) if sets.corpus else []
    for name, one in sets.tasks.items():
        items += items_of_task(name, one.task, one.examples)
    index, at_hand = Index(items, config.ngram, config.threshold), list(known)
    lineages = {name: trace(model, context.home, at_hand) for name, model in models.items()}
    searched = {data.id: data for lineage in lineages.values() for data in lineage.data}
    found: dict[str, list[Match]] = {}
    with context.progress.bar("search training data for the items", len(searched)) as bar:
        for id, data in searched.items():
            found[id] = index.matches(data)
            bar.advance()
            context.stop.leave("an evaluation starts again from its first model")
    result = Contamination(len(items), lineages)
    for name, lineage in lineages.items():
        result.matches[name] = [match for data in lineage.data for match in found[data.id]]
    write_json(
        draft.file("overlap.json"),
        {name: [match.to_json() for match in matches] for name, matches in result.matches.items()},
    )
    _judge(config, result, draft)
    return result


def _judge(config: Overlap, result: Contamination, draft: Draft) -> None:
    evidence, leaked = draft.evidence, sorted(result.leaked)
    shown = f"; first: {', '.join('/'.join(item) for item in leaked[:3])}" if leaked else ""
    if result.missing:
        note = f"the training data of {', '.join(result.missing)} are not in the store, so nothing is known about them"
        evidence.judge("overlap", False, "unknown", 0, note)
    elif config.exact == "remove":
        evidence.judge(
            "overlap", len(leaked) < result.items, len(leaked), f"< {result.items}", f"items left out{shown}"
        )
    else:
        note = f"items that a model saw in training, of {result.items}{shown}"
        evidence.judge("overlap", not leaked, len(leaked), 0, note)
    evidence.measure(
        "overlap_near", len(result.near), f"items sharing n-grams of {config.ngram} words with a training row"
    )
    evidence.measure("lineage", {name: lineage.ids for name, lineage in result.lineages.items()})
