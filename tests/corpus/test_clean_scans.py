"""Whole columns through the C passes equal the steps on single texts: what the passes skip has nothing to find."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.corpus.clean.normalise import Normalise
from wuxing.corpus.clean.privacy import RULES, Privacy, mark_of
from wuxing.corpus.clean.repair import MOJIBAKE, Repair
from wuxing.corpus.private import MAY_BE_PRIVATE, private_findings
from wuxing.source.encoding import decode
from wuxing.text import scan
from wuxing.text.scan import MARKS, SAME, marks, normalised

anything = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
spaces = st.text(st.sampled_from("ab\t \n\r\x0b\x85\xa0\u2003\u2028\u3000\u200b\u1680é\u0301\u0323각\u11a8か\u3099中"))
mixed = st.lists(anything | spaces | st.just("plain words, eight and more. "), max_size=4).map("".join)
PIECES = (
    *"0123456789ABEGKaek+-_.:()@ ·中京é",
    *("139", "2024-", "010-", "ff::", "AKIA", "sk-", "ghp_", "DE89", "eyJabcdefghi", "-----BEGIN ", "PRIVATE KEY-----"),
    *(
        "4111",
        "1111 ",
        "078-05-1120",
        "hf_",
        "a" * 30,
        "粤B",
        "example.org",
        "192.168.",
        "12:30:",
        "2001:db8:",
        "Ã",
        "â€",
    ),
)
private = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
documents = st.lists(mixed | private, max_size=4)


@given(documents, st.sampled_from(["NFC", "NFKC"]), st.integers(0, 2), st.booleans())
@settings(deadline=None, max_examples=600)
def test_the_normalised_column_is_what_the_step_makes_of_each_text(
    texts: list[str], form: Literal["NFC", "NFKC"], blank: int, wide: bool
) -> None:
    array = pa.array(["\n out", *texts], pa.large_string() if wide else pa.string()).slice(1)
    step = Normalise(form, blank)
    expected = [step.change(text) for text in texts]
    cleaned = step.clean(array, {})
    cleaned.values.validate(full=True)
    assert cleaned.values.to_pylist() == expected
    assert sorted(cleaned.dropped) == [place for place, text in enumerate(expected) if not text]
    assert (cleaned.values is array) == (expected == texts)
    _, status = normalised(array, form, blank)
    assert all(text == new for text, new, s in zip(texts, expected, status, strict=True) if s == SAME)


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_every_code_point_is_normalised_alike(form: Literal["NFC", "NFKC"]) -> None:
    points = [chr(p) for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    texts = [f"e{c}x" for c in points] + [f"가\u0323{c}\u0301" for c in points[:0x30000]]
    step = Normalise(form)
    array = pa.array(texts)
    expected = [step.change(text) for text in texts]
    assert step.clean(array, {}).values.to_pylist() == expected
    _, status = normalised(array, form, 1)
    letters = [n for n, c in enumerate(points) if unicodedata.name(c, "").startswith("CJK UNI")]
    assert len(letters) > 90_000
    assert (status[letters] == SAME).all(), "Chinese text must not need a look"


@given(st.lists(private | mixed, max_size=3))
@settings(deadline=None, max_examples=700)
def test_a_text_without_a_mark_has_nothing_to_find(texts: list[str]) -> None:
    found = marks(pa.array(texts, pa.string()))
    for text, bits in zip(texts, found.tolist(), strict=True):
        if MOJIBAKE.search(text):
            assert bits & 1
        for kind, rules in RULES.items():
            for rule in rules:
                hit = any(rule.span(match) for match in rule.pattern.finditer(text))
                assert bits & mark_of(kind, rule) or not hit, (kind, text)


@given(st.data())
@settings(deadline=None, max_examples=600)
def test_what_the_rules_match_is_marked(data: st.DataObject) -> None:
    """Texts made from the rules' own patterns, with anything around them."""
    kind = data.draw(st.sampled_from(sorted(RULES)))
    rule = data.draw(st.sampled_from(RULES[kind]))
    text = data.draw(st.from_regex(rule.pattern))
    if any(rule.span(match) for match in rule.pattern.finditer(text)):
        assert marks(pa.array([text]))[0] & mark_of(kind, rule)


@given(st.lists(private | mixed, max_size=3), st.sampled_from(["<{kind}>", "", "-"]))
@settings(deadline=None, max_examples=500)
def test_columns_are_redacted_and_mended_as_single_texts_are(texts: list[str], put: str) -> None:
    for step in (Privacy(replacement=put), Repair()):
        found = step.clean(pa.array(texts, pa.string()), {}).values.to_pylist()
        assert found == [step.change(text) for text in texts]


@given(private | mixed, st.sampled_from(["", " ", "x", "号", "."]), st.data())
@settings(deadline=None, max_examples=700)
def test_the_independent_check_finds_what_redaction_finds_and_nothing_after_it(
    text: str, sign: str, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(sorted(RULES)))
    text = f"{text}{sign}{data.draw(st.from_regex(data.draw(st.sampled_from(RULES[kind])).pattern))}"
    step = Privacy()
    cleaned = step.change(text)
    found = private_findings(text)
    assert private_findings(cleaned) == {}, (cleaned, text)
    if len(step.found) == 1:  # of two kinds that meet, one takes digits that the other needs
        assert set(step.found) <= set(found), (step.found, text)
    if found:
        assert pc.match_substring_regex(pa.array([text]), MAY_BE_PRIVATE)[0].as_py()


def test_real_text_is_treated_as_single_texts_are(data_directory: Path) -> None:
    texts = []
    with tarfile.open(data_directory / "messy" / "mails.tar.gz") as archive:
        for entry, _ in zip(archive, range(300), strict=False):
            stream = archive.extractfile(entry)
            if stream and isinstance(text := decode(io.BytesIO(stream.read()).getvalue()), str):
                texts.append(text)
    with gzip.open(data_directory / "text" / "tang-poems-zh.jsonl.gz", "rt", encoding="utf-8") as lines:
        poems = [json.loads(line)["text"] or "x" for line, _ in zip(lines, range(500), strict=False)]
    for step in (Repair(), Normalise(), Normalise("NFKC"), Privacy()):
        every = [*texts, *poems]
        assert step.clean(pa.array(every), {}).values.to_pylist() == [step.change(text) for text in every]
    assert (normalised(pa.array(poems), "NFC", 1)[1] != scan.UNKNOWN).all()


def test_marks_are_read_in_time_that_grows_with_the_text() -> None:
    """A second scan of a run from each of its signs would take minutes here."""
    for text in (
        ":a" * 500_000,
        "1 " * 500_000,
        "A" * 1_000_000,
        "é京A·" * 200_000,
        "@" * 1_000_000,
        "-----BEGIN " * 90_000,
    ):
        assert len(marks(pa.array([text]))) == 1


def test_without_a_compiler_every_text_gets_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_library", lambda: "no C compiler is installed")
    array = pa.array(["a \nb", "Mail a@b.org", "x"])
    assert Normalise().clean(array, {}).values.to_pylist() == ["a\nb", "Mail a@b.org", "x"]
    assert Privacy().clean(array, {}).values.to_pylist() == ["a \nb", "Mail <mail>", "x"]
    assert np.unique(marks(array)).tolist() == [(1 << len(MARKS)) - 1]
