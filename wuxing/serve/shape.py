"""The JSON of OpenAI's answers, whole and in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wuxing.serve.answer import Answer


@dataclass(frozen=True)
class Shape:
    """Everything that all chunks of one response share."""

    id: str
    created: int
    model: str
    fingerprint: str
    chat: bool
    logprobs: bool

    def whole(self, answers: list[Answer], tokens: list[list[dict[str, Any]]], prompt_tokens: int) -> dict[str, Any]:
        """The response of a request that did not ask for a stream."""
        choices = [
            self._choice(index, {"role": "assistant", "content": answer.text, "refusal": None}, entries, answer.finish)
            for index, (answer, entries) in enumerate(zip(answers, tokens, strict=True))
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": usage(answers, prompt_tokens)}

    def first(self, index: int) -> dict[str, Any] | None:
        """The chunk that opens a choice: the role, in a chat."""
        if not self.chat:
            return None
        return self._chunk([self._choice(index, {"role": "assistant", "content": ""}, [], None)])

    def piece(self, index: int, text: str, entries: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        """A chunk with new text; with `finish`, the choice's last."""
        return self._chunk([self._choice(index, {"content": text} if text else {}, entries, finish)])

    def last(self, answers: list[Answer], prompt_tokens: int) -> dict[str, Any]:
        """The chunk that `stream_options.include_usage` asks for."""
        return {**self._chunk([]), "usage": usage(answers, prompt_tokens)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": choices}

    def _choice(
        self, index: int, message: dict[str, Any], entries: list[dict[str, Any]], finish: str | None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": finish}
        if self.chat:
            choice["message" if "refusal" in message else "delta"] = message
            choice["logprobs"] = {"content": entries, "refusal": None} if self.logprobs and entries else None
            return choice
        choice["text"] = message.get("content", "")
        choice["logprobs"] = _flat(entries) if self.logprobs else None
        return choice


def usage(answers: list[Answer], prompt_tokens: int) -> dict[str, int]:
    """Tokens in and out; the stop token counts, as it was computed."""
    out = sum(len(answer.logprobs) for answer in answers)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": out, "total_tokens": prompt_tokens + out}


def _flat(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The older form of log-probabilities, of `/v1/completions`."""
    offsets, place = [], 0
    for entry in entries:
        offsets.append(place)
        place += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": None,
        "text_offset": offsets,
    }
