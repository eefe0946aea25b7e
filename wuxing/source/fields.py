"""From a raw row to a record: which field is what, in which form a dialogue stands, and what happens when one lacks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any

from wuxing.core.error import WuxingError
from wuxing.core.record import Drop, Record
from wuxing.source.config import Fields, SourceConfig
from wuxing.source.medium import bytes_of, label_of, usual_media
from wuxing.source.row import Row

_FIELD = re.compile(r"\{([^{}]+)\}")
ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "customer": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
}
"""The role that each word stands for."""
_USUAL = (
    (("text", "programming_language"), Fields(text="text", meta=("path", "programming_language"))),
    (("messages",), Fields(messages="messages")),
    (("conversations",), Fields(messages="conversations")),
    (("conversation",), Fields(messages="conversation")),
    (("instruction", "output"), Fields(prompt="{instruction}\n\n{input}", reply="output")),
    (("prompt", "completion"), Fields(prompt="prompt", reply="completion")),
    (("prompt", "response"), Fields(prompt="prompt", reply="response")),
    (("question", "answer"), Fields(prompt="question", reply="answer")),
    (("title", "text"), Fields(text="{title}\n\n{text}")),
    (("text",), Fields(text="text")),
    (("content",), Fields(text="content")),
    (("value",), Fields(messages="value")),
)


class Mapper:
    """Maps the rows of one source.  Without `fields` in the recipe, the usual names are recognised row by row."""

    def __init__(self, source: SourceConfig):
        self.source = source
        self.seen_fields: set[str] = set()
        """Fields of the rows that lacked one: for the message when nothing is left."""

    def record(self, row: Row) -> Record | Drop:
        """The record of a row, or why it gives none.  Raises WuxingError where the recipe says `missing: refuse`."""
        if isinstance(row.value, Drop):
            return row.value
        fields = self.source.fields or usual_media(row.value) or usual_fields(row.value)
        if fields is None:
            self._note(row.value)
            return Drop("unknown_fields", f"has {', '.join(map(str, list(row.value)[:12]))}")
        made = self._made(row, fields)
        if isinstance(made, _Missing):
            return self._missing(row, made.name)
        if isinstance(made, Record) and (where := _surrogate(made)):
            return Drop("broken_unicode", where)
        return made

    def _made(self, row: Row, fields: Fields) -> Record | Drop | _Missing:
        meta = {}
        for name in fields.meta:
            value = self._value(row.value, name)
            if isinstance(value, _Missing):
                return value
            meta[name] = _plain(value)
        name = f"{self.source.label}/{row.place}"
        if fields.image or fields.audio:
            return self._medium(row, fields, name, meta)
        if fields.text:
            text = self._filled(row.value, fields.text)
            return Record(name, self.source.label, text=text, meta=meta) if isinstance(text, str) else text
        messages = self._messages(row.value, fields)
        if isinstance(messages, list):
            return Record(name, self.source.label, messages=messages, meta=meta)
        return messages

    def _medium(self, row: Row, fields: Fields, name: str, meta: dict[str, Any]) -> Record | Drop | _Missing:
        key = fields.image or fields.audio
        assert key is not None
        raw = self._value(row.value, key)
        data = raw if isinstance(raw, _Missing) else bytes_of(raw, key)
        label = self._text(row.value, fields.label) if fields.label else label_of(row, self.source)
        if isinstance(data, Drop | _Missing):
            return data
        if isinstance(label, Drop | _Missing):
            return label
        if fields.image:
            return Record(name, self.source.label, image=data, label=label, meta=meta)
        return Record(name, self.source.label, audio=data, label=label, meta=meta)

    def _messages(self, value: Mapping[str, Any], fields: Fields) -> list[dict[str, str]] | Drop | _Missing:
        if fields.messages:
            raw = self._value(value, fields.messages)
            turns = raw if isinstance(raw, _Missing) else dialogue(raw)
        else:
            assert fields.prompt and fields.reply
            prompt, reply = self._filled(value, fields.prompt), self._filled(value, fields.reply)
            lacking = next((part for part in (prompt, reply) if not isinstance(part, str)), None)
            turns = lacking or dialogue([prompt, reply])
        if not fields.system or not isinstance(turns, list):
            return turns
        system = self._filled(value, fields.system)
        return [{"role": "system", "content": system}, *turns] if isinstance(system, str) else system

    def _filled(self, value: Mapping[str, Any], template: str) -> str | Drop | _Missing:
        """A field's text, or a template with its fields filled in and its outer space gone."""
        if not _FIELD.search(template):
            return self._text(value, template)
        parts: list[str] = []
        for number, piece in enumerate(_FIELD.split(template)):
            found = self._text(value, piece) if number % 2 else piece
            if not isinstance(found, str):
                return found
            parts.append(found)
        return "".join(parts).strip()

    def _text(self, value: Mapping[str, Any], name: str) -> str | Drop | _Missing:
        """A field that is one value, as text; a list or bytes would only look like text."""
        found = self._value(value, name)
        if isinstance(found, list | Mapping | bytes):
            return Drop("no_text_in_field", f"{name} holds a {type(found).__name__}")
        return found if isinstance(found, _Missing) else _text(found)

    def _value(self, value: Mapping[str, Any], name: str) -> Any:
        """A field by name or by dotted path; the recipe's `fill` where it is absent, null or blank."""
        found = value.get(name)
        if found is None and "." in name:
            found = value
            for part in name.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        if found is None or (isinstance(found, str) and not found.strip()):
            if name in self.source.fill:
                return self.source.fill[name]
            if self.source.fields is None and name == "input":
                return ""
            return _Missing(name)
        return found

    def _missing(self, row: Row, name: str) -> Drop:
        self._note(row.value)
        if self.source.missing == "refuse":
            raise WuxingError(
                f'{self.source.label}: row {row.place} has no "{name}"',
                f"Set missing: drop, or give it a value by fill: {{{name}: ...}}",
            )
        return Drop("missing_field", name)

    def _note(self, value: Mapping[str, Any]) -> None:
        if len(self.seen_fields) < 50:
            self.seen_fields.update(str(name) for name in value)


class _Missing:
    """Stands for a value that is not there."""

    def __init__(self, name: str):
        self.name = name


def usual_fields(row: Mapping[str, Any]) -> Fields | None:
    """The reading of a row with the usual names; None when it has none of them."""
    for names, fields in _USUAL:
        if all(name in row for name in names):
            return fields
    return None


def dialogue(raw: Any) -> list[dict[str, str]] | Drop:
    """OpenAI messages, ShareGPT turns, or texts that alternate between user and assistant, as plain messages."""
    if not isinstance(raw, list) or not raw:
        return Drop("no_dialogue", f"a {type(raw).__name__}, not a list of turns")
    messages = []
    for number, turn in enumerate(raw):
        message = _turn(turn, number)
        if isinstance(message, Drop):
            return message
        messages.append(message)
    if not any(message["role"] == "assistant" for message in messages):
        return Drop("no_answer", "nobody answers in it")
    return messages


def _turn(turn: Any, number: int) -> dict[str, str] | Drop:
    if isinstance(turn, Mapping):
        role = ROLES.get(str(turn.get("role", turn.get("from", ""))).lower())
        content = turn.get("content", turn.get("value"))
        if role is None:
            return Drop("unknown_role", f"turn {number}: {str(turn.get('role', turn.get('from')))[:40]}")
    else:
        role, content = ("user", "assistant")[number % 2], turn
    if isinstance(content, list | Mapping | bytes) or content is None:
        return Drop("no_text_in_turn", f"turn {number} holds a {type(content).__name__}")
    text = _text(content)
    return {"role": role, "content": text} if text.strip() else Drop("empty_turn", f"turn {number}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _plain(value: Any) -> Any:
    """A value that JSON can keep; what is nested is left to `text` or `messages`."""
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, date | time | Decimal):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str | int | bool) for item in value):
        return value[:100]
    return f"<{type(value).__name__}>"


def _surrogate(record: Record) -> str | None:
    """Where a record holds half of a surrogate pair, which no file can keep."""
    parts = [record.id, record.text or "", *(m["content"] for m in record.messages or ()), str(record.meta)]
    for part in parts:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            return f"half a surrogate pair at character {error.start}"
    return None
