"""Filters that learn: the n-gram model against slow counting, both filters against planted bad text."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import RefusedError, UsageError, WuxingError
from wuxing.core.evidence import Evidence
from wuxing.corpus.clean import classify, perplexity
from wuxing.corpus.clean.area import area
from wuxing.corpus.clean.learn import sampled
from wuxing.corpus.clean.ngram import NgramModel, train
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.kind import CorpusKind
from wuxing.text.shingle import tokens_of
from wuxing.text.token import tokens

Words = Sequence[Sequence[str]]


# ------------------------------------------------------------------------------------------------- the n-gram model
def slow_perplexities(training: Words, texts: Words, order: int) -> list[float]:
    """Interpolated Kneser-Ney by dictionaries, from the formula."""
    single = Counter(word for text in training for word in text)
    known = {word for word, count in single.items() if count > 1}
    shared = max(1, sum(count == 1 for count in single.values()))

    def marked(text: Sequence[str]) -> list[str]:
        return ["<s>"] * (order - 1) + [word if word in known else "<unk>" for word in text]

    counts: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(order + 1)]
    for text in map(marked, training):
        for end in range(order - 1, len(text)):
            counts[order][tuple(text[end - order + 1 : end + 1])] += 1
    for length in range(order - 1, 0, -1):
        counts[length] = Counter(gram[1:] for gram in counts[length + 1])
    totals: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(order + 1)]
    types: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(order + 1)]
    discounts = [0.0] * (order + 1)
    for length in range(1, order + 1):
        for gram, count in counts[length].items():
            totals[length][gram[:-1]] += count
            types[length][gram[:-1]] += 1
        once = sum(count == 1 for count in counts[length].values())
        twice = sum(count == 2 for count in counts[length].values())
        discounts[length] = once / (once + 2 * twice) if once and twice else 0.75

    def probability(gram: tuple[str, ...]) -> float:
        if not gram:
            return 1 / (len(known) + 1)
        length, shorter = len(gram), probability(gram[1:])
        total = totals[length][gram[:-1]]
        if not total:
            return shorter
        spread = discounts[length] * types[length][gram[:-1]] / total
        return max(counts[length][gram] - discounts[length], 0) / total + spread * shorter

    found = []
    for text in map(marked, texts):
        logs = []
        for end in range(order - 1, len(text)):
            value = probability(tuple(text[end - order + 1 : end + 1]))
            logs.append(math.log(value / shared if text[end] == "<unk>" else value))
        found.append(math.exp(-sum(logs) / len(logs)) if logs else math.nan)
    return found


TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "水", "火"]), max_size=12), min_size=1, max_size=5)


@given(training=TEXTS, texts=TEXTS, order=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_perplexities_are_those_of_slow_counting(
    tmp_path_factory: pytest.TempPathFactory, training: Words, texts: Words, order: int
) -> None:
    training, texts = [list(t) for t in training], [list(t) for t in texts]
    model = train(tokens(pa.array(map(" ".join, training), pa.string())), order, 1000)
    path = tmp_path_factory.mktemp("model") / "ngrams.npz"
    model.save(path)
    found = NgramModel.load(path).perplexities(tokens(pa.array(map(" ".join, texts), pa.string())), 1000)
    assert found.tolist() == pytest.approx(slow_perplexities(training, texts, order), nan_ok=True)


def test_probabilities_of_all_tokens_sum_to_one() -> None:
    """After any context, those of the known tokens and of the unknown one."""
    words = ["the", "cat", "sat", "on", "the", "mat", "and", "the", "dog", "sat", "on", "the", "cat"]
    model = train(tokens(pa.array([" ".join(words)])), 3, 1000)
    known = sorted(word for word, count in Counter(words).items() if count > 1)
    for context in ("", "the", "sat on", "never seen"):
        total = 0.0
        for word in [*known, "zebra"]:
            both = model.perplexities(tokens(pa.array([f"{context} {word}"])), 100)[0]
            before = model.perplexities(tokens(pa.array([context])), 100)[0] if context else 1.0
            size = len(context.split())
            total += before**size / both ** (size + 1) * (model.unknown if word == "zebra" else 1)
        assert total == pytest.approx(1)


def test_an_area_and_its_interval() -> None:
    """Against counting pairs, and against a bootstrap."""
    rng = np.random.default_rng(3)
    good, bad = np.round(rng.normal(1, 1, 300), 1), np.round(rng.normal(0, 1, 200), 1)
    found = area(good, bad)
    assert found.value == pytest.approx(np.mean((good[:, None] > bad) + 0.5 * (good[:, None] == bad)))
    again = [area(rng.choice(good, 300), rng.choice(bad, 200)).value for _ in range(400)]
    assert (found.high - found.low) / 3.92 == pytest.approx(np.std(again), rel=0.15)
    assert area(good, good).low < 0.5 < area(good, good).high
    perfect = area(np.ones(60), np.zeros(30))
    assert perfect.value == perfect.high == 1 and perfect.low == pytest.approx(0.9)


@given(st.lists(st.sampled_from([f"text {n}" for n in range(30)] + [" ", ""]), max_size=80), st.integers(1, 20))
def test_a_sample_does_not_depend_on_order_or_cuts(texts: list[str], count: int) -> None:
    whole = sampled([pa.array(texts, pa.string())], count)
    shuffled = random.Random(1).sample(texts, len(texts))
    cut = sampled([pa.array(shuffled[n : n + 3], pa.string()) for n in range(0, len(texts), 3)], count)
    different = {text for text in texts if text.strip()}
    assert whole == cut and set(whole) <= different and len(whole) == min(count, len(different))


# ----------------------------------------------------------------------------------------------- planted bad text
def shuffled_words(text: str, rng: random.Random) -> str:
    words = tokens_of(text)
    rng.shuffle(words)
    return (" " if text.isascii() else "").join(words)


def read(path: Path, count: int, seed: int) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line)["text"] for line in lines]
    return random.Random(seed).sample(rows, count)


SPAM = {
    "en": "cheap watches best price click here win free money casino bonus loan discount sale offer limited order",
    "zh": "点击领取优惠红包 加微信客服 限时抢购 全场包邮 免费注册送彩金 官方正品 代开发票 高薪兼职日结",
}


@pytest.fixture(scope="module")
def planted(data_directory: Path) -> dict[str, tuple[list[str], list[str], list[str]]]:
    """Per language: good examples, a corpus of two thirds good text, and what each document of it is."""
    found = {}
    english = read(data_directory / "text" / "wikipedia-leads-en.jsonl.gz", 3400, 1)
    poems = read(data_directory / "text" / "tang-poems-zh.jsonl.gz", 5000, 1)
    chinese = ["".join(poems[n : n + 3]) for n in range(0, 4800, 3)]
    pages = read(data_directory / "messy" / "near-duplicate-api-pages.jsonl.gz", 200, 1)
    for language, texts, foreign in (("en", english, chinese), ("zh", chinese, english)):
        rng = random.Random(language)
        good, rest = texts[: len(texts) // 2], texts[len(texts) // 2 :]
        clean, broken = rest[: 600 if language == "zh" else 1200], rest[-150:]
        spam = [" ".join(rng.choices(SPAM[language].split(), k=60)) for _ in range(100)]
        parts = {
            "good": clean,
            "shuffled": [shuffled_words(text, rng) for text in broken],
            "spam": spam,
            "page": pages[:100],
            "foreign": foreign[:100],
        }
        found[language] = (
            good,
            [text for some in parts.values() for text in some],
            [kind for kind, some in parts.items() for _ in some],
        )
    return found


def lines(path: Path, texts: Sequence[str]) -> dict[str, str]:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return {"files": str(path)}


def fitted(tmp_path: Path, name: str, corpus: Sequence[str], **options: Any) -> tuple[Any, Evidence]:
    module = {"classify": classify, "perplexity": perplexity}[name]
    for key in ("good", "bad"):
        if isinstance(options.get(key), list):
            options[key] = lines(tmp_path / f"{key}.jsonl", options[key])
    raw = {
        "make": "corpus",
        "sources": [lines(tmp_path / "corpus.jsonl", corpus)],
        "clean": [{name: options}],
        "split": {"validation": 0, "test": 0},
    }
    config, context = CorpusConfig.model_validate(raw), Context(home=tmp_path)
    place = tmp_path / "fitted" / "0"
    place.mkdir(parents=True, exist_ok=True)
    module.fit(config.clean[0].settings, config, {}, context, place)
    return module.build(config.clean[0].settings, context, place), Evidence.load(place / "evidence.json")


def precision_and_recall(dropped: set[int], kinds: list[str]) -> tuple[float, float]:
    bad = {n for n, kind in enumerate(kinds) if kind != "good"}
    return len(dropped & bad) / len(dropped), len(dropped & bad) / len(bad)


@pytest.mark.parametrize(
    ("language", "name", "options", "least"),
    [
        ("en", "classify", {"keep": 0.72}, (0.76, 0.78)),
        ("zh", "classify", {"keep": 0.57}, (0.74, 0.74)),
        ("en", "perplexity", {"keep_good": 0.95}, (0.88, 0.81)),
        ("zh", "perplexity", {"keep_good": 0.95}, (0.92, 0.91)),
    ],
)
def test_planted_bad_text_is_dropped(
    tmp_path: Path,
    planted: dict[str, tuple[list[str], list[str], list[str]]],
    language: str,
    name: str,
    options: dict[str, Any],
    least: tuple[float, float],
) -> None:
    """Shuffled words, spam, code pages, another language: precision and recall (docs/en/filters.md has the table)."""
    good, corpus, kinds = planted[language]
    step, evidence = fitted(tmp_path, name, corpus, good=good, **options)
    dropped = set(step.clean(pa.array(corpus), {}).dropped)
    precision, recall = precision_and_recall(dropped, kinds)
    shares = {kind: sum(kinds[n] == kind for n in dropped) / kinds.count(kind) for kind in dict.fromkeys(kinds)}
    print(f"{language} {name}: precision {precision:.3f}, recall {recall:.3f}", shares)
    assert precision >= least[0] and recall >= least[1]
    assert evidence.checks[0].verdict == "passed"


def test_named_bad_text_and_a_calibrated_score(
    tmp_path: Path, planted: dict[str, tuple[list[str], list[str], list[str]]]
) -> None:
    good, corpus, kinds = planted["en"]
    rng = random.Random(8)
    bad = [shuffled_words(text, rng) for text in good[:600]] + [" ".join(rng.choices(SPAM["en"].split(), k=60))] * 3
    step, evidence = fitted(tmp_path, "classify", corpus, good=good[600:], bad=bad, min_score=0.5)
    dropped = set(step.clean(pa.array(corpus), {}).dropped)
    assert sum(kinds[n] == "shuffled" for n in dropped) / kinds.count("shuffled") > 0.85
    assert sum(kinds[n] == "good" for n in dropped) / kinds.count("good") < 0.15
    assert evidence.value("classifier_calibration") < 0.1


def test_what_cannot_be_told_apart_is_refused(
    tmp_path: Path, planted: dict[str, tuple[list[str], list[str], list[str]]]
) -> None:
    good, corpus, _ = planted["en"]
    with pytest.raises(RefusedError, match="cannot be told apart"):
        fitted(tmp_path, "classify", corpus[:1000], good=good[:500], bad=good[500:1000])
    rng = random.Random(2)
    noise = [" ".join(rng.choices("abcdefghij", k=60)) for _ in range(200)]
    with pytest.raises(RefusedError, match="cannot tell text from shuffled words"):
        fitted(tmp_path, "perplexity", corpus[:1000], good=noise)
    with pytest.raises(WuxingError, match="too few"):
        fitted(tmp_path, "classify", corpus[:1000], good=good[:20])
    with pytest.raises(WuxingError, match="too few"):
        fitted(tmp_path, "perplexity", corpus[:1000], good=good[:20])


def test_only_named_languages_are_judged(
    tmp_path: Path, planted: dict[str, tuple[list[str], list[str], list[str]]]
) -> None:
    good, corpus, kinds = planted["en"]
    step, _ = fitted(tmp_path, "perplexity", corpus, good=good)
    step.config = step.config.model_copy(update={"languages": ("en",)})
    said = ["zh" if kind == "foreign" else "en" for kind in kinds]
    cleaned = step.clean(pa.array(corpus), {"language": said})
    assert not any(kinds[n] == "foreign" for n in cleaned.dropped) and cleaned.dropped
    with pytest.raises(UsageError, match="language step before it"):
        step.clean(pa.array(corpus), {})


def test_a_corpus_with_learned_steps_is_the_same_for_any_number_of_workers(
    make_step: Callable[..., Artifact],
    tmp_path: Path,
    planted: dict[str, tuple[list[str], list[str], list[str]]],
) -> None:
    good, corpus, _ = planted["en"]
    corpus = corpus[::3]
    (tmp_path / "many").mkdir()
    for n in range(0, len(corpus), 100):
        lines(tmp_path / "many" / f"{n:05}.jsonl", corpus[n : n + 100])
    config = {
        "sources": [{"files": str(tmp_path / "many"), "name": "many"}],
        "clean": [
            "normalise",
            "boilerplate",
            {"classify": {"good": lines(tmp_path / "good.jsonl", good[:300]), "keep": 0.8, "sample": 300}},
            {"perplexity": {"good": lines(tmp_path / "good.jsonl", good[:300]), "sample": 300}},
        ],
        "split": {"validation": 0.1, "test": 0.1},
    }
    one = make_step(CorpusKind(), {**config, "workers": 1}, name="one", context=Context(home=tmp_path / "a"))
    two = make_step(CorpusKind(), {**config, "workers": 2}, name="two", context=Context(home=tmp_path / "b"))
    assert one.content == two.content or _different(one, two) <= NAMED
    names = {check.name for check in Evidence.load(one.path / "evidence.json").checks}
    assert {"classifier_auc", "classifier_calibration", "perplexity_auc", "perplexity"} <= names
    fates = json.loads((one.path / "fates.json").read_text())["counts"]
    assert fates["filtered:unlike_good_text"] > 50 and fates["filtered:surprising"] > 5


NAMED = {"card.md", "card.json", "report.html", "report.zh.html"}
"""Files that hold the artifact's name."""


def _different(one: Artifact, two: Artifact) -> set[str]:
    a, b = one.record["files"], two.record["files"]
    return {name for name in a | b if a.get(name, {}).get("sha256") != b.get(name, {}).get("sha256")}


def test_models_hold_no_pickle(tmp_path: Path, planted: dict[str, tuple[list[str], list[str], list[str]]]) -> None:
    good, corpus, _ = planted["en"]
    fitted(tmp_path, "classify", corpus, good=good[:300], sample=300)
    fitted(tmp_path, "perplexity", corpus, good=good[:300], sample=300)
    for path in (tmp_path / "fitted").rglob("*.np?"):
        loaded = np.load(path, allow_pickle=False)
        arrays = [loaded[name] for name in loaded.files] if path.suffix == ".npz" else [loaded]
        assert all(array.dtype != object for array in arrays)
