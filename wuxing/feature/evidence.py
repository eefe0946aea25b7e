"""What a features artifact proves about itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from wuxing.core.digest import digest_of_file
from wuxing.core.evidence import Evidence
from wuxing.core.record import Fates
from wuxing.core.splits import SPLITS
from wuxing.feature.config import CountSettings, FeaturesConfig, Word2Vec, WordSettings
from wuxing.feature.fitted import Room, fit
from wuxing.feature.matrix import Features
from wuxing.feature.probe import Probe, probe
from wuxing.feature.reference import Reference
from wuxing.feature.transform import Part, Split, Transform, load_transform, reader_of, side_by_side
from wuxing.feature.word_vector import fit_vocabulary
from wuxing.feature.words import terms_of, words_of

if TYPE_CHECKING:
    from wuxing.feature.fitted import Matrix

HELD_OUT = ("validation", "test")
REPLAYED = 64
"""Records per split that are computed anew."""
SAMPLED_TEXTS = 20_000
RELEARNT_WORDS = 1_000_000
"""Words × epochs up to which word vectors are learnt a second time to compare them: some ten seconds."""
SCALE_TOLERANCE = 1e-3
"""Of float32 rows."""


def examine(
    directory: Path,
    data: Path,
    config: FeaturesConfig,
    fates: Fates,
    reference: Reference,
    room: Room,
    evidence: Evidence,
) -> Probe | None:
    """All checks of a features artifact in `directory`, made from the corpus in `data`."""
    features = Features(directory)
    fates.judge(evidence)
    _judge_values(features, fates, reference, evidence)
    _judge_fit(directory, data, reference, room, evidence)
    _judge_replay(features, data, config, evidence)
    _measure_unseen(features.transform, data, config, evidence)
    broken = evidence.value("finite")
    found = "the features are not finite" if broken else probe(features, config.probe.max_records)
    if isinstance(found, str):
        evidence.measure("probe", None, found)
        return None
    evidence.measure("probe", found.to_json(), "a linear model against the most frequent label")
    return found


def _judge_values(features: Features, fates: Fates, reference: Reference, evidence: Evidence) -> None:
    """`finite`: no NaN, no infinity; `shapes`: one row per kept record, as many columns as names."""
    broken, shapes = 0, {}
    for split in SPLITS:
        rows = columns = 0
        for block in features.blocks(split):
            matrix = side_by_side(block.blocks)
            values = matrix.data if isinstance(matrix, sparse.csr_array) else matrix
            broken += int((~np.isfinite(values)).sum())
            rows, columns = rows + matrix.shape[0], matrix.shape[1]
        shapes[split] = [rows, columns]
    evidence.judge("finite", broken == 0, broken, 0, "values that are NaN or infinite")
    wide = {columns for rows, columns in shapes.values() if rows}
    kept = sum(rows for rows, _ in shapes.values())
    passed = wide <= {len(features.names)} and kept == fates.counts["kept"]
    evidence.judge("shapes", passed, shapes, {"rows": fates.counts["kept"], "columns": len(features.names)})
    constant = int(reference.moments.constant.sum())
    evidence.measure("constant_columns", constant, "features that are the same in every record of the train split")


def _judge_fit(directory: Path, data: Path, reference: Reference, room: Room, evidence: Evidence) -> None:
    """`fitted_on_train_only`: the train split alone gives what was learnt, and no held-out word is in it."""
    transform = load_transform(directory)
    different = [name for part in transform.parts for name in _refitted(part, directory, data, room)]
    different += _unscaled(transform, reference)
    strangers = _strangers(transform, data)
    evidence.judge(
        "fitted_on_train_only",
        not different and not strangers,
        {"different": len(different), "held_out_words": len(strangers)},
        {"different": 0, "held_out_words": 0},
        "files that fitting on the train split again does not give; features that only held-out records have"
        + "".join(f"; {name}" for name in [*different[:3], *strangers[:3]]),
    )


def _refitted(part: Part, directory: Path, data: Path, room: Room) -> list[str]:
    """The files of a part that fitting on the train split again does not give.

    Word vectors are learnt again up to `RELEARNT_WORDS`; beyond, their vocabulary is compared.
    """
    vocabulary = getattr(part.fitted, "vocabulary", None)
    if vocabulary is None:
        return []
    again, train = room.scratch / "again" / part.label, Split(load_transform(directory).reader, data)
    again.mkdir(parents=True)
    settings = part.settings
    if isinstance(settings, Word2Vec) and vocabulary.counts.sum() * settings.epochs > RELEARNT_WORDS:
        fit_vocabulary(settings, train, room).save(again / "vocabulary.parquet")
    else:
        fit(part.choice.chosen, settings, train, room).save(again)
    names = sorted(path.name for path in again.iterdir())
    stored = directory / part.label
    return [f"{part.label}/{n}" for n in names if digest_of_file(again / n) != digest_of_file(stored / n)]


def _unscaled(transform: Transform, reference: Reference) -> list[str]:
    """Scaled parts whose stored train rows do not have the mean, deviation or size that scaling on them gives."""
    found, start = [], 0
    for part in transform.parts:
        stop = start + len(part.fitted.names)
        moments, varies = reference.moments, ~reference.moments.constant[start:stop]
        mean, spread = moments.mean[start:stop][varies], moments.deviation[start:stop][varies]
        size = np.maximum(np.abs(moments.least), np.abs(moments.largest))[start:stop][varies]
        off = 0.0
        if part.settings.scale == "standard":
            off = float(max(np.abs(mean).max(initial=0), np.abs(spread - 1).max(initial=0)))
        elif part.settings.scale == "max_abs":
            off = float(np.abs(size - 1).max(initial=0))
        if off > SCALE_TOLERANCE:
            found.append(f"{part.label}/scale.safetensors: off by {off:.2g}")
        start = stop
    return found


def _strangers(transform: Transform, data: Path) -> list[str]:
    """Features that stand in held-out texts and in no text of the train split."""
    found: set[str] = set()
    for part in transform.parts:
        vocabulary = getattr(part.fitted, "vocabulary", None)
        settings = part.settings
        if vocabulary is None or not isinstance(settings, WordSettings):
            continue
        suspects = set(vocabulary.terms)
        for text in Split(transform.reader, data):
            if not suspects:
                break
            suspects.difference_update(_said(text, settings))
        found |= suspects
    return sorted(found)


def _said(text: str, settings: WordSettings) -> list[str]:
    return terms_of(text, settings) if isinstance(settings, CountSettings) else words_of(text, settings)


def _judge_replay(features: Features, data: Path, config: FeaturesConfig, evidence: Evidence) -> None:
    """`reapplied_equal`: the transform as read from disk gives, for single records, the stored rows."""
    worst, compared = 0.0, 0
    for split in SPLITS:
        for value, row in _pairs(features, data, split):
            single = features.transform.matrix([value])
            worst = max(worst, _largest_difference(single, row))
            compared += 1
    tolerance = features.transform.tolerance
    note = f"largest difference, {compared} records, each computed alone"
    evidence.judge("reapplied_equal", worst <= tolerance, worst, tolerance, note)


def _pairs(features: Features, data: Path, split: str) -> Iterator[tuple[Any, Matrix]]:
    """Some decoded records of a split, spread over its first stored rows, each with its stored row."""
    values = (value for value in Split(features.transform.reader, data, split))
    for rows in features.blocks(split):
        matrix = side_by_side(rows.blocks)
        wanted = set(np.unique(np.linspace(0, len(rows.ids) - 1, min(REPLAYED, len(rows.ids))).astype(int)).tolist())
        for place in range(max(wanted) + 1 if wanted else 0):
            value = next(values)
            if place in wanted:
                yield value, matrix[[place]]
        return


def _largest_difference(a: Matrix, b: Matrix) -> float:
    if isinstance(a, sparse.csr_array):
        gap = abs(a - sparse.csr_array(b))
        return float(gap.max()) if gap.nnz else 0.0
    return float(np.abs(a - b).max(initial=0.0))


def _measure_unseen(transform: Transform, data: Path, config: FeaturesConfig, evidence: Evidence) -> None:
    """`unseen`: of the held-out words or terms, the share that the train split did not make a feature."""
    from itertools import islice

    shares: dict[str, dict[str, float | None]] = {}
    for part in transform.parts:
        unseen = getattr(part.fitted, "unseen", None)
        if unseen is None:
            continue
        shares[part.label] = {}
        for split in HELD_OUT:
            texts = list(islice(Split(reader_of(config), data, split), SAMPLED_TEXTS))
            unknown, total = unseen(texts)
            shares[part.label][split] = unknown / total if total else None
    if shares:
        evidence.measure("unseen", shares, "share of held-out terms that are no features")
