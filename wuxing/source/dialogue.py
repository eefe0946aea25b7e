"""Dialogues and preferences in the forms that people keep them in, as plain messages {role, content}.

Calls of tools are written into the content as `<tool_call>` blocks with JSON (the form that Hermes and Qwen models
read), thoughts that stand beside an answer as a `<think>` block before it, so that nothing of a reply is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from wuxing.core.record import Drop

Messages = list[dict[str, str]]

ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "customer": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"""The role that each word stands for."""
_TEXT_PARTS = ("text", "input_text", "output_text")
_HH = re.compile(r"(?:\A|\n\n)(Human|Assistant|System): ?")
_LIKED = {"true": True, "1": True, "up": True, "yes": True, "false": False, "0": False, "down": False, "no": False}


def dialogue(raw: Any) -> Messages | Drop:
    """A dialogue in which somebody answers, as plain messages: see `turns`."""
    messages = turns(raw)
    if isinstance(messages, list) and not any(message["role"] == "assistant" for message in messages):
        return Drop("no_answer", "nobody answers in it")
    return messages


def turns(raw: Any) -> Messages | Drop:
    """OpenAI messages, ShareGPT turns, texts that alternate between user and assistant, or pairs of them."""
    if isinstance(raw, str) and raw.lstrip().startswith(("[", "{")):
        raw = _parsed(raw)  # a list of messages in a column of text, as CSV files have it
    if isinstance(raw, str) and _HH.match(raw):
        return _of_hh(raw)
    if not isinstance(raw, list) or not raw:
        return Drop("no_dialogue", f"a {type(raw).__name__}, not a list of turns")
    if all(isinstance(pair, list) and len(pair) == 2 for pair in raw):
        raw = [text for pair in raw for text in pair]
    messages = []
    for number, turn in enumerate(raw):
        message = _turn(turn, number)
        if isinstance(message, Drop):
            return message
        messages.append(message)
    return messages


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _of_hh(text: str) -> Messages | Drop:
    r"""`\n\nHuman: ...\n\nAssistant: ...`, the form of Anthropic's HH-RLHF."""
    pieces = _HH.split(text)
    raw = [{"role": role, "content": content} for role, content in zip(pieces[1::2], pieces[2::2], strict=True)]
    return turns([{"role": ROLES.get(turn["role"].lower(), turn["role"]), "content": turn["content"]} for turn in raw])


def _turn(turn: Any, number: int) -> dict[str, str] | Drop:
    if not isinstance(turn, Mapping):
        return _message(("user", "assistant")[number % 2], turn, number)
    said = turn.get("role") or turn.get("from") or ""
    role = ROLES.get(str(said).lower())
    if role is None:
        return Drop("unknown_role", f"turn {number}: {str(said or None)[:40]}")
    content = turn.get("content", turn.get("value"))
    calls = _calls(turn)
    if isinstance(calls, Drop):
        return calls
    if str(said).lower() == "function_call" and isinstance(content, str):
        calls, content = [_block(content)], None
    if calls and content is None:
        content = ""
    message = _message(role, content, number, empty=bool(calls))
    if isinstance(message, Drop):
        return message
    thought = turn.get("reasoning_content") or turn.get("reasoning")
    parts = [f"<think>\n{thought.strip()}\n</think>\n"] if isinstance(thought, str) and thought.strip() else []
    parts += [message["content"]] if message["content"] else []
    return {"role": role, "content": "\n".join([*parts, *calls])}


def _message(role: str, content: Any, number: int, empty: bool = False) -> dict[str, str] | Drop:
    if isinstance(content, list) and content and all(isinstance(part, Mapping | str) for part in content):
        found = [_part(part) for part in content]
        other = next((part for part in found if isinstance(part, Drop)), None)
        if other:
            return Drop(other.reason, f"turn {number} {other.detail}")
        content = "\n".join(part for part in found if isinstance(part, str))
    if isinstance(content, list | Mapping | bytes) or content is None:
        return Drop("no_text_in_turn", f"turn {number} holds a {type(content).__name__}")
    text = content if isinstance(content, str) else str(content)
    return {"role": role, "content": text} if empty or text.strip() else Drop("empty_turn", f"turn {number}")


def _part(part: Mapping[str, Any] | str) -> str | Drop:
    if isinstance(part, str):
        return part
    if part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    return Drop("no_text_in_turn", f"holds a {str(part.get('type') or 'mapping')[:40]}")


def _calls(turn: Mapping[str, Any]) -> list[str] | Drop:
    """The tools that a turn calls, as blocks of its content."""
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    if not isinstance(calls, list):
        return Drop("broken_tool_call", f"a {type(calls).__name__}")
    blocks = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            return Drop("broken_tool_call", "a call without the name of a function")
        arguments = function.get("arguments", {})
        arguments = _parsed(arguments) if isinstance(arguments, str) else arguments
        blocks.append(_block(json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)))
    return blocks


def _block(call: str) -> str:
    return f"<tool_call>\n{call.strip()}\n</tool_call>"


def compared(prompt: Messages | None, chosen: Any, rejected: Any) -> tuple[Messages, str, str] | Drop:
    """The prompt and the two replies of a preference.

    Each side is a reply, or a whole dialogue that ends with it; what the two have in common belongs to the prompt.
    """
    sides = [_side(side, prompt) for side in (chosen, rejected)]
    better, worse = sides
    if isinstance(better, Drop):
        return better
    if isinstance(worse, Drop):
        return worse
    if better == worse:
        return Drop("same_replies", "chosen and rejected are equal")
    shared = 0
    while shared < min(len(better), len(worse)) - 1 and better[shared] == worse[shared]:
        shared += 1
    messages = [*(prompt or []), *better[:shared]]
    rests = better[shared:], worse[shared:]
    if any(len(rest) != 1 for rest in rests):
        return Drop("replies_part_early", f"they differ in {max(map(len, rests))} turns, not in the last one only")
    if any(rest[0]["role"] != "assistant" for rest in rests):
        return Drop("no_reply_at_end", "what is chosen or rejected is not the assistant's")
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        return Drop("no_prompt", "nothing of the user stands before the replies")
    return messages, rests[0][0]["content"], rests[1][0]["content"]


def _side(raw: Any, prompt: Messages | None) -> Messages | Drop:
    """One reply, as the messages that follow the prompt."""
    if isinstance(raw, str) and not (prompt is None and _HH.match(raw)):
        return turns([{"role": "assistant", "content": raw}])
    messages = turns([raw] if isinstance(raw, Mapping) else raw)
    if isinstance(messages, list) and prompt and _starts_with(messages, prompt):
        return messages[len(prompt) :]
    return messages


def _starts_with(messages: Sequence[Any], prompt: Sequence[Any]) -> bool:
    return len(messages) > len(prompt) and list(messages[: len(prompt)]) == list(prompt)


def liked_of(value: Any) -> bool | Drop:
    """A judgement as true or false."""
    if isinstance(value, bool):
        return value
    known = _LIKED.get(str(value).strip().lower())
    return Drop("no_judgement", f"{str(value)[:40]} is neither liked nor not") if known is None else known
