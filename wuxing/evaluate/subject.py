"""A model under evaluation: its network, its own tokenizer, and what it says and how likely it finds texts.

Everything goes through `generate.Engine`, the same path that rollouts and the server use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.record import Record

if TYPE_CHECKING:
    from wuxing.generate.engine import Engine
    from wuxing.model.network import Network
    from wuxing.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn."""

    max_tokens: int
    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0


@dataclass(frozen=True)
class Said:
    """A reply and how sure the model was of it."""

    text: str
    finish: str
    """`stop`, `length`, or `too_long` where the prompt left no room for a reply."""
    prompt_tokens: int
    reply_tokens: int
    mean_logprob: float | None
    """Mean log-probability of the reply's tokens, its stop token included, at temperature 1."""


@dataclass(frozen=True)
class Score:
    """How likely a model finds one document."""

    id: str
    nats: float
    tokens: int
    bytes: int


@dataclass(frozen=True)
class Subject:
    """A loaded model.  `name` is what results call it."""

    name: str
    artifact: Artifact
    tokenizer: Tokenizer
    network: Network
    engine: Engine

    @classmethod
    def load(cls, name: str, artifact: Artifact, context: Context, rows: int) -> Subject:
        """Read a model artifact; at most `rows` replies are computed at once."""
        import torch

        from wuxing.compute.device import pick_device
        from wuxing.generate.engine import Engine
        from wuxing.model.files import load_network
        from wuxing.text.tokenizer import Tokenizer

        network = load_network(artifact.path, str(pick_device(context.device)), torch.float32).eval()
        # fp32: what is compared must not depend on how a machine rounds bf16.
        engine = Engine(network, max_rows=rows, precision="fp32", frozen=True)
        return cls(name, artifact, Tokenizer.load(artifact.path), network, engine)

    @property
    def max_positions(self) -> int:
        return self.network.max_positions

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        return (self.tokenizer.end_of_turn_id, self.tokenizer.end_of_text_id)

    def ask(
        self,
        prompts: Sequence[list[dict[str, str]]],
        sampling: Sampling,
        seed: int,
        on_reply: Callable[[], None] = lambda: None,
    ) -> list[Said]:
        """Replies to chat prompts, in their order.  A reply depends on its prompt, its place and the seed only."""
        from wuxing.generate.engine import Request

        said: list[Said | None] = [None] * len(prompts)
        encoded = [self.tokenizer.encode_chat(prompt) for prompt in prompts]
        requests = []
        for number, tokens in enumerate(encoded):
            room = min(sampling.max_tokens, self.max_positions - len(tokens))
            if room <= 0:
                said[number] = Said("", "too_long", len(tokens), 0, None)
                continue
            draw = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed + number}
            requests.append(Request(str(number), tokens, room, stop_tokens=self.stop_tokens, **draw))  # type: ignore[arg-type]
        for reply in self.engine.generate(requests):
            number = int(reply.id)
            mean = sum(reply.logprobs) / len(reply.logprobs)
            text = self.tokenizer.decode(reply.tokens)
            said[number] = Said(text, reply.finish, len(encoded[number]), len(reply.tokens), mean)
            on_reply()
        answered = [one for one in said if one is not None]
        assert len(answered) == len(prompts), "the engine lost a request"
        return answered

    def score(self, records: Iterable[Record], group: int = 64) -> Iterator[Score]:
        """Log-probabilities of whole documents, `group` of them in memory at once.

        A text is predicted from an end-of-text, as in training; a dialogue's assistant turns from what was said before.
        Counted: every token of the text, not the end-of-text after it; of a dialogue, the assistant's words only.
        """
        waiting: list[tuple[Record, list[tuple[list[int], list[int]]], int]] = []
        for record in records:
            waiting.append((record, *self._pairs(record)))
            if len(waiting) == group:
                yield from self._scored(waiting)
                waiting = []
        yield from self._scored(waiting)

    def _scored(self, waiting: list[tuple[Record, list[tuple[list[int], list[int]]], int]]) -> Iterator[Score]:
        logprobs = iter(self.engine.score([pair for _, pairs, _ in waiting for pair in pairs]))
        for record, pairs, size in waiting:
            found = [next(logprobs) for _ in pairs]
            yield Score(record.id, -sum(map(sum, found)), sum(map(len, found)), size)

    def _pairs(self, record: Record) -> tuple[list[tuple[list[int], list[int]]], int]:
        """(prompt, continuation) pairs that fit the model, and the bytes that the continuations stand for."""
        if record.text is not None:
            ids = self.tokenizer.encode(record.text)
            return windows([self.tokenizer.end_of_text_id], ids, self.max_positions), len(record.text.encode())
        pairs, messages = [], record.messages or []
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                asked = self.tokenizer.encode_chat(messages[:number])
                pairs += windows(asked, self.tokenizer.encode(message["content"].strip()), self.max_positions)
        return pairs, len(counted_text(record).encode())


def counted_text(record: Record) -> str:
    """What of a record is predicted: its text, or all that the assistant says."""
    if record.text is not None:
        return record.text
    return "".join(m["content"].strip() for m in record.messages or [] if m["role"] == "assistant")


def windows(prompt: list[int], ids: list[int], longest: int) -> list[tuple[list[int], list[int]]]:
    """A continuation as (prompt, continuation) pairs of at most `longest` ids together.

    What is too long is cut: every id is predicted exactly once, after the first pair from half a window of context.
    """
    if len(prompt) + len(ids) <= longest:
        return [(prompt, ids)] if ids else []
    everything, start, pairs = prompt + ids, len(prompt), []
    while start < len(everything):
        context = min(start, longest // 2)
        stop = min(len(everything), start - context + longest)
        pairs.append((everything[start - context : start], everything[start:stop]))
        start = stop
    return pairs
