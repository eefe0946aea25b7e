"""Which device computes, and in which precision."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from wuxing.core.error import UsageError


def pick_device(name: str = "auto") -> torch.device:
    """`auto`: the first GPU, else the CPU.  Raises UsageError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f'"{name}" is no device', "Write auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f'device "{name}" is not supported', "Write auto, cpu, cuda or cuda:1")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f'device "{name}" is not there: PyTorch sees {torch.cuda.device_count()} GPUs', "Run `wuxing doctor`"
        )
    return device


def pick_precision(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32.  (fp16 on a CPU is hundreds of times slower.)"""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    return torch.bfloat16 if cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"} else torch.float32


def chosen_precision(name: str, device: torch.device) -> torch.dtype:
    """Of `auto`, `fp32`, `bf16` or `float8`: the type of the products, of float8 those outside the blocks."""
    if name == "auto":
        return pick_precision(device)
    return torch.float32 if name == "fp32" else torch.bfloat16


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The CPU's instruction-set flags as Linux names them; empty where there is no /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return frozenset()
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """The number of threads decides the order of sums, and so the bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
