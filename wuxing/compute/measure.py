"""How fast this machine is, measured once in about a second and remembered per machine."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wuxing.compute.device import cpu_flags, pick_device, pick_precision
from wuxing.core.digest import digest_of
from wuxing.core.file import read_json, write_json

if TYPE_CHECKING:
    import torch

PROBE_SECONDS = 0.25
"""Time for each measurement; the best repetition counts, so that other programs disturb it least."""
SIDE = 1024
COPY_BYTES = 128 * 2**20
DISK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Speed:
    """What was measured on one machine."""

    fp32_gflops: float
    """Products of square matrices of 1,024, in 1e9 operations per second."""
    bf16_gflops: float | None
    """None where bf16 is not native."""
    memory_gigabytes: float
    """Bytes read and written per second by a copy, in 1e9."""
    disk_megabytes: float | None
    """Bytes written and synced per second, in 1e6; None where nothing may be written."""


def measured_speed(home: Path, place: Path | None) -> Speed:
    """From the cache, or measured now.  `place`: a writable directory on the disk in question.

    A busy machine looks slow, so what is measured on one is not remembered.
    """
    directory = Path(os.environ.get("WUXING_CACHE") or home / "cache")
    path = directory / f"machine-{machine_digest()[:16]}.json"
    if path.is_file():
        return Speed(**read_json(path))
    speed = measure_speed(place)
    if place is not None and not is_busy():
        write_json(path, asdict(speed))
    return speed


def remembered_speed(home: Path) -> Speed | None:
    """What was measured on this machine before; None when nothing was."""
    directory = Path(os.environ.get("WUXING_CACHE") or home / "cache")
    path = directory / f"machine-{machine_digest()[:16]}.json"
    return Speed(**read_json(path)) if path.is_file() else None


def is_busy() -> bool:
    """Whether other programs keep more than half of the cores at work."""
    return os.getloadavg()[0] > (os.cpu_count() or 1) / 2


def machine_digest() -> str:
    """What the figures belong to: this processor with this many cores, threads and this PyTorch."""
    import torch

    return digest_of(
        [
            platform.node(),
            platform.machine(),
            sorted(cpu_flags()),
            os.cpu_count(),
            torch.get_num_threads(),
            torch.__version__,
        ]
    )


def measure_speed(place: Path | None) -> Speed:
    """Measure now, in about a second."""
    import torch

    device = pick_device()
    bf16 = gemm_gflops(torch.bfloat16) if pick_precision(device) == torch.bfloat16 else None
    disk = disk_megabytes(place) if place is not None else None
    return Speed(gemm_gflops(torch.float32), bf16, memory_gigabytes(), disk)


def gemm_gflops(dtype: torch.dtype) -> float:
    """Rate of square matrix products on the best device."""
    import torch

    device = pick_device()
    side = SIDE if device.type == "cpu" else 8 * SIDE
    a = torch.ones(side, side, dtype=dtype, device=device)

    def multiply() -> None:
        torch.mm(a, a)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2 * side**3 / _best_seconds(multiply) / 1e9


def memory_gigabytes() -> float:
    """Rate of a copy that no cache holds, read and written bytes together."""
    import torch

    device = pick_device()
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2 * COPY_BYTES / _best_seconds(copy) / 1e9


def disk_megabytes(place: Path) -> float:
    """Rate of writing a file and waiting until the disk has it."""
    block = os.urandom(2**20)
    with tempfile.NamedTemporaryFile(dir=place, prefix=".wuxing-disk-") as file:
        start = time.perf_counter()
        written = 0
        while written < DISK_BYTES and time.perf_counter() - start < PROBE_SECONDS:
            file.write(block)
            written += len(block)
        file.flush()
        os.fsync(file.fileno())
        return written / (time.perf_counter() - start) / 1e6


def _best_seconds(work: Callable[[], None]) -> float:
    work()
    seconds: list[float] = []
    while sum(seconds) < PROBE_SECONDS:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
