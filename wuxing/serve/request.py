"""Requests of the OpenAI API, read strictly.

As OpenAI does, an unknown field is refused (400, `unknown_parameter`) and null means "not given".  Fields that carry
no instruction to the model (`user`, `metadata`, `store`, …) are accepted and ignored.  Fields that OpenAI knows and
this server cannot honour are accepted only with the value that changes nothing; an answer never pretends.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from wuxing.serve.error import ApiError

IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
}
"""Field → the values that change nothing."""


def _texts(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _prompts(value: Any) -> Any:
    """A prompt is a text, texts, token ids, or lists of token ids; inside, always a list of prompts."""
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        return [value]
    return value


def _content(value: Any) -> Any:
    """Content may be given in parts; only text parts can be read."""
    if not isinstance(value, list):
        return value
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in value]
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("only parts of the form {'type': 'text', 'text': ...} can be read by this model")
    return "".join(str(part) for part in parts)


def _whole(value: Any) -> Any:
    """Half a surrogate pair has no UTF-8 form: no tokenizer and no log could hold it."""
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("the text holds half a surrogate pair, which is not Unicode text")
    return value


Text = Annotated[str, BeforeValidator(_whole)]
Token = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_whole), BeforeValidator(_content)]
    name: str | None = None
    """Accepted and ignored: the chat template has no place for it."""
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    tool_calls: None = None
    function_call: None = None

    def plain(self) -> dict[str, str]:
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class Sampling(Strict):
    """What chat and plain completions have in common."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, ge=0, le=1, allow_inf_nan=False)
    n: int = Field(1, ge=1)
    stop: Annotated[list[Annotated[Text, Field(min_length=1, max_length=200)]], BeforeValidator(_texts)] = Field(
        [], max_length=4
    )
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None


S = TypeVar("S", bound=Sampling)
R = TypeVar("R", bound=Strict)


class ChatRequest(Sampling):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False


class CompletionRequest(Sampling):
    prompt: Annotated[list[Text | list[Token]], BeforeValidator(_prompts)] = Field(min_length=1)
    logprobs: int | None = Field(None, ge=0, le=0)


class FeedbackRequest(Strict):
    exchange: str = Field(min_length=1, max_length=100)
    thumb: Literal["up", "down"]
    comment: Text = Field("", max_length=2000)


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; ApiError 400 for anything else."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError as error:
        raise ApiError(400, "invalid_json", "The JSON of the body is nested too deeply.") from error
    except ValueError as error:
        raise ApiError(400, "invalid_json", f"The body is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ApiError(400, "invalid_json", "The body must be a JSON object.")
    return value


def parse_chat(value: dict[str, Any]) -> ChatRequest:
    request = _validate(ChatRequest, _supported(value))
    if request.max_tokens and request.max_completion_tokens:
        raise ApiError(
            400, "invalid_value", "Give max_tokens or max_completion_tokens, not both.", "max_completion_tokens"
        )
    return _consistent(request)


def parse_completion(value: dict[str, Any]) -> CompletionRequest:
    request = _validate(CompletionRequest, _supported(value))
    if any(not prompt for prompt in request.prompt):
        raise ApiError(400, "invalid_value", "A prompt must not be empty.", "prompt")
    return _consistent(request)


def parse_feedback(value: dict[str, Any]) -> FeedbackRequest:
    return _validate(FeedbackRequest, {name: item for name, item in value.items() if item is not None})


def _consistent(request: S) -> S:
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "invalid_value", "stream_options may only be given with stream: true.", "stream_options")
    return request


def _supported(value: dict[str, Any]) -> dict[str, Any]:
    """Drop nulls, ignored fields and neutral values; refuse what cannot be honoured."""
    kept: dict[str, Any] = {}
    for name, item in value.items():
        if item is None or name in IGNORED:
            continue
        if name not in UNSUPPORTED:
            kept[name] = item
        elif item not in UNSUPPORTED[name]:
            raise ApiError(400, "unsupported_parameter", f"This server does not support '{name}'.", name)
    return kept


def _validate(model: type[R], value: dict[str, Any]) -> R:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> ApiError:
    """The first of pydantic's complaints as OpenAI would word it."""
    first = error.errors(include_url=False)[0]
    param = _place(first["loc"])[:200]
    kind, message = first["type"], first["msg"]
    if kind == "extra_forbidden":
        return ApiError(400, "unknown_parameter", f"Unknown parameter: '{param}'.", param)
    if kind == "missing":
        return ApiError(400, "missing_required_parameter", f"Missing required parameter: '{param}'.", param)
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    return ApiError(400, code, f"Invalid '{param}': {message.removeprefix('Value error, ')}.", param)


def _place(location: tuple[int | str, ...]) -> str:
    """`messages[0].content`; the names that pydantic gives the branches of a union are left out."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int", "list"):
            text += f".{part}" if text else part
    return text


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
