"""Chat and preference files in the forms that people keep them in, labels, and the policies for what lacks."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.record import Drop, Record
from wuxing.core.splits import read_records
from wuxing.corpus.kind import CorpusKind
from wuxing.source import rows_in
from wuxing.source.config import SourceConfig
from wuxing.source.fields import Mapper
from wuxing.source.fill import settled
from wuxing.source.row import Row

HOW = {"role": "user", "content": "How?"}
SO = {"role": "assistant", "content": "So."}
NO = {"role": "assistant", "content": "No."}
BRIEF = {"role": "system", "content": "Be brief."}
HUMAN, GPT = {"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}


def mapped(value: dict[str, Any], **settings: Any) -> Record | Drop:
    return Mapper(SourceConfig.model_validate({"files": "f.json", **settings})).record(Row("f.json#3", value))


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [BRIEF, HOW, SO]}, [BRIEF, HOW, SO]),
        ({"messages": [{**BRIEF, "role": "developer"}, HOW, SO]}, [BRIEF, HOW, SO]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "How?"}]}, SO]}, [HOW, SO]),
        ({"messages": json.dumps([HOW, SO])}, [HOW, SO]),
        ({"system": "Be brief.", "conversations": [HUMAN, GPT]}, [BRIEF, HOW, SO]),
        ({"system": "", "conversations": [HUMAN, GPT]}, [HOW, SO]),
        ({"conversations": [{"from": "system", "value": "Be brief."}, HUMAN, GPT], "system": "x"}, [BRIEF, HOW, SO]),
        ({"instruction": "How?", "input": None, "output": "So.", "history": [], "system": ""}, [HOW, SO]),
        (
            {"instruction": "How?", "input": "this", "output": "So.", "system": "Be brief.", "history": [["a", "b"]]},
            [
                BRIEF,
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "How?\n\nthis"},
                SO,
            ],
        ),
        ({"prompt": [BRIEF, HOW], "completion": [SO]}, [BRIEF, HOW, SO]),
        ({"conversation": [["How?", "So."], ["How?", "No."]]}, [HOW, SO, HOW, NO]),
    ],
)
def test_dialogues(row: dict[str, Any], messages: list[dict[str, str]]) -> None:
    made = mapped(row)
    assert isinstance(made, Record), made
    assert made.messages == messages
    assert (made.liked, made.chosen, made.label) == (None, None, None)


def test_calls_of_tools_and_thoughts_are_kept_in_the_content() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    tool = {"role": "tool", "content": [{"type": "text", "text": "2"}], "tool_call_id": "1"}
    thinking = {**SO, "reasoning_content": "Hm."}
    tools = [{"type": "function", "function": {"name": "add"}}]
    turns = [HOW, {"role": "assistant", "content": None, "tool_calls": [call]}, tool, thinking]
    made = mapped({"messages": turns, "tools": tools})
    assert isinstance(made, Record)
    assert made.messages == [
        HOW,
        {"role": "assistant", "content": '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nSo."},
    ]
    assert json.loads(made.meta["tools"]) == tools
    shared = [HUMAN, {"from": "function_call", "value": '{"name": "f"}'}, {"from": "observation", "value": "2"}, GPT]
    made = mapped({"conversations": shared})
    assert isinstance(made, Record) and made.messages
    assert made.messages[1] == {"role": "assistant", "content": '<tool_call>\n{"name": "f"}\n</tool_call>'}
    assert made.messages[2]["role"] == "tool"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "How?", "chosen": "So.", "rejected": "No."},
        {"question": "How?", "chosen": "So.", "rejected": "No.", "system": ""},
        {"instruction": "How?", "input": "", "chosen": "So.", "rejected": "No."},
        {"prompt": [HOW], "chosen": [SO], "rejected": [NO]},
        {"prompt": "How?", "chosen": [HOW, SO], "rejected": [HOW, NO]},
        {"messages": [HOW], "chosen": SO, "rejected": NO},
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "No."}},
        {"chosen": [HOW, SO], "rejected": [HOW, NO]},
        {"chosen": "\n\nHuman: How?\n\nAssistant: So.", "rejected": "\n\nHuman: How?\n\nAssistant: No."},
    ],
)
def test_preferences(row: dict[str, Any]) -> None:
    made = mapped(row)
    assert isinstance(made, Record), made
    assert (made.messages, made.chosen, made.rejected) == ([HOW], "So.", "No.")


def test_preferences_with_a_long_common_beginning() -> None:
    made = mapped({"chosen": [BRIEF, HOW, SO, HOW, SO], "rejected": [BRIEF, HOW, SO, HOW, NO]})
    assert isinstance(made, Record)
    assert (made.messages, made.chosen, made.rejected) == ([BRIEF, HOW, SO, HOW], "So.", "No.")
    made = mapped(
        {"s": "Be brief.", "q": "How?", "good": "So.", "bad": "No."},
        fields={"system": "s", "prompt": "q", "chosen": "good", "rejected": "bad"},
    )
    assert isinstance(made, Record)
    assert (made.messages, made.chosen, made.rejected) == ([BRIEF, HOW], "So.", "No.")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "How?", "chosen": "So.", "rejected": "So."}, "same_replies"),
        ({"chosen": [HOW, SO, HOW, SO], "rejected": [HOW, NO, HOW, NO]}, "replies_part_early"),
        ({"chosen": [HOW, SO, HOW, SO], "rejected": [HOW, SO]}, "replies_part_early"),
        ({"chosen": "So.", "rejected": "No."}, "no_prompt"),
        ({"chosen": [HOW, SO], "rejected": [HOW, {"role": "user", "content": "x"}]}, "no_reply_at_end"),
        ({"prompt": "How?", "chosen": None, "rejected": "No."}, "missing_field"),
        ({"prompt": "How?", "chosen": "  ", "rejected": "No."}, "missing_field"),
        ({"messages": [HOW], "chosen": {"role": "x", "content": "a"}, "rejected": NO}, "unknown_role"),
        ({"messages": [HOW, SO], "kto_tag": "perhaps"}, "no_judgement"),
        ({"messages": [HOW, SO, HOW], "kto_tag": True}, "no_reply_at_end"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, SO]}, "no_text_in_turn"),
        ({"messages": [HOW, {"role": "assistant", "tool_calls": [{"function": {}}]}]}, "broken_tool_call"),
    ],
)
def test_what_is_no_preference_has_a_reason(row: dict[str, Any], reason: str) -> None:
    made = mapped(row)
    assert isinstance(made, Drop), made
    assert made.reason == reason


@pytest.mark.parametrize("name", ["liked", "kto_tag", "label"])
@pytest.mark.parametrize("liked", [True, False])
def test_liked_or_not(name: str, liked: bool) -> None:
    for row in ({"messages": [HOW, SO]}, {"prompt": "How?", "completion": "So."}):
        made = mapped({**row, name: liked})
        assert isinstance(made, Record)
        assert (made.messages, made.liked) == ([HOW, SO], liked)
    made = mapped(
        {"q": "How?", "a": "So.", "thumb": "up" if liked else "down"},
        fields={"prompt": "q", "reply": "a", "liked": "thumb"},
    )
    assert isinstance(made, Record)
    assert made.liked is liked


def test_labels() -> None:
    made = mapped({"text": "fine", "label": 3})
    assert isinstance(made, Record)
    assert (made.text, made.label) == ("fine", "3")
    made = mapped({"text": "fine", "category": "x"}, fields={"text": "text", "label": "category"})
    assert isinstance(made, Record)
    assert made.label == "x"
    assert mapped({"text": "fine"}, fields={"text": "text", "label": "category"}) == Drop("missing_field", "category")
    assert isinstance(mapped({"text": "fine", "label": None}), Record)
    assert mapped({"text": "a", "label": [1]}) == Drop("no_label_in_field", "label holds a list")


def test_policies_by_field() -> None:
    settings = {"fields": {"text": "t", "label": "l", "meta": ["m", "n"]}, "missing": {"m": "skip", "l": "refuse"}}
    made = mapped({"t": "x", "l": "y", "n": 1}, **settings)
    assert isinstance(made, Record)
    assert made.meta == {"n": 1}
    assert mapped({"t": "x", "l": "y"}, **settings) == Drop("missing_field", "n")
    with pytest.raises(WuxingError, match='has no "l"'):
        mapped({"t": "x", "n": 1, "m": 2}, **settings)
    nothing = {"t": "x", "l": float("nan"), "n": 1}
    with pytest.raises(WuxingError, match='has no "l"'):
        mapped(nothing, **settings)


def table(tmp_path: Path, text: str) -> tuple[SourceConfig, Context]:
    (tmp_path / "t.csv").write_text(text)
    fields = {"text": "{name} is {age} and {town}"}
    source = {"files": str(tmp_path / "t.csv"), "fields": fields}
    fill = {"age": {"mode": "median"}, "town": {"mode": "most_frequent"}}
    return SourceConfig.model_validate({**source, "fill": fill}), Context(home=tmp_path / "home")


def test_fills_are_learned_once_and_stated(tmp_path: Path) -> None:
    source, context = table(tmp_path, "name,age,town\na,1,X\nb,,\nc,2,Y\nd,9,X\ne,4,Y\n")
    known, found = settled(source, context)
    assert found == {"age": 3, "town": "X"}
    mapper = Mapper(known)
    made = [mapper.record(row) for row in rows_in(known, context)]
    assert [record.text for record in made if isinstance(record, Record)][1] == "b is 3 and X"
    mean = SourceConfig.model_validate({"files": source.files, "fill": {"age": {"mode": "mean"}}})
    assert settled(mean, context)[1] == {"age": 4}
    source, context = table(tmp_path, "name,age,town\na,old,X\n")
    with pytest.raises(WuxingError, match='row t.csv#0 has "old" in age, which is no number'):
        settled(source, context)
    source, context = table(tmp_path, "name,age,town\na,,X\n")
    with pytest.raises(WuxingError, match="no row has a age to fill in"):
        settled(source, context)


def test_a_corpus_states_what_it_filled_in(tmp_path: Path, make_step: Callable[..., Artifact]) -> None:
    lines = "".join(f"n{n},{n if n % 2 else ''},X\n" for n in range(101))
    source, _ = table(tmp_path, f"name,age,town\n{lines}")
    config = {
        "sources": [source.model_dump(mode="json", exclude_defaults=True)],
        "split": {"validation": 0.1, "test": 0.1},
    }
    made = make_step(CorpusKind(), config)
    card = json.loads((made.path / "card.json").read_text())
    assert '"fill": {"age": 50, "town": "X"}' in json.dumps(card)
    texts = {record.text for record in read_records(made.path, "train")}
    assert {text for text in texts if text and " 50 " in text}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chosen": "a"}, "chosen and fields.rejected go together"),
        ({"text": "a", "liked": "b"}, "fields.liked is for dialogues"),
        ({"messages": "a", "chosen": "b", "rejected": "c", "liked": "d"}, "compare two"),
        ({"messages": "a", "history": "b"}, "history goes with fields.prompt"),
    ],
)
def test_contradictions(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceConfig.model_validate({"files": "x", "fields": fields})


def test_real_files_of_every_kind(data_directory: Path) -> None:
    """Each row of the real files becomes a record of its kind; replies are those in the file, to the letter."""
    kinds = {"dpo_en_demo": "chosen", "dpo_zh_demo": "chosen", "kto_en_demo": "liked"}
    for name, kind in kinds.items():
        path = data_directory / "preference" / f"{name}.jsonl.gz"
        raw = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        source = SourceConfig(files=str(path))
        mapper = Mapper(source)
        made = [mapper.record(row) for row in rows_in(source, Context())]
        assert len(made) == len(raw) == 300
        for row, record in zip(raw, made, strict=True):
            assert isinstance(record, Record), record
            if kind == "chosen":
                assert (record.chosen, record.rejected) == (row["chosen"]["value"], row["rejected"]["value"])
                assert [turn["content"] for turn in record.messages or ()] == [t["value"] for t in row["conversations"]]
            else:
                assert record.liked is row["label"]
                assert record.messages == [{"role": t["role"], "content": t["content"]} for t in row["messages"]]
