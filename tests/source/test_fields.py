"""Rows to records: templates, dialogues in their many forms, and fields that lack."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from wuxing.core.error import WuxingError
from wuxing.core.record import Drop, Record
from wuxing.source.config import SourceConfig
from wuxing.source.fields import Mapper
from wuxing.source.row import Row


def mapped(value: dict[str, Any], **settings: Any) -> Record | Drop:
    return Mapper(SourceConfig.model_validate({"files": "f.json", **settings})).record(Row("f.json#3", value))


QUESTION = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]


def test_a_list_of_texts_becomes_lines_where_asked() -> None:
    verses = {"fields": {"text": "{title}\n\n{verses[]}"}}
    made = mapped({"title": "T", "verses": ["a", "b"]}, **verses)
    assert isinstance(made, Record) and made.text == "T\n\na\nb"
    assert mapped({"title": "T", "verses": ["a", 1]}, **verses) == Drop("no_text_in_field", "verses[] holds a list")
    assert isinstance(lacking := mapped({"title": "T"}, **verses), Drop) and lacking.reason == "missing_field"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": QUESTION},
        {"conversations": [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}]},
        {"conversation": ["How?", "So."]},
        {"instruction": "How?", "input": "", "output": "So."},
        {"prompt": "How?", "completion": "So."},
        {"question": "How?", "answer": "So."},
        {"value": ["How?", "So."]},
    ],
)
def test_the_usual_forms_of_a_dialogue(row: dict[str, Any]) -> None:
    made = mapped(row)
    assert isinstance(made, Record)
    assert made.messages == QUESTION
    assert made.id == "f/f.json#3"


def test_a_template_fills_in_fields_and_nothing_else() -> None:
    fields = {"text": "{title}\n\n{a.b} {1}{{x}}", "meta": ["title", "year"]}
    row = {"title": "{year}", "a": {"b": 7}, "1": "one", "x": "X", "year": 1999}
    made = mapped(row, fields=fields)
    assert made == Record("f/f.json#3", "f", text="{year}\n\n7 one{X}", meta={"title": "{year}", "year": 1999})


def test_a_system_message_and_a_question_with_its_answer() -> None:
    made = mapped({"q": "How?", "a": "So."}, fields={"prompt": "Q: {q}", "reply": "a", "system": "Be brief."})
    assert made == Drop("missing_field", "Be brief.")
    made = mapped({"q": "How?", "a": "So.", "s": "Be brief."}, fields={"prompt": "Q: {q}", "reply": "a", "system": "s"})
    assert isinstance(made, Record)
    assert [m["content"] for m in made.messages or ()] == ["Be brief.", "Q: How?", "So."]


@pytest.mark.parametrize("row", [{}, {"title": None}, {"title": " "}])
def test_a_lacking_field_is_dropped_filled_or_refused(row: dict[str, Any]) -> None:
    row = {"text": "x", **row}
    fields = {"text": "{title}: {text}"}
    assert mapped(row, fields=fields) == Drop("missing_field", "title")
    filled = mapped(row, fields=fields, fill={"title": "Untitled"})
    assert isinstance(filled, Record)
    assert filled.text == "Untitled: x"
    with pytest.raises(WuxingError, match=re.escape('f: row f.json#3 has no "title". Set missing: drop, or give')):
        mapped(row, fields=fields, missing="refuse")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "no_dialogue"),
        ({"messages": "How?"}, "no_dialogue"),
        ({"messages": [{"role": "user", "content": "How?"}]}, "no_answer"),
        ({"messages": [{"role": "wizard", "content": "How?"}]}, "unknown_role"),
        ({"messages": [{"role": "user", "content": " "}, QUESTION[1]]}, "empty_turn"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "no_text_in_turn"),
        ({"picture": 1}, "unknown_fields"),
        ({"text": ["a", "b"]}, "no_text_in_field"),
        ({"text": b"a"}, "no_text_in_field"),
        ({"instruction": {"a": 1}, "output": "b"}, "no_text_in_field"),
        ({"text": "half \ud83d"}, "broken_unicode"),
    ],
)
def test_what_is_no_record_has_a_reason(row: dict[str, Any], reason: str) -> None:
    made = mapped(row)
    assert isinstance(made, Drop)
    assert made.reason == reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of package, files, exchanges, git, sql, hub; it has none"),
        ({"files": "x", "exchanges": "y"}, "it has ['files', 'exchanges']"),
        ({"files": "x", "judged": "up"}, "judged goes with exchanges"),
        ({"exchanges": "x", "fields": {"text": "t"}}, "fields does not go with exchanges"),
        ({"files": "x", "fields": {}}, "exactly one of text, messages, prompt"),
        ({"files": "x", "fields": {"prompt": "p"}}, "go together"),
        ({"files": "x", "encoding": "klingon"}, "is no encoding"),
    ],
)
def test_contradictions_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        SourceConfig.model_validate(settings)
