"""Plans against what a pass really keeps, and the refusal that comes before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from wuxing.compute import memory
from wuxing.compute.memory import available_memory, plan_compute, plan_memory, refuse_too_large
from wuxing.core.error import WuxingError
from wuxing.model import native
from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.model.network import Network


def _kept_bytes(network: Network, rows: int, length: int, documents: bool, bf16: bool) -> int:
    """Everything that autograd keeps for the backward pass besides the weights, each storage once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    numbers = (torch.arange(length) // 40).expand(rows, -1).contiguous() if documents else None
    tokens = torch.randint(0, network.vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        alive = network.hidden(tokens, None, numbers)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    del alive
    return sum(size for place, size in kept.items() if place not in weights)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("size", ["2m", "5m"])
@pytest.mark.parametrize(("bf16", "documents"), [(True, True), (True, False), (False, True), (False, False)])
def test_planned_activations_are_those_that_are_kept(family: str, size: str, bf16: bool, documents: bool) -> None:
    """Within 5 %: what the table adds in casts, and masks, is small beside them."""
    config = resolve(Architecture(family=family, size=size), 2048)
    network, rows, length = Network(config), 8, 160
    kept = _kept_bytes(network, rows, length, documents, bf16)
    width, kernels = (2, not isinstance(native.kernels(), str)) if bf16 else (4, False)
    plan = plan_memory(config, count_parameters(config), rows * length, length, width, 8, documents, kernels)
    casts = 2 * (count_parameters(config) - 2048 * config["hidden_size"]) if bf16 else 0
    assert abs((plan.activations + casts) / kept - 1) < 0.05


def test_the_plan_grows_with_what_costs() -> None:
    config = resolve(Architecture(size="5m"), 8192)
    base = plan_memory(config, 5_000_000, 4096, 512)
    assert plan_memory(config, 5_000_000, 8192, 512).activations > 1.9 * base.activations
    assert plan_memory(config, 5_000_000, 4096, 512, optimizer_bytes=4).peak == base.peak - 20_000_000
    assert plan_memory(config, 5_000_000, 4096, 512, matmul_bytes=4).activations > 1.2 * base.activations


def test_flops_of_a_step_are_those_that_pytorch_counts() -> None:
    """Within 5 %: PyTorch counts the full square of attention on a CPU, the plan its causal half."""
    from torch.utils.flop_counter import FlopCounterMode

    config = resolve(Architecture(size="2m"), 2048)
    network, rows, length = Network(config), 4, 64
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        network(tokens).sum().backward()
    plan = plan_compute(config, count_parameters(config), rows * length, length, 100.0)
    assert abs(plan.flops / counter.get_total_flops() - 1) < 0.05
    assert plan.seconds == pytest.approx(plan.flops / (100e9 * 0.4))


def test_too_large_a_model_is_refused_with_what_would_fit() -> None:
    config = resolve(Architecture(size="7b"), 32000)
    plan = plan_memory(config, count_parameters(config), 8192, 1024)
    with pytest.raises(
        WuxingError, match=r"a model too large for memory: .* needs [\d.]+ [GT]B, 17.2 GB are free"
    ) as said:
        refuse_too_large(plan, 16 * 2**30)
    assert "architecture.size of about" in str(said.value)
    refuse_too_large(plan, 400 * 2**30)
    suggested = str(said.value).partition("of about ")[2].split()[0].rstrip(".")
    small = resolve(Architecture(size=suggested), 32000)
    refuse_too_large(plan_memory(small, count_parameters(small), 8192, 1024), 16 * 2**30)


def _group(place: Path, limit: str, used: int, cached: int, names: tuple[str, str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / names[0]).write_text(f"{limit}\n")
    (place / names[1]).write_text(f"{used}\n")
    (place / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_the_own_control_group_and_those_above_it_limit_what_is_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    machine, mib = available_memory(), 2**20
    names = memory._FILES["memory" if version == 1 else ""]
    top = tmp_path / ("memory" if version == 1 else "")
    (tmp_path / "membership").write_text("4:memory:/jobs/one\n3:cpuset:/\n0::/\n" if version == 1 else "0::/jobs/one\n")
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(memory, "_CONTROL", tmp_path)
    _group(top / "jobs" / "one", str(300 * mib), 120 * mib, 20 * mib, names)
    assert available_memory() == 200 * mib
    _group(top / "jobs", str(400 * mib), 250 * mib, 0, names)  # the job has less left than the step
    assert available_memory() == 150 * mib
    _group(top / "jobs" / "one", "max", 0, 0, names)
    _group(top / "jobs", "max", 0, 0, names)
    assert available_memory() > machine / 2
    _group(top, str(100 * mib), 10 * mib, 0, names)  # a container, whose own group lies at the top
    (tmp_path / "membership").write_text("4:memory:/docker/abc\n0::/docker/abc\n")
    assert available_memory() == 90 * mib
