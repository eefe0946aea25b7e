"""From a raw row to a record: which field is what, in which form a dialogue stands, and what happens when one lacks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from functools import lru_cache
from typing import Any

from wuxing.core.error import WuxingError
from wuxing.core.record import Drop, Record
from wuxing.source.config import Fields, SourceConfig
from wuxing.source.dialogue import ROLES, Messages, compared, dialogue, liked_of, turns
from wuxing.source.format_config import Fill
from wuxing.source.medium import bytes_of, label_of, usual_media
from wuxing.source.row import Document, Row

_FIELD = re.compile(r"\{([^{}]+)\}")
_ALPACA = "{instruction}\n\n{input}"


def _pair(**names: str) -> Fields:
    return Fields.model_validate({"chosen": "chosen", "rejected": "rejected", **names})


_USUAL: tuple[tuple[tuple[str, ...], Fields], ...] = (
    (("conversations", "chosen", "rejected"), _pair(messages="conversations", system="system")),
    (("messages", "chosen", "rejected"), _pair(messages="messages")),
    (("instruction", "chosen", "rejected"), _pair(prompt=_ALPACA, history="history", system="system")),
    (("prompt", "chosen", "rejected"), _pair(prompt="prompt", system="system")),
    (("question", "chosen", "rejected"), _pair(prompt="question", system="system")),
    (("chosen", "rejected"), _pair()),
    (("messages",), Fields(messages="messages", system="system")),
    (("conversations",), Fields(messages="conversations", system="system")),
    (("conversation",), Fields(messages="conversation", system="system")),
    (("instruction", "output"), Fields(prompt=_ALPACA, reply="output", history="history", system="system")),
    (("instruction", "response"), Fields(prompt="instruction", reply="response", system="system")),
    (("prompt", "completion"), Fields(prompt="prompt", reply="completion", system="system")),
    (("prompt", "response"), Fields(prompt="prompt", reply="response", system="system")),
    (("question", "answer"), Fields(prompt="question", reply="answer", system="system")),
    (("title", "text", "label"), Fields(text="{title}\n\n{text}", label="label")),
    (("title", "text"), Fields(text="{title}\n\n{text}")),
    (("text", "label"), Fields(text="text", label="label")),
    (("text", "programming_language"), Fields(text="text", meta=("path", "programming_language"))),
    (("text",), Fields(text="text")),
    (("content",), Fields(text="content")),
    (("value",), Fields(messages="value")),
)
_JUDGEMENTS = ("liked", "kto_tag", "label")
"""Names under which a dialogue's judgement stands; `label` only where it is true or false."""
_JUDGED = {
    (fields, name): fields.model_copy(update={"liked": name})
    for _, fields in _USUAL
    if (fields.messages or fields.reply) and not fields.chosen
    for name in _JUDGEMENTS
}


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
        if isinstance(row.value, Document) and self.source.fields is None:
            made = self._document(row)
        else:
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

    def _document(self, row: Row) -> Record | Drop | _Missing:
        """A file's own text, with what the file says about itself."""
        text = self._text(row.value, "text")
        if not isinstance(text, str):
            return text
        meta = {str(name): _plain(value) for name, value in row.value.items() if name != "text"}
        return Record(f"{self.source.label}/{row.place}", self.source.label, text=text, meta=meta)

    def _made(self, row: Row, fields: Fields) -> Record | Drop | _Missing:
        meta = {}
        for name in fields.meta:
            value = self._optional(row.value, name)
            if isinstance(value, _Missing):
                return value
            if value is not None:
                meta[name] = _plain(value)
        name = f"{self.source.label}/{row.place}"
        if fields.image or fields.audio:
            return self._medium(row, fields, name, meta)
        label = self._label(row.value, fields)
        if isinstance(label, Drop | _Missing):
            return label
        if fields.text:
            text = self._filled(row.value, fields.text)
            if not isinstance(text, str):
                return text
            return Record(name, self.source.label, text=text, label=label, meta=meta)
        return self._talk(row.value, fields, Record(name, self.source.label, messages=[], label=label, meta=meta))

    def _label(self, value: Mapping[str, Any], fields: Fields) -> str | Drop | _Missing | None:
        if not fields.label:
            return None
        found = self._optional(value, fields.label, self.source.fields is None)
        if found is None or isinstance(found, _Missing):
            return found
        if isinstance(found, list | Mapping | bytes):
            return Drop("no_label_in_field", f"{fields.label} holds a {type(found).__name__}")
        return _text(found).strip()

    def _medium(self, row: Row, fields: Fields, name: str, meta: dict[str, Any]) -> Record | Drop | _Missing:
        key = fields.image or fields.audio
        assert key is not None
        raw = self._value(row.value, key)
        data = raw if isinstance(raw, _Missing) else bytes_of(raw, key)
        label = self._label(row.value, fields) if fields.label else label_of(row, self.source)
        if isinstance(data, Drop | _Missing):
            return data
        if isinstance(label, Drop | _Missing):
            return label
        if fields.image:
            return Record(name, self.source.label, image=data, label=label, meta=meta)
        return Record(name, self.source.label, audio=data, label=label, meta=meta)

    # ------------------------------------------------------------------------------------------------ dialogues
    def _talk(self, value: Mapping[str, Any], fields: Fields, empty: Record) -> Record | Drop | _Missing:
        """A dialogue; with two replies where they are compared, with a judgement where its last one was liked."""
        meta = empty.meta
        tools = value.get("tools")
        if tools and self.source.fields is None:  # what the assistant could call; templates of models write it
            meta = {**meta, "tools": tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)}
        if fields.chosen:
            return self._preference(value, fields, empty, meta)
        messages = self._messages(value, fields)
        if not isinstance(messages, list):
            return messages
        liked: bool | None = None
        if fields.liked:
            judged = self._value(value, fields.liked)
            verdict = judged if isinstance(judged, _Missing) else liked_of(judged)
            if isinstance(verdict, Drop | _Missing):
                return verdict
            if messages[-1]["role"] != "assistant":
                return Drop("no_reply_at_end", "the judgement is about the last reply, and there is none")
            liked = verdict
        return Record(empty.id, empty.source, messages=messages, label=empty.label, liked=liked, meta=meta)

    def _preference(
        self, value: Mapping[str, Any], fields: Fields, empty: Record, meta: dict[str, Any]
    ) -> Record | Drop | _Missing:
        assert fields.chosen and fields.rejected
        sides = self._value(value, fields.chosen), self._value(value, fields.rejected)
        lacking = next((side for side in sides if isinstance(side, _Missing)), None)
        if lacking:
            return lacking
        before: Messages | Drop | _Missing | None = None
        if fields.messages:
            raw = self._value(value, fields.messages)
            before = raw if isinstance(raw, _Missing) else turns(raw)
        elif fields.prompt:
            before = self._prompt(value, fields)
        if isinstance(before, list):
            before = self._with_system(value, fields, before)
        if isinstance(before, Drop | _Missing):
            return before
        made = compared(before, *sides)
        if isinstance(made, Drop):
            return made
        messages, chosen, rejected = made
        return Record(
            empty.id, empty.source, messages=messages, label=empty.label, chosen=chosen, rejected=rejected, meta=meta
        )

    def _messages(self, value: Mapping[str, Any], fields: Fields) -> Messages | Drop | _Missing:
        if fields.messages:
            raw = self._value(value, fields.messages)
            found = raw if isinstance(raw, _Missing) else dialogue(raw)
        else:
            assert fields.prompt and fields.reply
            prompt = self._prompt(value, fields)
            if not isinstance(prompt, list):
                return prompt
            reply = self._reply(value, fields.reply)
            found = reply if isinstance(reply, Drop | _Missing) else dialogue([*prompt, *reply])
        return self._with_system(value, fields, found) if isinstance(found, list) else found

    def _reply(self, value: Mapping[str, Any], name: str) -> Messages | Drop | _Missing:
        raw = None if _FIELD.search(name) else self._value(value, name)
        if isinstance(raw, list):
            return turns(raw)
        text = self._filled(value, name)
        return [{"role": "assistant", "content": text}] if isinstance(text, str) else text

    def _prompt(self, value: Mapping[str, Any], fields: Fields) -> Messages | Drop | _Missing:
        """What stands before the reply: a text, after its history, or messages."""
        assert fields.prompt
        raw = None if _FIELD.search(fields.prompt) else self._value(value, fields.prompt)
        if isinstance(raw, list):
            return turns(raw)
        text = self._filled(value, fields.prompt)
        if not isinstance(text, str):
            return text
        now = turns([{"role": "user", "content": text}])
        earlier = self._optional(value, fields.history, self.source.fields is None) if fields.history else None
        if isinstance(earlier, _Missing) or not earlier or isinstance(now, Drop):
            return earlier if isinstance(earlier, _Missing) else now
        before = turns(earlier)
        return before if isinstance(before, Drop) else [*before, *now]

    def _with_system(self, value: Mapping[str, Any], fields: Fields, messages: Messages) -> Messages | Drop | _Missing:
        if not fields.system or (self.source.fields is None and messages[0]["role"] == "system"):
            return messages
        if self._skipped(value, fields.system):
            return messages
        system = self._filled(value, fields.system)
        return [{"role": "system", "content": system}, *messages] if isinstance(system, str) else system

    def _skipped(self, value: Mapping[str, Any], name: str) -> bool:
        """Whether a system message is left out because the row has none."""
        names = _FIELD.findall(name) or [name]
        absent = any(isinstance(self._value(value, each), _Missing) for each in names)
        return absent and (self.source.fields is None or all(self._policy(each) == "skip" for each in names))

    # ------------------------------------------------------------------------------------------------ values
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
        """A field that is one value, as text; a list would only look like text, unless `name[]` asks for its lines."""
        found = self._value(value, name.removesuffix("[]"))
        if name.endswith("[]") and isinstance(found, list) and all(isinstance(line, str) for line in found):
            return "\n".join(found)
        if isinstance(found, list | Mapping | bytes):
            return Drop("no_text_in_field", f"{name} holds a {type(found).__name__}")
        return found if isinstance(found, _Missing) else _text(found)

    def _optional(self, value: Mapping[str, Any], name: str, skip: bool = False) -> Any:
        """A field that a record can do without: None where the policy is to skip it."""
        found = self._value(value, name)
        return None if isinstance(found, _Missing) and (skip or self._policy(name) == "skip") else found

    def _value(self, value: Mapping[str, Any], name: str) -> Any:
        """A field by name or by dotted path; the recipe's `fill` where it is absent, null or blank."""
        found = field_of(value, name)
        if found is None:
            if name in self.source.fill:
                constant = self.source.fill[name]
                assert not isinstance(constant, Fill), "fills are settled before rows are mapped"
                return constant
            if self.source.fields is None and name == "input":
                return ""
            return _Missing(name)
        return found

    def _policy(self, name: str) -> str:
        missing = self.source.missing
        return missing if isinstance(missing, str) else missing.get(name, "drop")

    def _missing(self, row: Row, name: str) -> Drop:
        self._note(row.value)
        if self._policy(name) == "refuse":
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


def field_of(value: Mapping[str, Any], name: str) -> Any:
    """A field by name or by dotted path; None where it is absent, null, not a number, or blank."""
    found = value.get(name)
    if found is None and "." in name:
        found = value
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    blank = (isinstance(found, str) and not found.strip()) or (isinstance(found, float) and found != found)
    return None if blank else found


def usual_fields(row: Mapping[str, Any]) -> Fields | None:
    """The reading of a row with the usual names; None when it has none of them."""
    return _usual_of(tuple(row), isinstance(row.get("label"), bool))


@lru_cache(maxsize=1024)
def _usual_of(row: tuple[str, ...], judged: bool) -> Fields | None:
    """The same of the names alone, and whether the label is a judgement: the rows of a source have the same names."""
    for names, fields in _USUAL:
        if all(name in row for name in names):
            if fields.chosen or not (fields.messages or fields.reply):
                return fields
            for name in _JUDGEMENTS:
                if name in row and (name != "label" or judged):
                    return _JUDGED[fields, name]
            return fields
    return None


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
    spoken = [message["content"] for message in record.messages or ()]
    others = [record.text, record.label, record.chosen, record.rejected, str(record.meta)]
    for part in [record.id, *spoken, *(other for other in others if other)]:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            return f"half a surrogate pair at character {error.start}"
    return None


__all__ = ["ROLES", "Mapper", "dialogue", "field_of", "usual_fields"]
