"""What a reader should know first, by rule."""

from __future__ import annotations

from dataclasses import dataclass

from wuxing.corpus.report.facts import Facts
from wuxing.corpus.report.words import CorpusWords
from wuxing.page.block import Code, Figure, Inline, compose
from wuxing.page.number import format_figure

LARGE_LOSS = 0.25
UNREADABLE = 0.01
FEW_HELD_OUT = 100
FEW_OF_A_LABEL = 5
IMBALANCE = 20.0
LARGE_CLUSTER = 0.02
UNKNOWN_LICENSES = ("unknown", "")


@dataclass(frozen=True)
class Warning:
    """One sentence; grave ones ask for a decision before anything is trained."""

    kind: str
    said: list[Inline]
    grave: bool = False


def warnings_of(facts: Facts, words: CorpusWords) -> list[Warning]:
    """Grave ones first."""
    found: list[Warning] = []

    def warn(kind: str, grave: bool = False, /, **values: Inline) -> None:
        found.append(Warning(kind, compose(words(f"warning.{kind}"), values), grave))

    for check in facts.checks:
        if check.verdict == "failed":
            said = Figure(words.value(check.value), f"{facts.id} evidence.json {check.name}")
            warn("failed", True, check=Code(check.name), value=said)
    _about_fates(facts, words, warn)
    _about_sources(facts, warn)
    _about_splits(facts, words, warn)
    _about_contents(facts, warn)
    return sorted(found, key=lambda warning: not warning.grave)


def _about_fates(facts: Facts, words: CorpusWords, warn: object) -> None:
    assert callable(warn)
    for fate, count in facts.at("fates").items():
        share = count / (facts.at("rows") or 1)
        if fate.startswith("unreadable") and share >= UNREADABLE:
            warn(
                "unreadable",
                True,
                fate=words.fate(fate),
                count=facts.count("fates", fate),
                share=facts.share(("fates", fate)),
            )
        elif fate != "kept" and share >= LARGE_LOSS:
            warn("large_loss", False, fate=words.fate(fate), share=facts.share(("fates", fate)))


def _about_sources(facts: Facts, warn: object) -> None:
    assert callable(warn)
    for number, source in enumerate(facts.at("sources")):
        if source["rows"] and not source["kept"]:
            warn("source_lost", True, source=Code(source["name"]), rows=facts.count("sources", number, "rows"))
        if not source["rows"]:
            warn("source_empty", True, source=Code(source["name"]))
        if source["license"].lower() in UNKNOWN_LICENSES:
            warn("license", False, source=Code(source["name"]))


def _about_splits(facts: Facts, words: CorpusWords, warn: object) -> None:
    assert callable(warn)
    for split in ("validation", "test"):
        records = facts.at("splits", split, "records")
        if 0 < records < FEW_HELD_OUT and facts.at("splits", "train", "records") > records:
            warn("few_held_out", False, split=words(f"split.{split}"), count=facts.count("splits", split, "records"))
    labels = {name: count for name, count in facts.at("splits", "train", "labels").items() if name}
    if len(labels) > 1:
        least, most = (pick(labels, key=lambda name: (labels[name], name)) for pick in (min, max))
        if labels[least] < FEW_OF_A_LABEL:
            warn("rare_label", False, label=Code(least), count=facts.count("splits", "train", "labels", least))
        elif labels[most] / labels[least] >= IMBALANCE:
            ratio = labels[most] / labels[least]
            said = facts.measured(format_figure(round(ratio, 1)), ratio, "splits", "train", "labels")
            warn("imbalance", False, most=Code(most), least=Code(least), ratio=said)


def _about_contents(facts: Facts, warn: object) -> None:
    assert callable(warn)
    for kind in facts.at("privacy", "left"):
        if facts.at("privacy", "left", kind):
            redacted = bool(facts.at("privacy", "found"))
            warn("private_left", redacted, kind=Code(kind), count=facts.count("privacy", "left", kind))
    for name in ("exact", "near"):
        for number, cluster in enumerate(facts.at("duplicates", name, "largest")[:1]):
            if cluster["size"] >= max(10, LARGE_CLUSTER * facts.at("rows")):
                size = facts.count("duplicates", name, "largest", number, "size")
                warn("large_cluster", False, size=size, id=Code(cluster["id"]))
