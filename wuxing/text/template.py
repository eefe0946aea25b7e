"""Chat templates: messages to text, and where in that text the special tokens and the taught words are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from wuxing.core.error import WuxingError

CHATML = (Path(__file__).parent / "chat.jinja").read_text(encoding="utf-8").rstrip("\n")

Message = Mapping[str, str]


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered conversation: either one special token, or plain text."""

    text: str
    special: bool
    taught: bool


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template in a sandbox, with the environment that transformers gives to such templates."""

    source: str
    special_tokens: tuple[str, ...]
    """The strings that are special tokens where the template writes them, and plain text where a person does."""
    variables: tuple[tuple[str, str], ...] = ()
    """`bos_token`, `eos_token`, … as templates may print them."""

    @cached_property
    def _compiled(self) -> Any:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            return environment.from_string(self.source)
        except TemplateError as error:
            raise WuxingError(f"The chat template is broken: {error}", "Mend chat_template.jinja") from error

    @cached_property
    def _special(self) -> re.Pattern[str]:
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        return re.compile("|".join(re.escape(token) for token in longest_first) or r"(?!)")

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The conversation as one string.  Raises WuxingError when the template refuses the messages."""
        from jinja2 import TemplateError

        try:
            return str(
                self._compiled.render(
                    messages=[dict(message) for message in messages],
                    add_generation_prompt=add_generation_prompt,
                    **dict(self.variables),
                )
            )
        except TemplateError as error:
            raise WuxingError(f"The chat template refuses this conversation: {error}", None) from error

    def pieces(self, messages: Sequence[Message], add_generation_prompt: bool, teach: bool = False) -> list[Piece]:
        """The rendered conversation cut at its special tokens, of which only the template's own count.

        With `teach`, also cut at both ends of what the assistant says: those words, and what follows them up to the
        next special token inclusive, are `taught`.
        """
        marks = _marks(messages)
        disguised = [
            {**m, "content": self._special.sub(lambda found: marks.hide(found[0]), m["content"])} for m in messages
        ]
        if teach:
            disguised = [m if m["role"] != "assistant" else _wrap(m, marks) for m in disguised]
        return self._cut(self.render(disguised, add_generation_prompt), marks)

    def _cut(self, rendered: str, marks: _Marks) -> list[Piece]:
        cut = re.compile(f"({marks.begin}|{marks.end}|{self._special.pattern})")
        pieces, taught, ending = [], False, False
        for number, part in enumerate(cut.split(rendered)):
            if part in (marks.begin, marks.end):
                taught, ending = True, part == marks.end
            elif number % 2:
                pieces.append(Piece(part, True, taught))
                taught = taught and not ending
            elif part:
                pieces.append(Piece(marks.show(part), False, taught))
        return pieces


@dataclass
class _Marks:
    """Strings that occur in none of the messages."""

    begin: str
    end: str
    hidden: list[str]
    nonce: str

    def hide(self, token: str) -> str:
        if token not in self.hidden:
            self.hidden.append(token)
        return f"{self.nonce}{self.hidden.index(token)};"

    def show(self, text: str) -> str:
        for number, token in enumerate(self.hidden):
            text = text.replace(f"{self.nonce}{number};", token)
        return text


def _marks(messages: Sequence[Message]) -> _Marks:
    said = "".join(m["content"] for m in messages)
    number = 0
    while (nonce := f"\ue000{number}\ue001") in said:
        number += 1
    return _Marks(f"{nonce}b;", f"{nonce}e;", [], nonce)


def _wrap(message: Message, marks: _Marks) -> dict[str, str]:
    content = message["content"]
    core = content.strip()
    start = content.index(core)
    wrapped = content[:start] + marks.begin + core + marks.end + content[start + len(core) :]
    return {**message, "content": wrapped}


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)
