"""What drawing replies takes beside learning from them: the cache of keys and values, the packed copy of the weights,
and what a step of the engine holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from wuxing.compute import team
from wuxing.compute.device import pick_precision
from wuxing.compute.memory import available_memory
from wuxing.core.memory import trim_memory
from wuxing.generate.engine import PREFILL_TOKENS, Engine, Request
from wuxing.generate.packed import padded_rows
from wuxing.model.architecture import count_parameters
from wuxing.model.network import Network
from wuxing.train.config import ModelConfig
from wuxing.train.plan.probe import along, frozen, thawed, top
from wuxing.train.plan.reply import prompt_of, rows_of, taught_rows
from wuxing.train.rollout import ROUND_TO, Lengths
from wuxing.train.validate import TASK_ROWS

KERNEL_BYTES = 1 << 19
"""What oneDNN keeps for one product of one shape: 640 shapes took 374 MB (torch 2.13, AVX-512)."""
DRAWING_PRODUCTS, LEARNING_PRODUCTS = 5, 12
"""Shapes of products for one number of rows: of a layer's four matrices and the head; of four forward and twice as many
backward.  Layers share them."""
PROMPT_SHAPES = 4
"""Numbers of prompt tokens that are computed together, in steps and measurements."""
ARROW_BYTES = 70 * 10**6
"""Code and buffers of Arrow, which reads a task's problems; texts are read without it."""
PROBLEM_BYTES = 2000
"""A problem of a task in memory."""
PROBED_TOKENS = 3
"""New tokens of each reply while memory is probed: the first comes with its prompt, the others from the cache."""
MOST_FLOPS = 1e12
"""Of a probe: some three seconds of two cores."""


@dataclass(frozen=True)
class Drawing:
    """One engine at work."""

    shape: tuple[tuple[str, Any], ...]
    rows: int
    """Replies at once."""
    group: int
    """Replies to one prompt: its keys and values are computed once."""
    prompt_tokens: int
    length: int
    """Tokens of a row of the cache."""
    device: str


def drawings(
    config: ModelConfig, shape: Mapping[str, Any], device: str, lengths: Lengths | None = None
) -> list[Drawing]:
    """The engines of a run, which work one after the other: of a step, and of a measurement on held-out problems."""
    rollout = config.rollout
    assert rollout is not None
    rows, prompt = rollout.rows or rollout.replies(team.ranks()), prompt_of(config, lengths)
    key = tuple(sorted((name, frozen(value)) for name, value in shape.items()))
    step = Drawing(key, rows, min(rows, rollout.group), prompt, config.length_tokens, device)
    looked = min(TASK_ROWS, rows, config.validation.prompts)
    return [step, Drawing(key, looked, 1, prompt, prompt + rollout.reply_tokens, device)]


def standing_bytes(config: ModelConfig, device: str, lengths: Lengths | None, piece_rows: int) -> int:
    """What reinforcement learning keeps besides tensors, more than other training: a task with its problems, and on a
    CPU kernels for every number of rows that a batch of replies goes through, while it is drawn and from step to step
    (half of the numbers up to those of a piece, which is what a run meets)."""
    assert config.rollout is not None
    task = ARROW_BYTES + PROBLEM_BYTES * (lengths.problems if lengths else 0)
    if device != "cpu":
        return task
    drawn = {padded_rows(rows) for rows in range(1, rows_of(config) + 1)}
    learnt = min(taught_rows(config), piece_rows) / ROUND_TO / 2
    products = DRAWING_PRODUCTS * (len(drawn) + PROMPT_SHAPES) + LEARNING_PRODUCTS * learnt
    return task + round(KERNEL_BYTES * products)


def drawing_bytes(asked: Drawing, measured: bool) -> tuple[int, bool]:
    """(the most at once beyond the network's own weights, whether it was measured)."""
    if measured and _flops(asked) < MOST_FLOPS and _has_room(asked):
        return _probed(asked), True
    return _formula(asked, dict(asked.shape)), False


@lru_cache(maxsize=64)
def _probed(asked: Drawing) -> int:
    """Of engines over one and over two layers, and so over any number: each layer adds the same."""
    layers = int(dict(asked.shape)["num_hidden_layers"])
    depths = [layers] if layers <= 2 else [1, 2]
    with team.alone(), torch.random.fork_rng(devices=[]):
        return along(layers, depths, [_most(asked, depth) for depth in depths])


def _most(asked: Drawing, layers: int) -> int:
    shape = _shape_of(asked, layers)
    network = Network(shape).initialise(0).to(asked.device)
    engine = Engine(network, max_rows=asked.rows, max_tokens=asked.length)
    asked_for = requests(asked, PROBED_TOKENS)

    def work() -> None:
        for _ in engine.generate(asked_for):
            pass
        engine.release()

    if asked.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    found = top(work)
    trim_memory()  # a run begins in the same process
    return found


def requests(asked: Drawing, tokens: int, count: int | None = None) -> list[Request]:
    """Made-up prompts, each asked for a group of replies that end after so many tokens; `count`: of the rows."""
    count = count or asked.rows
    size = int(dict(asked.shape)["vocab_size"])
    length = min(asked.prompt_tokens, asked.length - tokens)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, size, (-(-count // asked.group), max(1, length)), generator=generator).tolist()
    return [Request(str(row), prompts[row // asked.group], tokens, seed=row) for row in range(count)]


def _shape_of(asked: Drawing, layers: int) -> dict[str, Any]:
    return {key: thawed(value) for key, value in asked.shape} | {"num_hidden_layers": layers}


def _flops(asked: Drawing) -> float:
    """Of both probes: prompts once for each group, and the tokens that are drawn."""
    tokens = asked.rows * asked.prompt_tokens / asked.group + asked.rows * PROBED_TOKENS
    return 2.0 * tokens * count_parameters(_shape_of(asked, 3))


def _has_room(asked: Drawing) -> bool:
    """Whether two layers can be tried where a limit may end the process: by formula, twice over."""
    shape = _shape_of(asked, min(2, int(dict(asked.shape)["num_hidden_layers"])))
    free = available_memory() if asked.device == "cpu" else int(torch.cuda.mem_get_info()[0])
    return 2 * (4 * count_parameters(shape) + _formula(asked, shape)) < free


def _formula(asked: Drawing, shape: Mapping[str, Any]) -> int:
    """The cache, the copy of the weights, logits in fp32 with their log-softmax, softmax and cumulative fp64 sum, and
    the states of the prompts that are computed together."""
    on_cpu = asked.device == "cpu"
    width = torch.finfo(pick_precision(torch.device("cpu")) if on_cpu else torch.bfloat16).bits // 8
    layers, vocabulary = int(shape["num_hidden_layers"]), int(shape["vocab_size"])
    hidden, inner = int(shape["hidden_size"]), int(shape["intermediate_size"])
    kv_heads, channels = int(shape["num_key_value_heads"]), int(shape["head_dim"])
    heads = int(shape["num_attention_heads"])
    cache = 2 * layers * asked.rows * kv_heads * asked.length * channels * (4 if on_cpu else width)
    tables = (1 if shape["tie_word_embeddings"] else 2) * vocabulary * hidden
    packed = width * (count_parameters(dict(shape)) - tables + vocabulary * hidden)
    logits = asked.rows * vocabulary * (4 + 4 + 4 + 8)
    prompts = min(max(PREFILL_TOKENS, asked.prompt_tokens), asked.rows * asked.prompt_tokens // asked.group)
    states = prompts * (4 * 2 * hidden + 3 * width * inner + 3 * 4 * (heads + 2 * kv_heads) * channels)
    return cache + packed + max(logits, states)
