"""Batches that the model makes itself: replies to prompts of a task, judged, with their advantages.

What step s draws depends on the weights, the seed and the places of its prompts in the sample plan, on nothing that
ran before: a resumed run draws the same replies.

Shapes: B rows (replies), T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from wuxing.compute import team
from wuxing.core.digest import digest_of
from wuxing.core.error import WuxingError
from wuxing.core.file import append_line
from wuxing.data.batch import IGNORED, PADDING, Batch
from wuxing.data.plan import SamplePlan
from wuxing.generate.engine import Engine, Reply, Request
from wuxing.model.network import Network
from wuxing.objective.cross_entropy import token_logprobs
from wuxing.objective.grpo import advantages
from wuxing.objective.next_token import taught
from wuxing.task.task import Example, Task
from wuxing.text.tokenizer import Tokenizer
from wuxing.train.config import Rollout

LONGEST = 64
"""Prompts that are encoded to find the longest one."""
ROUND_TO = 16
"""Batches have a multiple of so many rows and tokens: oneDNN keeps a kernel for every shape that it has met."""


@dataclass(frozen=True)
class Judged:
    """One reply with what it earned."""

    sample_id: int
    example: Example
    prompt: list[int]
    reply: Reply
    text: str
    scores: dict[str, float]
    reward: float
    advantage: float


@dataclass
class Rollouts:
    """A BatchSource of judged replies, drawn by an engine over the network that is being trained."""

    engine: Engine
    task: Task
    tokenizer: Tokenizer
    config: Rollout
    seed: int
    length: int
    piece_rows: int
    log: Path | None = None
    """Where every rollout is kept, one JSON line each."""
    reference: Network | None = None
    """The model that training started from, when the objective wants to stay near it."""
    precision: torch.dtype = torch.float32
    rank: int = 0
    ranks: int = 1
    position: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    @cached_property
    def examples(self) -> list[Example]:
        """The task's training problems whose prompt leaves room for a reply."""
        examples = self.task.examples("train")
        room = self.length - self.config.reply_tokens
        fitting = [example for example in examples if len(self._prompt(example)) <= room]
        if not fitting:
            raise WuxingError(f"no prompt of {self.task.name} has at most {room} tokens", "Raise length_tokens")
        return fitting

    @cached_property
    def plan(self) -> SamplePlan:
        name = self.task.name
        content = digest_of([[example.id, example.messages] for example in self.examples])
        return SamplePlan(self.seed, {name: len(self.examples)}, {name: content}, {name: 1.0})

    @cached_property
    def digest(self) -> str:
        return digest_of([self.plan.digest, self.config.model_dump(mode="json", exclude={"rows"}), self.length])

    def __next__(self) -> list[Batch]:
        step = self.position // self.config.prompts
        places = range(self.position + self.rank, self.position + self.config.prompts, self.ranks)
        with self.engine.holding():
            judged = self._judge(self._draw(list(places)))
        self.position += self.config.prompts
        everyone = self._of_everyone(judged)
        self.figures = self._measure(everyone)
        if self.log is not None and self.rank == 0:
            for one in everyone:
                append_line(self.log, {"step": step + 1, **one["line"]})
        if self.reference is None and any(one["advantage"] for one in everyone):
            judged = [one for one in judged if one.advantage != 0]
        pieces = self._batch(judged).pieces(self.piece_rows) if judged else []
        return self._with_reference(pieces)

    def _of_everyone(self, judged: list[Judged]) -> list[dict[str, Any]]:
        """What all processes have drawn, in the order of the plan: the step's figures are those of all its replies."""
        mine = [
            {
                "place": one.sample_id,
                "reward": one.reward,
                "advantage": one.advantage,
                "correct": one.scores["correct"],
                "tokens": len(one.reply.tokens),
                "cut_off": one.reply.finish == "length",
                "logprob": sum(one.reply.logprobs),
                "line": _line(one) if self.log is not None else {},
            }
            for one in judged
        ]
        return sorted((one for part in team.of_everyone(mine) for one in part), key=lambda one: one["place"])

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "plan": self.digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["plan"] != self.digest:
            raise WuxingError("the checkpoint belongs to another sample plan", "Remove the step's draft to begin anew")
        self.position = int(state["position"])

    def describe(self, sample_id: int) -> list[str]:
        return [f"{self.task.name}: {self._example(sample_id).id}"]

    def taught_batch(self, rows: int) -> Batch:
        """The right replies to the first prompts of the plan: a batch for self-checks, for which nothing is drawn."""
        judged = []
        for place in range(rows):
            example = self._example(place)
            ids, learn = self.tokenizer.encode_dialogue(example.messages)
            first = learn.index(True)
            reply = [number for number, taught_here in zip(ids, learn, strict=True) if taught_here]
            scored = Reply(example.id, reply, [-1.0] * len(reply), "stop")
            judged.append(Judged(place, example, ids[:first], scored, example.answer, {}, 1.0, 1.0 + place))
        (batch,) = self._with_reference([self._batch(judged)])
        return batch

    def _example(self, sample_id: int) -> Example:
        return self.examples[self.plan[sample_id].row]

    def _prompt(self, example: Example) -> list[int]:
        return self.tokenizer.encode_chat(self.task.prompt(example))

    def _draw(self, places: list[int]) -> dict[int, list[Reply]]:
        """Replies to the prompt of each place, in the order of the group."""
        requests = [
            Request(
                f"{place}/{number}",
                self._prompt(self._example(place)),
                self.config.reply_tokens,
                seed=seed_of(self.seed, place, number),
                stop_tokens=(self.tokenizer.end_of_turn_id, self.tokenizer.end_of_text_id),
            )
            for place in places
            for number in range(self.config.group)
        ]
        replies = {reply.id: reply for reply in self.engine.generate(requests)}
        self.engine.release()  # learning has the memory now
        return {place: [replies[f"{place}/{n}"] for n in range(self.config.group)] for place in places}

    def _judge(self, drawn: dict[int, list[Reply]]) -> list[Judged]:
        judged = []
        for place, replies in drawn.items():
            example = self._example(place)
            texts = [self.tokenizer.decode(reply.tokens) for reply in replies]
            scores = [self.task.score(example, text) for text in texts]
            rewards = [self._reward(score) for score in scores]
            gains = advantages(rewards, self.config.normalise, self.config.negative_share)
            prompt = self._prompt(example)
            for reply, text, score, reward, gain in zip(replies, texts, scores, rewards, gains, strict=True):
                judged.append(Judged(place, example, prompt, reply, text, score, reward, gain))
        return judged

    def _reward(self, scores: dict[str, float]) -> float:
        unknown = sorted(set(self.config.reward) - set(scores))
        if unknown:
            known = ", ".join(sorted(scores))
            raise WuxingError(f"task {self.task.name} gives no score {unknown[0]}", f"rollout.reward may name {known}")
        return sum(weight * scores[name] for name, weight in self.config.reward.items())

    def _measure(self, drawn: list[dict[str, Any]]) -> dict[str, float]:
        groups = [drawn[i : i + self.config.group] for i in range(0, len(drawn), self.config.group)]
        tokens = sum(one["tokens"] for one in drawn)
        return {
            "reward": sum(one["reward"] for one in drawn) / len(drawn),
            "correct": sum(one["correct"] for one in drawn) / len(drawn),
            "reply_tokens": tokens / len(drawn),
            "cut_off": sum(one["cut_off"] for one in drawn) / len(drawn),
            "equal_groups": sum(len({one["reward"] for one in group}) == 1 for group in groups) / len(groups),
            "sampler_logprob": sum(one["logprob"] for one in drawn) / max(1, tokens),
        }

    def _batch(self, judged: list[Judged]) -> Batch:
        longest = max(len(one.prompt) + len(one.reply.tokens) for one in judged) - 1
        rows, tokens_wide = (-(-size // ROUND_TO) * ROUND_TO for size in (len(judged), longest))
        shape = (rows, min(tokens_wide, max(longest, self.length)))
        batch = Batch(
            tokens_BT=torch.zeros(shape, dtype=torch.int64),
            labels_BT=torch.full(shape, IGNORED),
            positions_BT=torch.zeros(shape, dtype=torch.int64),
            documents_BT=torch.full(shape, PADDING, dtype=torch.int32),
            task=self.task.name,
            sample_ids=[one.sample_id for one in judged],
            extra={name: torch.zeros(shape) for name in ("advantages", "sampler_logprobs")},
        )
        for row, one in enumerate(judged):
            tokens = one.prompt + one.reply.tokens[:-1]
            first, last = len(one.prompt) - 1, len(tokens)
            batch.tokens_BT[row, :last] = torch.tensor(tokens)
            batch.positions_BT[row, :last] = torch.arange(last)
            batch.documents_BT[row, :last] = 0
            batch.labels_BT[row, first:last] = torch.tensor(one.reply.tokens)
            batch.extra["advantages"][row, first:last] = one.advantage
            batch.extra["sampler_logprobs"][row, first:last] = torch.tensor(one.reply.logprobs)
        return batch

    @torch.no_grad()
    def _with_reference(self, pieces: list[Batch]) -> list[Batch]:
        """The pieces with the log-probabilities of the model that training started from, where they are wanted.

        A reference that is cut over processes goes through all its passes with all of them.
        """
        reference = self.reference
        if reference is None:
            return pieces
        found: list[Batch] = []
        passes = max(team.of_everyone(len(pieces)))
        with torch.autocast(reference.device.type, self.precision, enabled=self.precision != torch.float32):
            for piece in pieces:
                hidden_ND, labels_N = taught(reference, piece.to(reference.device))
                logprobs_N, _ = token_logprobs(hidden_ND, reference.head_VD, labels_N)
                filled_BT = torch.zeros(piece.labels_BT.shape)
                filled_BT[piece.labels_BT >= 0] = logprobs_N.cpu()
                found.append(replace(piece, extra={**piece.extra, "reference_logprobs": filled_BT}))
            if reference.cut is not None:
                for _ in range(passes - len(pieces)):
                    reference.cut.keep_up()
                reference.cut.release()
        return found


@dataclass(frozen=True)
class Lengths:
    """Tokens of a task's longest problems."""

    prompt: int
    dialogue: int
    """With the right reply and its end of turn."""
    problems: int = 0
    """How many there are to learn from."""


def lengths_of(task: Task, tokenizer: Tokenizer) -> Lengths:
    """The longest among the problems with the most characters."""
    examples = [*task.examples("train"), *task.examples("validation")]

    def longest(messages: Callable[[Example], list[dict[str, str]]]) -> list[Example]:
        return sorted(examples, key=lambda one: -sum(len(said["content"]) for said in messages(one)))[:LONGEST]

    prompts = [len(tokenizer.encode_chat(task.prompt(one))) for one in longest(task.prompt)]
    whole = [len(tokenizer.encode_dialogue(one.messages)[0]) for one in longest(lambda one: one.messages)]
    return Lengths(max(prompts, default=1), max(whole, default=2), len(examples))


def seed_of(seed: int, place: int, number: int) -> int:
    """The seed of one reply: which prompt of the plan, which of its group."""
    hashed = hashlib.blake2b(f"{seed}/{place}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "little") >> 1


def _line(one: Judged) -> dict[str, Any]:
    return {
        "id": one.example.id,
        "sample": one.sample_id,
        "prompt": one.example.messages[:-1],
        "reply": one.text,
        "finish": one.reply.finish,
        "reward": one.reward,
        "scores": one.scores,
        "advantage": round(one.advantage, 6),
        "logprob": round(sum(one.reply.logprobs), 6),
    }
