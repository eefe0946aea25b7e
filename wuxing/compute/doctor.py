"""The doctor: what this machine has, how fast it is, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from wuxing.compute.device import cpu_flags
from wuxing.compute.measure import Speed, measured_speed, with_all_reduce
from wuxing.compute.memory import available_memory
from wuxing.compute.need import Finding, extras, fonts, limits, locale
from wuxing.core.amount import bytes_text
from wuxing.core.file import read_json

REQUIRED = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow", "pydantic", "gguf")
MIN_DISK_BYTES, MIN_MEMORY_BYTES = 2 * 10**9, 2 * 10**9
"""What the first recipe needs, twice over."""
_FAST_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def examine(home: Path | None = None, again: bool = False, processes: int = 0) -> list[Finding]:
    """Everything, in the order in which people read it; takes some four seconds, one when it was measured before.

    `home` is where the store is or will be; its disk is the one that is looked at, and measurements are kept below it.
    `again`: measure although it was measured before; `processes`: also measure sums between so many.
    """
    home = Path(home or os.environ.get("WUXING_HOME") or ".wuxing")
    software = [*_libraries(), *extras(), _compiler(), _gpu(), *fonts(), *locale()]
    return [*_system(), *_room(home), *limits(), *software, *_speeds(home, again, processes), *_probes(home)]


def _system() -> Iterator[Finding]:
    version = platform.python_version()
    new_enough = sys.version_info >= (3, 11)
    yield Finding("python", version, new_enough, None if new_enough else "Install Python 3.11 or newer")
    yield Finding("system", f"{platform.system()} {platform.release()} {platform.machine()}", True)
    flags = [flag for flag in _FAST_FLAGS if flag in cpu_flags()]
    yield Finding("processor", f"{cpu_name()}, {', '.join(flags) or 'no known vector units'}", True)
    yield _cores()


def cpu_name() -> str:
    """The CPU's own name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    if quota is not None and quota < cores - 0.01:
        threads = max(1, int(quota))
        return Finding(
            "cores",
            f"{cores}, of which the control group grants {quota:g}",
            None,
            f"export OMP_NUM_THREADS={threads} (more threads than granted cores wait for one another)",
        )
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > cores:
        return Finding("cores", f"{cores}, but OMP_NUM_THREADS={asked}", None, f"export OMP_NUM_THREADS={cores}")
    return Finding("cores", str(cores), True)


def _quota() -> float | None:
    """Cores that the control group grants, None for no limit."""
    if not _QUOTA.is_file():
        return None
    limit, period = _QUOTA.read_text().split()[:2]
    return None if limit == "max" else int(limit) / int(period)


def _room(home: Path) -> Iterator[Finding]:
    memory = available_memory()
    enough = memory >= MIN_MEMORY_BYTES
    yield Finding(
        "memory", f"{bytes_text(memory)} free", enough, None if enough else "Close other programs: 2 GB are needed"
    )
    place = _existing(home)
    free = shutil.disk_usage(place).free
    enough = free >= MIN_DISK_BYTES
    remedy = "Free 2 GB, or set WUXING_HOME to another disk"
    yield Finding("disk", f"{bytes_text(free)} free at {place.resolve()}", enough, None if enough else remedy)
    writable = os.access(place, os.W_OK)
    if not writable:
        yield Finding("home", f"{place.resolve()} cannot be written", False, "Set WUXING_HOME to a folder of yours")


def _libraries() -> Iterator[Finding]:
    for name in REQUIRED:
        version = _version(name)
        yield Finding(name, version or "missing", version is not None, None if version else "pip install wuxing")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiler() -> Finding:
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if found:
        return Finding("compiler", found, True)
    remedy = "xcode-select --install" if platform.system() == "Darwin" else "apt-get install build-essential"
    return Finding("compiler", "none: the text kernels run in NumPy, slower", None, remedy)


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("gpu", "unknown without torch", None)
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        memory = torch.cuda.get_device_properties(0).total_memory
        said = f"{', '.join(names)}, {bytes_text(memory)}, CUDA {torch.version.cuda}, driver {_driver()}"
        return Finding("gpu", said, True)
    if shutil.which("nvidia-smi"):
        return Finding(
            "gpu",
            f"there is one, but torch {torch.__version__} cannot use it",
            False,
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128",
        )
    return Finding("gpu", "none", True)


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    words = path.read_text().split() if path.is_file() else []
    return next((word for word in words if word[:1].isdigit() and word.count(".") >= 1), "unknown")


def _speeds(home: Path, again: bool, processes: int) -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    place = _existing(home)
    speed: Speed = measured_speed(home, place if os.access(place, os.W_OK) else None, again)
    if processes > 1:
        speed = with_all_reduce(home, speed, processes)
    for kind, rate in (speed.rates or {"fp32": speed.fp32_gflops}).items():
        trap = kind == "fp16" and rate < speed.fp32_gflops / 4
        note = ": a trap, never chosen" if trap else ""
        yield Finding(f"matrix product {kind}", f"{rate:,.0f} GFLOP/s{note}", True)
    if speed.bf16_gflops is None:
        yield Finding("precision", "bf16 is not native here: everything is computed in fp32", True)
    yield Finding("memory bandwidth", f"{speed.memory_gigabytes:,.1f} GB/s", True)
    if speed.disk_megabytes is not None:
        slow = speed.disk_megabytes < 50
        remedy = "Checkpoints will be slow: export WUXING_HOME=/a/folder/on/a/faster/disk" if slow else None
        yield Finding("disk write", f"{speed.disk_megabytes:,.0f} MB/s", None if slow else True, remedy)
    if speed.disk_read_megabytes is not None and speed.sync_seconds is not None:
        yield Finding("disk read", f"{speed.disk_read_megabytes:,.0f} MB/s", True)
        slow = speed.sync_seconds > 0.1
        remedy = "Signing waits for it: export WUXING_HOME=/a/folder/on/a/local/disk" if slow else None
        yield Finding("disk sync", f"{1000 * speed.sync_seconds:,.1f} ms", None if slow else True, remedy)
    if speed.all_reduce:
        found = speed.all_reduce
        rate, wait = found["gigabytes"], 1e6 * found["latency_seconds"]
        said = f"{rate:,.2f} GB/s, {wait:,.0f} µs, {found['processes']} processes, {found['backend']}"
        yield Finding("all-reduce", said, True)
    else:
        yield Finding("all-reduce", "not measured", None, "wuxing doctor --processes 2")
    if speed.measured:
        yield Finding("measured", f"{speed.measured}; again: wuxing doctor --again", True)


def _probes(home: Path) -> Iterator[Finding]:
    """What runs found out about compiling (`train/plan/compile.py`)."""
    for path in sorted(Path(os.environ.get("WUXING_CACHE") or home / "cache").glob("compile-*.json")):
        probe = read_json(path)
        ratio = probe["compiled_seconds"] / probe["eager_seconds"]
        yield Finding("torch.compile", f"{ratio:.2f} of the eager time ({probe['what']})", True)


def _existing(path: Path) -> Path:
    """The nearest directory above that exists."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path
