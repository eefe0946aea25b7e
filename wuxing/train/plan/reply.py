"""How many replies a step of reinforcement learning draws at once, and from how many and how long ones it learns."""

from __future__ import annotations

import math

from wuxing.compute import team
from wuxing.train.config import ModelConfig
from wuxing.train.rollout import ROUND_TO, Lengths


def prompt_of(config: ModelConfig, lengths: Lengths | None) -> int:
    """Tokens of the longest prompt that is drawn from."""
    assert config.rollout is not None
    room = config.length_tokens - config.rollout.reply_tokens
    return room if lengths is None else min(room, lengths.prompt)


def winners_only(config: ModelConfig) -> bool:
    """Whether replies that earn no more than their group's mean are left out of the batch."""
    assert config.rollout is not None and config.objective.grpo is not None
    return not config.rollout.negative_share and not config.objective.grpo.kl


def width_of(config: ModelConfig, lengths: Lengths | None = None) -> int:
    """Tokens of a row from which is learnt: of winners alone as long as a right reply, else as long as any may be."""
    assert config.rollout is not None
    longest = prompt_of(config, lengths) + config.rollout.reply_tokens - 1
    if lengths is not None and winners_only(config):
        longest = min(longest, lengths.dialogue - 1)
    return min(config.length_tokens, -(-longest // ROUND_TO) * ROUND_TO)


def taught_rows(config: ModelConfig) -> int:
    """Replies of a step from which one process learns, at the most that is to be expected.

    Where losers weigh nothing only those above their group's mean teach: of a group of G, each right with probability
    p, G (p - p^G), which is largest at p = G^(-1 / (G - 1)).
    """
    assert config.rollout is not None
    group, rows = config.rollout.group, config.rollout.replies(team.ranks())
    if winners_only(config):
        rows = math.ceil(rows * (1 - 1 / group) * group ** (-1 / (group - 1)))
    return -(-rows // ROUND_TO) * ROUND_TO


def passes(config: ModelConfig) -> float:
    """The arithmetic of a position beside that of learning alone: drawing it is one more forward pass, and so is the
    model that training started from, where the objective asks it."""
    grpo = config.objective.grpo
    return 1.0 if grpo is None else 1 + (2 if grpo.kl else 1) / 3


def fewer_rows(config: ModelConfig) -> list[ModelConfig]:
    """The config, then with half as many replies at once, and so on; as it is where the recipe says how many."""
    rollout = config.rollout
    if rollout is None or rollout.rows is not None:
        return [config]
    rows, found = rollout.replies(team.ranks()), [config]
    while rows > 1:
        rows = -(-rows // 2)
        found.append(with_rows(config, rows))
    return found


def with_rows(config: ModelConfig, rows: int) -> ModelConfig:
    """With so many replies at once; 0: as it is."""
    if config.rollout is None or not rows:
        return config
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"rows": rows})})


def rows_of(config: ModelConfig) -> int:
    """Replies at once that a config comes to; 0 without a task."""
    return 0 if config.rollout is None else config.rollout.rows or config.rollout.replies(team.ranks())
