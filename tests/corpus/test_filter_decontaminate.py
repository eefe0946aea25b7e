"""Decontamination: planted evaluation items are found however they are hidden, clean text stays."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.evidence import Evidence
from wuxing.core.record import Record
from wuxing.core.splits import write_records
from wuxing.corpus.clean import decontaminate
from wuxing.corpus.clean.decontaminate import Decontaminate, build, unit_keys
from wuxing.corpus.clean.filter_config import DecontaminateConfig
from wuxing.corpus.clean.leak import words_of
from wuxing.corpus.kind import CorpusKind
from wuxing.text.shingle import tokens_of

Fitted = Callable[..., Decontaminate]


def artifact(path: Path, name: str, records: list[Record], kind: str = "corpus") -> Artifact:
    directory = path / name
    directory.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        write_records(directory, split, records if split == "test" else [])
    return Artifact(directory, {"kind": kind, "name": name, "version": 1, "content": name})


@pytest.fixture
def fitted(tmp_path: Path) -> Fitted:
    def make(records: list[Record], **options: Any) -> Decontaminate:
        config = DecontaminateConfig(against=("exam",), **options)
        parents = {"exam": artifact(tmp_path, "exam", records)}
        place = tmp_path / "fitted"
        place.mkdir()
        decontaminate.fit(config, None, parents, Context(home=tmp_path), place)  # type: ignore[arg-type]
        return build(config, Context(home=tmp_path), place)

    return make


def asked(id: str, question: str, answer: str = "42") -> Record:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Record(id, "exam", messages=turns)


@pytest.fixture(scope="module")
def gsm(data_directory: Path) -> list[Record]:
    with gzip.open(data_directory / "math" / "gsm8k-test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [asked(f"exam/test#{n}", row["question"], row["answer"]) for n, row in enumerate(rows)]


@pytest.fixture(scope="module")
def articles(data_directory: Path) -> list[str]:
    with gzip.open(data_directory / "text" / "wikipedia-leads-en.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def question(record: Record) -> str:
    assert record.messages
    return record.messages[0]["content"]


HIDINGS: dict[str, Callable[[str, str], str]] = {
    "verbatim": lambda item, text: item,
    "in another case": lambda item, text: item.upper(),
    "with other space": lambda item, text: "  ".join(item.split(" ")).replace(". ", ".\n\t"),
    "inside a long text": lambda item, text: f"{text[: len(text) // 2]}\n{item} {text[len(text) // 2 :]}",
    "with other punctuation": lambda item, text: item.replace(",", "，").replace(".", "。").replace("?", "？ !"),
    "inside a word's neighbours": lambda item, text: f"{text}-{item}-{text}",
}


@pytest.mark.parametrize("how", HIDINGS)
def test_planted_problems_are_all_found(how: str, gsm: list[Record], articles: list[str], fitted: Fitted) -> None:
    """Recall 1 over 1,319 real problems, however they are hidden; of 3,000 articles none leaves."""
    step = fitted(gsm)
    planted = [HIDINGS[how](question(item), articles[n]) for n, item in enumerate(gsm)]
    cleaned = step.clean(pa.array(planted + articles[:3000]), {})
    assert len(gsm) == 1319 and set(cleaned.dropped) == set(range(len(gsm)))
    assert all(drop.reason == "contaminated" for drop in cleaned.dropped.values())
    wrong = [n for n, item in enumerate(gsm) if not cleaned.dropped[n].detail.startswith(item.id)]
    twins = [n for n in wrong if question(gsm[n])[:40] not in "".join(question(g)[:40] for g in gsm[:n] + gsm[n + 1 :])]
    assert not twins, "each is named by its own item, or by one with the same beginning"
    assert all(step.found[item.id] >= 1 for item in gsm)


def test_training_problems_of_the_same_author_are_not_all_dropped(
    gsm: list[Record], data_directory: Path, fitted: Fitted
) -> None:
    """Against the exact slow method: every dropped training problem does share 13 words with a test problem."""
    with gzip.open(data_directory / "math" / "gsm8k-train.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["question"] for line, _ in zip(lines, range(3000), strict=False)]
    cleaned = fitted(gsm).clean(pa.array(texts), {})
    runs = set()
    for item in gsm:
        for message in item.messages or ():
            words = tokens_of(message["content"])
            runs |= {tuple(words[i : i + 13]) for i in range(len(words) - 12)}
    expected = set()
    for number, text in enumerate(texts):
        words = tokens_of(text)
        if any(tuple(words[i : i + 13]) in runs for i in range(len(words) - 12)):
            expected.add(number)
    assert set(cleaned.dropped) == expected and len(expected) < 150


def test_chinese_items_are_compared_by_characters(fitted: Fitted) -> None:
    item = "小明有三个苹果，他又买了五个苹果，然后送给朋友两个，请问他现在还有几个苹果？"
    step = fitted([asked("exam/1", item)])
    hidden = item.replace("，", ",").replace("？", "?")
    texts = [f"下面是一道题：{hidden}请回答。", "小明喜欢吃苹果，他每天吃三个。", "请问他现在有几个桃子？" + item[:12]]
    assert set(step.clean(pa.array(texts), {}).dropped) == {0}


def test_short_items(fitted: Fitted) -> None:
    """Nine words: anywhere, as a whole.  Four: as a text, a line or a sentence, and signs of arithmetic count."""
    nine, four = "Which river flows through the old town of Prague?", "What is 12 + 34?"
    step = fitted([asked("exam/nine", nine), asked("exam/four", four), asked("exam/zh", "一加一等于几？")])
    texts = [
        f"Many ask: {nine.lower()} The Vltava.",
        "Which river flows through the old town of Vienna?",
        "what is 12+34",
        "First this. What is  12 + 34 ? Then that.",
        "Question: What is 12 + 34?",
        "What is 12 - 34?",
        "I know what is 12 + 34 and more.",
        "老师问：\n一加一等于几？\n二。",
        "一加一等于几乎没有人知道的数。",
        "42",
    ]
    assert set(step.clean(pa.array(texts), {}).dropped) == {0, 2, 3, 4, 7}


def test_shares_spare_what_only_quotes(fitted: Fitted) -> None:
    long = " ".join(f"word{n}" for n in range(100))
    quote = " ".join(f"word{n}" for n in range(20))
    strict, loose = Record("exam/long", "exam", text=long), 0.5
    step = fitted([strict], min_share=loose)
    assert set(step.clean(pa.array([quote, long]), {}).dropped) == {1}


def test_any_run_counts_by_default(fitted: Fitted) -> None:
    long = " ".join(f"word{n}" for n in range(100))
    step = fitted([Record("exam/long", "exam", text=long)])
    texts = [" ".join(f"word{n}" for n in range(40, 53)), " ".join(f"word{n}" for n in range(40, 52))]
    cleaned = step.clean(pa.array(texts), {})
    assert {place: drop.detail for place, drop in cleaned.dropped.items()} == {0: "exam/long 0.01"}


def test_cutting_leaves_the_rest(articles: list[str], gsm: list[Record], fitted: Fitted) -> None:
    step = fitted(gsm, action="cut")
    before, after = articles[0], articles[1]
    texts = [f"{before}\n\n{question(gsm[5])}\n\n{after}", question(gsm[6]), before]
    cleaned = step.clean(pa.array(texts), {})
    assert cleaned.values[0].as_py() == f"{before}\n\n{after}"
    assert cleaned.values[2].as_py() == before
    assert {place: drop.reason for place, drop in cleaned.dropped.items()} == {1: "contaminated"}
    assert not step.clean(cleaned.values.take([0]), {}).dropped


def test_cutting_again_what_cutting_joins(fitted: Fitted) -> None:
    words = [f"w{n}" for n in range(14)]
    other = [f"x{n}" for n in range(13)]
    step = fitted(
        [Record("exam/a", "exam", text=" ".join(words)), Record("exam/b", "exam", text=" ".join(other))],
        action="cut", min_left_words=0,
    )  # fmt: skip
    text = " ".join(["start", *words[:7], *other, *words[7:], "end"])
    assert step.clean(pa.array([text]), {}).values.to_pylist() == ["start end"]


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_the_check_never_has_finer_words_than_the_step(text: str) -> None:
    """Else it would blame the step for what the step could not see."""
    text = text.encode("utf-8", "ignore").decode()
    assert len(words_of(text)) <= len(tokens_of(text))


@given(st.lists(st.sampled_from("ab?.！ \n12+-"), max_size=12).map("".join))
@settings(max_examples=100, deadline=None)
def test_units_are_those_of_single_texts(text: str) -> None:
    owners, keys = unit_keys(pa.array(["other one. yes", text]))
    _, alone = unit_keys(pa.array([text]))
    assert sorted(keys[owners == 1].tolist()) == sorted(alone.tolist())


def test_a_corpus_is_cleaned_of_what_it_names(
    make_step: Callable[..., Artifact], tmp_path: Path, gsm: list[Record], articles: list[str]
) -> None:
    """Through the whole step: fates, `contamination.json`, and evidence by other code that passes."""
    rng, items = random.Random(3), gsm[:60]
    rows = [{"text": text} for text in articles[:500]]
    rows += [{"text": f"{articles[600 + n]} {question(item)}"} for n, item in enumerate(items[:40])]
    rng.shuffle(rows)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = {
        "sources": [{"files": str(tmp_path / "rows.jsonl")}],
        "clean": ["normalise", {"decontaminate": {"against": ["exam"]}}],
        "split": {"validation": 0.1, "test": 0.1},
    }
    parents = {"1:decontaminate exam": artifact(tmp_path, "exam", items)}
    made = make_step(CorpusKind(), config, parents)
    fates = json.loads((made.path / "fates.json").read_text())
    assert fates["counts"]["filtered:contaminated"] == 40
    found = json.loads((made.path / "contamination.json").read_text())
    assert found["items"] == {"exam": 60}
    assert set(found["records_by_item"]) >= {item.id for item in items[:40]}
    evidence = Evidence.load(made.path / "evidence.json")
    check = next(check for check in evidence.checks if check.name == "evaluation_overlap")
    assert check.verdict == "passed" and check.value["left"] == 0 and check.value["checked"] == 60


def test_the_evidence_fails_when_items_are_left(tmp_path: Path, gsm: list[Record], articles: list[str]) -> None:
    items = [
        *gsm[:5],
        asked("exam/short", "Which river flows through the old town of Prague?"),
        asked("exam/s", "Why?"),
    ]
    planted = [question(gsm[3]), "so: which river flows through the old town of prague? yes", "Well.\nWhy?\nSo."]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    texts = articles[:20] + planted
    write_records(corpus, "train", [Record(f"a#{n}", "a", text=text) for n, text in enumerate(texts)])
    evidence, parents = Evidence(), {"exam": artifact(tmp_path, "exam", items)}
    config = DecontaminateConfig(against=("exam",))
    decontaminate.finish(config, 0, parents, Context(home=tmp_path), corpus, {}, evidence)
    (check,) = evidence.checks
    assert check.name == "evaluation_overlap" and check.verdict == "failed" and check.value["left"] == 3
