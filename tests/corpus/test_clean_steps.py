"""Cleaning steps on text that was made to trip them, on real text, and twice."""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.context import Context
from wuxing.core.error import UsageError
from wuxing.core.record import Drop, Record
from wuxing.corpus.clean import Cleaning, apply
from wuxing.corpus.clean.c4 import C4
from wuxing.corpus.clean.config import (
    C4Config,
    CleanStep,
    FineWebConfig,
    LanguageConfig,
    QualityConfig,
    RepetitionConfig,
)
from wuxing.corpus.clean.fineweb import FineWeb
from wuxing.corpus.clean.normalise import Normalise
from wuxing.corpus.clean.privacy import Privacy
from wuxing.corpus.clean.quality import Quality
from wuxing.corpus.clean.repair import MOJIBAKE, Repair
from wuxing.corpus.clean.repetition import Repetition

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=120)


def leads(data_directory: Path, count: int = 400) -> list[str]:
    with gzip.open(data_directory / "text" / "wikipedia-leads-en.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]


def poems(data_directory: Path, count: int = 400) -> list[str]:
    with gzip.open(data_directory / "text" / "tang-poems-zh.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]
    return [text for text in found if text]


@pytest.mark.parametrize("text", ["schön, naïve “quoted” – dash…", "Ärger über Öl", "Τα ελληνικά", "日本語", "€ 5"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_mojibake_is_mended(text: str, encoding: str) -> None:
    try:
        broken = text.encode().decode(encoding)
    except UnicodeDecodeError:
        broken = text.encode().decode("latin-1")
    assert Repair().change(broken) == text


@pytest.mark.parametrize("text", ["schön", "Ã is a letter, Â too", "naïve café", "100 Â", "Tāmaki", "£5", "汉字"])
def test_sound_text_is_not_mended(text: str) -> None:
    assert Repair().change(text) == text


def test_the_pattern_finds_all_that_ftfy_would_mend(data_directory: Path) -> None:
    """On real leads, broken on purpose: the pattern is a filter before ftfy, not a judgement of its own."""
    from ftfy import fix_encoding

    for text in leads(data_directory):
        for version in (text, text.encode().decode("latin-1")):
            if fix_encoding(version) != version:
                assert MOJIBAKE.search(version)


@given(texts)
@settings(deadline=None, max_examples=400)
@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_normalising_twice_changes_nothing_more(form: Any, text: str) -> None:
    step = Normalise(form)
    once = step.change(text)
    assert step.change(once) == once
    assert unicodedata.is_normalized(form, once)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in once)


def test_normalising_by_example() -> None:
    messy = " \ufeffCafe\u0301\r\n\r\n\r\n\r\nzero\u200bwidth  \u00a0end \x07\rfamily: 👨\u200d👩\n"
    assert Normalise().change(messy) == "Café\n\nzerowidth   end\nfamily: 👨\u200d👩"
    assert Normalise("NFKC").change("ＡＢＣ①ﬁ") == "ABC1fi"
    assert Normalise(max_blank_lines=0).change("a\n\n\nb") == "a\nb"


@given(texts)
@settings(deadline=None)
def test_all_text_steps_leave_what_they_cleaned(text: str) -> None:
    steps = [Repair(), Normalise(), Privacy()]
    for step in steps:
        text = step.change(text)
    assert Privacy().change(text) == text


def test_good_english_and_good_chinese_pass_the_quality_rules(data_directory: Path) -> None:
    with gzip.open(data_directory / "chat" / "alpaca_zh_demo.jsonl.gz", "rt", encoding="utf-8") as lines:
        replies = [json.loads(line)["output"] for line in lines]
    modern = [text for text in replies if len(text) > 60 and sum("一" <= c <= "龥" for c in text) > 0.8 * len(text)]
    old = [text for text in poems(data_directory) if len(text) > 40]
    rules, poem_rules = QualityConfig(min_words=20), QualityConfig(min_words=20, min_stop_words=0)
    english = leads(data_directory)
    for documents, language, config in ((english, "en", rules), (modern, "zh", rules), (old, None, poem_rules)):
        records = [Record("r", "s", text=t, meta={"language": language} if language else {}) for t in documents]
        quality = Quality(config)
        kept = sum(isinstance(apply(quality, [record])[0], Record) for record in records)
        assert kept / len(records) >= 0.94


PROSE = "The house stood at the end of the road, and nobody had lived in it for a long time, as far as they knew. "


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Too short.", "too_short"),
        ("a b c d e. " * 40, "short_words"),
        ("incomprehensibilities counterrevolutionaries. " * 40, "long_words"),
        ("hashing# often# whenever# nobody# looks# " * 20, "too_many_symbols"),
        ("the 1234 of 2345 and 3456 to 4567 with 5678 123456. " * 20, "too_few_letters"),
        ("Apples pears plums cherries melons lemons. " * 20, "too_few_stop_words"),
        ("- the houses of the mountain\n" * 30, "bullet_list"),
        ("The house of the man and the garden of the woman and so on...\n" * 30, "cut_lines"),
        ("The house of the man and the garden\n" * 30, "no_sentences"),
    ],
)
def test_each_quality_rule_names_what_it_drops(text: str, reason: str) -> None:
    quality = Quality(QualityConfig(max_mean_word_characters=9))
    drop = apply(quality, [Record("r", "s", text=text, meta={"language": "en"})])[0]
    assert isinstance(drop, Drop)
    assert drop.reason == reason
    assert isinstance(apply(quality, [Record("r", "s", text=PROSE * 4, meta={"language": "en"})])[0], Record)


def test_measures_are_the_statistics_of_each_document() -> None:
    texts = ["春眠不覺曉，處處聞啼鳥。\n夜來風雨聲，花落知多少。", "One two. three,\n- four", ""]
    measures = Quality(QualityConfig()).clean(pa.array(texts), {}).measures
    assert measures["words"].tolist() == [20, 5, 0]
    assert measures["alpha_ratio"].tolist() == [1, 4 / 5, 0]
    assert [round(mean, 2) if mean == mean else None for mean in measures["mean_word_characters"]] == [None, 3.6, None]
    assert measures["stop_words"][0] == 2  # 不, 來
    assert measures["ended_lines"].tolist() == [1, 0.5, 0]
    again = Repetition(RepetitionConfig()).clean(pa.array(["aa\nbb\naa\n\naa\n", "a b c d e a b c d e f"]), {})
    assert again.measures["duplicate_lines"].tolist() == [2 / 4, 0]
    assert again.measures["duplicate_line_characters"].tolist() == [4 / 8, 0]
    assert again.measures["repeated_5gram"].tolist() == [0, 5 / 11]
    assert list(again.dropped) == [0]


def test_fineweb_s_rules_by_example() -> None:
    step = FineWeb(FineWebConfig())
    menu = "Home\nNews of today\nContact us\nAll of our products are listed here, in order of their price."
    reasons = {
        PROSE * 4: None,
        "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。": None,
        f"{menu}\n{menu[::-1]}\nEnd.": "short_lines",
        "The house of the man and the garden of it\n" * 9: "no_sentences",
        f"{PROSE}\n{PROSE}": "repeated_lines",
        "one two three\n\n\nfour five, six. seven eight nine\n\n\n\n. Here they are, a lot.": "too_many_lines",
    }
    found = step.clean(pa.array(list(reasons)), {})
    assert {place: drop.reason for place, drop in found.dropped.items()} == {
        place: reason for place, reason in enumerate(reasons.values()) if reason
    }


def test_c4_takes_lines_out_and_judges_what_is_left() -> None:
    step = C4(C4Config(min_sentences=2))
    page = f"Home\n  {PROSE.strip()} \nEnable JavaScript to go on reading.\n{PROSE.strip()}\nContact us"
    values = pa.array([page, PROSE * 3, f"{PROSE * 3}{{", "menu\nmenu", PROSE.strip(), "他来了。我也来了。"])
    found = step.clean(values, {})
    assert found.values[0].as_py() == f"{PROSE.strip()}\n{PROSE.strip()}"
    assert found.values[5].as_py() == "他来了。我也来了。"
    assert {place: drop.reason for place, drop in found.dropped.items()} == {
        **{2: "bad_phrase", 3: "empty", 4: "too_few_sentences"},
    }
    assert step.found == {"lines": 3 + 1 + 2}
    clean = pa.array(["他来了。我也来了。"])
    assert step.clean(clean, {}).values is clean


def test_repetition_drops_what_repeats_and_keeps_prose(data_directory: Path) -> None:
    step = Repetition(RepetitionConfig())
    reasons = Counter(
        end.reason if isinstance(end := apply(step, [Record("r", "s", text=text)])[0], Drop) else "kept"
        for text in [*leads(data_directory), *poems(data_directory)]
    )
    assert reasons["kept"] / reasons.total() > 0.98
    spam = apply(step, [Record("r", "s", text="buy it now at a low price today " * 40)])[0]
    assert isinstance(spam, Drop)
    lines = apply(step, [Record("r", "s", text="Home\nNews\nHome\nNews\nHome\nNews")])[0]
    assert lines == Drop("repeated_lines", "0.667")


def test_a_step_s_counts_add_up(data_directory: Path) -> None:
    steps = [CleanStep.model_validate(s) for s in ("repair", "normalise", {"quality": {"min_words": 60}}, "privacy")]
    cleaning = Cleaning(steps, Context())
    documents = [Record(f"r{n}", "s", text=t, meta={"language": "en"}) for n, t in enumerate(leads(data_directory))]
    dialogue = [{"role": "user", "content": "Mail a@b.org"}, {"role": "assistant", "content": "No."}]
    ended = cleaning.clean([*documents, Record("d", "s", messages=dialogue)])
    assert [count.records for count in cleaning.counts][:3] == [401, 401, 400]
    dropped = sum(isinstance(end, Drop) for end in ended)
    assert dropped == sum(count.dropped.total() for count in cleaning.counts)
    assert cleaning.counts[3].records == 401 - dropped
    assert isinstance(ended[-1], Record)
    assert ended[-1].messages == [{"role": "user", "content": "Mail <mail>"}, {"role": "assistant", "content": "No."}]


@pytest.mark.network
def test_languages_are_identified(data_directory: Path, tmp_path: Path) -> None:
    from wuxing.corpus.clean.language import Language, model_path

    path = model_path(Context(home=tmp_path))
    language = Language(path)
    for documents, expected in ((leads(data_directory), "en"), (poems(data_directory), "zh")):
        found = Counter(language.identify(text)[0] for text in documents)
        assert found[expected] / found.total() > 0.97
    keep = Language(path, keep=("en",))
    assert apply(keep, [Record("r", "s", text="春眠不覺曉，處處聞啼鳥。")])[0].reason == "wrong_language"
    kept = apply(keep, [Record("r", "s", text=PROSE)])[0]
    assert isinstance(kept, Record)
    assert kept.meta["language"] == "en"
    doubtful = [Record("r", "s", text=PROSE[:60])]
    assert isinstance(apply(Language(path, ("en",), 0.5), doubtful)[0], Record)
    strict = apply(Language(path, ("en", "zh"), 0.5, {"en": 1.0}), [*doubtful, Record("z", "s", text="春眠不覺曉")])
    assert [isinstance(end, Drop) and end.reason for end in strict] == ["unsure_language", False]
    with pytest.raises(ValueError, match="keep does not name"):
        LanguageConfig(keep=("en",), min_confidence_of={"zh": 0.8})
    with pytest.raises(UsageError, match='lid.176 knows no language "english"'):
        Language(path, keep=("english",))
