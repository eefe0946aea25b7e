"""The data report of a corpus: `report.html` and `report.zh.html`, made from the files of the artifact alone."""

from __future__ import annotations

from pathlib import Path

from wuxing.core.evidence import Evidence


def write_report(directory: Path, name: str, evidence: Evidence) -> None:
    """Write the report in both languages beside the files it tells of; equal files give equal bytes.

    Reads `statistics.json`, `card.json`, the splits, `dropped.parquet`, `changed.parquet` and `fates.parquet`; the last
    thing that a corpus step does, after its evidence is complete.
    """
    from wuxing.core.file import write_text
    from wuxing.corpus.report.facts import collect
    from wuxing.corpus.report.present import present
    from wuxing.corpus.report.words import words_of
    from wuxing.page.render import render_html
    from wuxing.page.words import LANGUAGES

    facts = collect(directory, f"corpus/{name}", evidence)
    for language in LANGUAGES:
        words = words_of(language)
        suffix = "" if language == "en" else f".{language}"
        write_text(directory / f"report{suffix}.html", render_html(present(facts, words), words))
