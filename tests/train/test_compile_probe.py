"""Whether compiling pays: decided by a probe, remembered per machine and shape, never for a short run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wuxing.compute.device import chosen_precision, pick_precision
from wuxing.core.error import UsageError
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.float8 import refuse_without_float8
from wuxing.train.plan import compile as module
from wuxing.train.plan.compile import Probe, compile_pays, remembered

SHAPE = resolve(Architecture(size="40k", width=32, layers=2, max_positions=64), 61)
CPU = torch.device("cpu")


def test_it_pays_when_the_run_is_long_enough() -> None:
    probe = Probe("a block", 1.0, 0.8, 60.0)
    assert probe.gain == pytest.approx(0.2)
    assert probe.pays(400) and not probe.pays(200)
    assert not Probe("noise", 1.0, 0.98, 1.0).pays(1e6) and not Probe("slower", 1.0, 1.2, 1.0).pays(1e6)


def test_a_probe_is_made_once_for_a_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WUXING_CACHE", raising=False)
    made: list[int] = []

    def counted(shape: object, length: int, precision: torch.dtype, device: torch.device) -> Probe:
        made.append(length)
        return Probe(f"rows of {length}", 1.0, 0.5, 10.0)

    monkeypatch.setattr(module, "try_block", counted)
    said: list[str] = []
    assert not compile_pays(tmp_path, SHAPE, 64, torch.float32, CPU, 60, said.append) and not made
    for length in (64, 64, 32):
        assert compile_pays(tmp_path, SHAPE, length, torch.float32, CPU, 7200, said.append)
    assert made == [64, 32] and said[1].endswith("(remembered)") and "remembered" not in said[0]
    assert sorted(probe.what for probe in remembered(tmp_path)) == ["rows of 32", "rows of 64"]


def test_a_block_is_timed_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that changes nothing: what is tested is that both networks run."""
    plain = module.Network

    class Quick(plain):  # type: ignore[misc, valid-type]
        def __init__(self, config: dict[str, object]):
            super().__init__(config)
            whole = self.model.compile
            self.model.compile = lambda: whole(backend="eager")

    monkeypatch.setattr(module, "Network", Quick)
    probe = module.try_block(SHAPE, 64, torch.bfloat16, CPU)
    assert probe.eager_seconds > 0 and probe.compiled_seconds > 0 and "width 32, rows of 64" in probe.what


def test_float8_is_refused_where_nothing_multiplies_it() -> None:
    with pytest.raises(UsageError, match="precision is float8, and a CPU has no float8 products"):
        refuse_without_float8(CPU)


def test_precision_is_what_the_recipe_says() -> None:
    assert [chosen_precision(name, CPU) for name in ("fp32", "bf16", "float8")] == [
        torch.float32,
        torch.bfloat16,
        torch.bfloat16,
    ]
    assert chosen_precision("auto", CPU) == pick_precision(CPU)
