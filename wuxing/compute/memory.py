"""What a network needs: parameters, memory and arithmetic of a training run, planned before it starts.

The figures describe our own trainer: fp32 weights and gradients, products in bf16 or fp32, a loss that never holds all
logits, and the tensors that `model/fused.py` keeps for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wuxing.core.amount import bytes_text
from wuxing.core.error import WuxingError

LOSS_LOGITS = 1 << 21
"""Logits that the loss holds at once."""
SHORT_ROW = 512
"""Up to this length a CPU keeps the attention weights in bf16 (`model/fused.py`)."""
BLOCK_QUERIES = 128
"""Queries of a block of the compiled attention (`model/span.py`)."""
RESERVE_BYTES = 256 * 2**20
"""Left for PyTorch itself, its work buffers and the data's pages."""
_MEMBERSHIP = Path("/proc/self/cgroup")
_CONTROL = Path("/sys/fs/cgroup")
_FILES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}
"""Limit and use of a control group, of version 2 and of version 1 (by its controller)."""


@dataclass(frozen=True)
class MemoryPlan:
    """Planned peak of a training run, in bytes beyond what the process holds at its start."""

    parameters: int
    weights: int
    gradients: int
    optimizer: int
    casts: int
    """Copies of the weights in the type that is multiplied."""
    activations: int
    loss: int
    copies: int = 0
    """Of what moves, for a checkpoint."""
    replies: int = 0
    """With which replies are drawn, the weights once more in the type of the products, and caches: what that takes
    beyond the learning with which it takes turns.  On every process, however the state is cut."""
    other: int = RESERVE_BYTES
    reference: int = 0
    """The model that training started from, where the objective wants to stay near it."""
    drawing: int = 0
    """What drawing replies takes beside weights, optimizer and reference.  No part: it takes turns with learning."""
    basis: str = "formula"
    """`probe`: measured on slices of the network; `formula`."""

    def taking_turns(self) -> MemoryPlan:
        """With what drawing replies takes beyond learning from them."""
        learning = self.gradients + self.casts + self.activations + self.loss
        return replace(self, replies=max(0, self.drawing - learning))

    @property
    def parts(self) -> dict[str, int]:
        """What the peak is made of."""
        names = "weights gradients optimizer casts activations loss copies reference replies other"
        return {name: int(getattr(self, name)) for name in names.split()}

    @property
    def peak(self) -> int:
        """Everything at once."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class ComputePlan:
    """Planned arithmetic and time."""

    flops: float
    seconds: float
    """At the given rate and share of it."""


def plan_memory(
    shape: Mapping[str, Any],
    parameters: int,
    piece_tokens: int,
    length_tokens: int,
    matmul_bytes: int = 2,
    optimizer_bytes: int = 8,
    packed: bool = True,
    compiled: bool = False,
) -> MemoryPlan:
    """The plan for one network (`shape`: the values of its config.json) and one piece of a step.

    `matmul_bytes`: 2 for bf16, 4 for fp32; `optimizer_bytes`: state per parameter (AdamW 8, Muon 4); `packed`: rows
    hold several documents, so attention needs a mask; `compiled`: with a CPU's compiled kernels (`model/native.py`).
    """
    rows = max(1, piece_tokens // length_tokens)
    layers, vocabulary = int(shape["num_hidden_layers"]), int(shape["vocab_size"])
    squares = rows * length_tokens**2 * matmul_bytes
    short = matmul_bytes == 2 and length_tokens <= SHORT_ROW
    heads = int(shape["num_attention_heads"])
    mixed = piece_tokens * heads * int(shape["head_dim"]) * matmul_bytes
    attention = squares * packed + (layers * (squares * heads + mixed) if short else 0)
    if compiled and matmul_bytes == 2:  # no mask; probabilities of the blocks below the diagonal
        below = min(1.0, (1 + BLOCK_QUERIES / length_tokens) / 2)
        attention = round(layers * squares * heads * below) if short else 0
    loss_tokens = max(64, LOSS_LOGITS // vocabulary)
    head = vocabulary * int(shape["hidden_size"])
    return MemoryPlan(
        parameters=parameters,
        weights=4 * parameters,
        gradients=4 * parameters,
        optimizer=optimizer_bytes * parameters,
        casts=parameters * matmul_bytes if matmul_bytes < 4 else 0,
        activations=piece_tokens
        * (layers * activation_bytes(shape, matmul_bytes, compiled) + 4 * int(shape["hidden_size"]))
        + attention,
        loss=3 * 4 * loss_tokens * vocabulary + 4 * head + 2 * piece_tokens * int(shape["hidden_size"]) * 4,
    )


def activation_bytes(shape: Mapping[str, Any], matmul_bytes: int = 2, compiled: bool = False) -> int:
    """What one layer keeps of one token for the backward pass.

    fp32: the residual stream twice (before each norm) and the queries' and keys' rates; in the type of the products:
    both normed inputs, queries and keys (also before their norms, where they have them), values, the mixed heads,
    gate, up and their product.  The compiled kernels keep queries, keys and values as projected and as turned.
    """
    width, inner, channels = int(shape["hidden_size"]), int(shape["intermediate_size"]), int(shape["head_dim"])
    heads, kv_heads = int(shape["num_attention_heads"]), int(shape["num_key_value_heads"])
    normed = 2 if shape["model_type"] == "qwen3" else 1
    rates = 2 + heads + (heads + kv_heads if normed == 2 else 0)
    streams = 4 * (2 * width + rates)
    if compiled and matmul_bytes == 2:
        projected = (2 * (heads + 2 * kv_heads) + heads) * channels
        return 4 * (2 * width + 2) + 2 * (2 * width + projected + 3 * inner)
    projected = normed * (heads + kv_heads) * channels + kv_heads * channels + heads * channels
    return streams + matmul_bytes * (2 * width + projected + 3 * inner)


def plan_compute(
    shape: Mapping[str, Any],
    parameters: int,
    tokens: int,
    length_tokens: int,
    gflops_per_second: float,
    utilisation: float = 0.4,
) -> ComputePlan:
    """Training FLOPs (6 per parameter of a matrix and token, 6 per channel and position of attention: Kaplan et al.
    2020, causal half) and the time at `utilisation` of a measured rate."""
    matrices = parameters if shape["tie_word_embeddings"] else parameters - shape["vocab_size"] * shape["hidden_size"]
    heads = int(shape["num_attention_heads"]) * int(shape["head_dim"])
    attention = 6 * int(shape["num_hidden_layers"]) * heads * length_tokens
    flops = float(tokens) * (6 * matrices + attention)
    return ComputePlan(flops, flops / (gflops_per_second * 1e9 * utilisation))


def position_arithmetic(shape: Mapping[str, Any], parameters: int, length_tokens: int) -> tuple[float, float]:
    """FLOPs of one position in a row of `length_tokens`, and the share of them that grows with that length."""
    whole, least = (plan_compute(shape, parameters, 1, length, 1.0).flops for length in (length_tokens, 0))
    return whole, round(1 - least / whole, 6)


def available_memory() -> int:
    """Bytes that this process may still take: what the machine has free, or less where its control group says so, or
    one of those that this group is in (containers, systemd-run, SLURM)."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for group, allowed, used in _limited_groups():
        free = min(free, max(0, allowed - int(used.read_text()) + _reclaimable(group)))
    return free


def memory_limit() -> int | None:
    """What the control groups allow, whatever is used of it; None without a limit."""
    import psutil

    least = min((allowed for _, allowed, _ in _limited_groups()), default=None)
    return least if least is not None and least < psutil.virtual_memory().total else None


def _limited_groups() -> Iterator[tuple[Path, int, Path]]:
    """The groups with a limit, and the files that say what is used of it."""
    for group, (limit, used) in _control_groups():
        if (group / limit).is_file() and (group / used).is_file():
            allowed = (group / limit).read_text().strip()
            if allowed.isdigit():
                yield group, int(allowed), group / used


def _control_groups() -> Iterator[tuple[Path, tuple[str, str]]]:
    """This process's groups and those above them, with the names of their files.

    A container often sees its own group as the topmost one, whatever the membership says.
    """
    lines = _MEMBERSHIP.read_text().splitlines() if _MEMBERSHIP.is_file() else []
    places = {controller: path for _, controller, path in (line.split(":", 2) for line in lines)}
    for controller, files in _FILES.items():
        top, below = _CONTROL / controller, places.get(controller, "/").strip("/")
        for group in (top / below, *(top / below).parents):
            yield group, files
            if group == top:
                break


def _reclaimable(group: Path) -> int:
    """Bytes of cached files, which the kernel gives back when they are needed."""
    path = group / "memory.stat"
    if not path.is_file():
        return 0
    rows = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
    return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))  # version 1 counts groups below apart


def refuse_too_large(
    plan: MemoryPlan,
    available: int | None = None,
    what: str = "training",
    shards: int = 0,
    processes: int = 1,
    cheaper: Sequence[str] = ("a smaller piece_tokens", "recompute: true"),
) -> None:
    """Raises WuxingError before anything is allocated when the plan needs more than there is.

    `shards`: over how many processes with as much memory each its state would have to be cut; 0: not known.
    `processes`: on this host, each of which needs that much of what is `available` to it.
    `cheaper`: what has not been tried yet and makes activations smaller.
    """
    available = available_memory() if available is None else available
    if plan.peak <= available:
        return
    fitting = _fitting(plan, available)
    smaller = f"architecture.size of about {size_text(fitting)}" if fitting >= 1e5 else "much smaller architecture.size"
    fewer = "".join(f", or {way}" for way in cheaper) if plan.activations > plan.peak / 4 else ""
    fewer += f", or cut its state over {shards} such machines (sharding: shard)" if shards else ""
    each = f" in each of {processes} processes on this host" if processes > 1 else ""
    for_each = " for each" if processes > 1 else ""
    fewer += ", or take fewer processes" if processes > 1 and plan.peak <= available * processes else ""
    raise WuxingError(
        f"a model too large for memory: {what} {plan.parameters:,} parameters needs {bytes_text(plan.peak)}{each}, "
        f"{bytes_text(available)} are free{for_each}",
        f"Choose an {smaller}{fewer}" if fitting >= 1e5 else f"Choose a {smaller}{fewer}",
    )


def _fitting(plan: MemoryPlan, available: int) -> int:
    """Parameters of a smaller network that fits: what it keeps shrinks with width times layers, so by the power 2/3."""
    fixed = plan.weights + plan.gradients + plan.optimizer + plan.casts + plan.replies
    share = 1.0
    while share > 1e-6 and fixed * share + plan.activations * share ** (2 / 3) + plan.loss + RESERVE_BYTES > available:
        share *= 0.9
    return int(plan.parameters * share * 0.9)


def size_text(parameters: float) -> str:
    """As the dial writes it: `1.17b`."""
    for unit, name in ((1e9, "b"), (1e6, "m"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return f"{parameters:.0f}"
