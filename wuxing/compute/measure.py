"""How fast this machine is, measured once in about a second and remembered per machine."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
SMALL_SYNCS = 5


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
    rates: dict[str, float] = field(default_factory=dict)
    """Products by type, in 1e9 operations per second: fp32, bf16, fp16, int8; tf32 and fp8 on a GPU."""
    disk_read_megabytes: float | None = None
    """Bytes read per second, in 1e6, past the cache where the system lets one drop it."""
    sync_seconds: float | None = None
    """Until a small file is safely on the disk: what each signature and checkpoint waits for."""
    all_reduce: dict[str, Any] = field(default_factory=dict)
    """Between processes of this host: bytes, seconds, latency; empty until it is asked for (`--processes 2`)."""
    measured: str = ""
    """When."""


def path_of(home: Path) -> Path:
    """Where this machine's figures are kept."""
    directory = Path(os.environ.get("WUXING_CACHE") or home / "cache")
    return directory / f"machine-{machine_digest()[:16]}.json"


def measured_speed(home: Path, place: Path | None, again: bool = False) -> Speed:
    """From the cache, or measured now.  `place`: a writable directory on the disk in question.

    A busy machine looks slow, so what is measured on one is not remembered.
    """
    path = path_of(home)
    known = Speed(**read_json(path)) if path.is_file() else None
    if known is not None and not again:
        return known
    speed = measure_speed(place)
    if known is not None:
        speed = replace(speed, all_reduce=known.all_reduce)
    if place is not None and not is_busy():
        write_json(path, asdict(speed))
    return speed


def remembered_speed(home: Path) -> Speed | None:
    """What was measured on this machine before; None when nothing was."""
    path = path_of(home)
    return Speed(**read_json(path)) if path.is_file() else None


def with_all_reduce(home: Path, speed: Speed, processes: int) -> Speed:
    """The figures with those of sums between so many processes, measured now and remembered with the others."""
    from wuxing.compute.collective import measure_all_reduce

    speed = replace(speed, all_reduce=measure_all_reduce(processes).to_json())
    if path_of(home).is_file() and not is_busy():
        write_json(path_of(home), asdict(speed))
    return speed


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

    rates = gemm_rates()
    bf16 = rates.get("bf16") if pick_precision(pick_device()) == torch.bfloat16 else None
    disk, read, sync = disk_speeds(place) if place is not None else (None, None, None)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Speed(rates["fp32"], bf16, memory_gigabytes(), disk, rates, read, sync, measured=now)


def gemm_rates() -> dict[str, float]:
    """Products by type: every one that this device multiplies at all."""
    import torch

    device = pick_device()
    rates = {"fp32": gemm_gflops(torch.float32), "bf16": gemm_gflops(torch.bfloat16, side=_trap_side(torch.bfloat16))}
    rates["fp16"] = gemm_gflops(torch.float16, side=_trap_side(torch.float16))
    rates |= {name: rate for name, product in _narrow(device).items() if (rate := product) is not None}
    if device.type == "cuda":
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        rates["tf32"] = gemm_gflops(torch.float32)
        torch.backends.cuda.matmul.allow_tf32 = before
    return {name: round(rate, 2) for name, rate in rates.items()}


def _trap_side(dtype: torch.dtype) -> int | None:
    """A small product where a type is not native to a CPU: it may be hundreds of times slower."""
    import torch

    if pick_device().type == "cuda":
        return None
    native = {torch.bfloat16: {"avx512_bf16", "amx_bf16", "bf16"}, torch.float16: {"avx512_fp16", "amx_fp16", "fphp"}}
    return None if cpu_flags() & native[dtype] else 192


def _narrow(device: torch.device) -> dict[str, float | None]:
    """int8, and fp8 where there is hardware for it; None for what PyTorch does not multiply here."""
    import torch

    side = SIDE if device.type == "cpu" else 8 * SIDE
    ones = torch.ones(side, side, dtype=torch.int8, device=device)
    found: dict[str, float | None] = {"int8": _rate(side, lambda: torch._int_mm(ones, ones.t()))}
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9):
        eighth = torch.ones(side, side, device=device).to(torch.float8_e4m3fn)
        scale = torch.ones((), device=device)
        found["fp8"] = _rate(
            side,
            lambda: torch._scaled_mm(eighth, eighth.t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16),
        )
    return found


def _rate(side: int, multiply: Callable[[], object]) -> float | None:
    import torch

    def once() -> None:
        multiply()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    try:
        return 2 * side**3 / _best_seconds(once) / 1e9
    except (RuntimeError, NotImplementedError):  # a type that this build does not multiply
        return None


def gemm_gflops(dtype: torch.dtype, side: int | None = None) -> float:
    """Rate of square matrix products on the best device."""
    import torch

    device = pick_device()
    side = side or (SIDE if device.type == "cpu" else 8 * SIDE)
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


def disk_speeds(place: Path) -> tuple[float, float, float]:
    """Megabytes written and synced per second, megabytes read per second, seconds until a small file is on the disk."""
    block = os.urandom(2**20)
    with tempfile.NamedTemporaryFile(dir=place, prefix=".wuxing-disk-") as file:
        start = time.perf_counter()
        written = 0
        while written < DISK_BYTES and time.perf_counter() - start < PROBE_SECONDS:
            file.write(block)
            written += len(block)
        file.flush()
        os.fsync(file.fileno())
        write = written / (time.perf_counter() - start) / 1e6
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        start = time.perf_counter()
        while file.read(2**20):
            pass
        read = written / (time.perf_counter() - start) / 1e6
        waits = []
        for _ in range(SMALL_SYNCS):
            file.write(b"x" * 4096)
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            waits.append(time.perf_counter() - start)
    return write, read, statistics.median(waits)


def _best_seconds(work: Callable[[], None]) -> float:
    work()
    seconds: list[float] = []
    while sum(seconds) < PROBE_SECONDS:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
