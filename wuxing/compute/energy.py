"""Energy of this machine while it works: counted by the hardware where it counts, else assumed from its time."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CORE_WATTS = (4.0, 12.0)
"""Per busy core of a server, from its package power over its cores; a guess, and so a wide one."""
_POWERCAP = Path("/sys/class/powercap")
_LOOK_SECONDS = 1.0
"""Between two looks: RAPL's counters begin anew after some minutes under load."""


@dataclass
class Meter:
    """Joules since it was made.  `look` often: counters that begin anew are followed only between two looks."""

    counters: list[Callable[[], tuple[int, int]]] = field(default_factory=lambda: [*_rapl(), *_nvml()])
    """Each gives microjoules so far, and where it begins anew (0: never)."""
    microjoules: float = 0.0
    began: float = field(default_factory=time.monotonic)
    _before: list[int] = field(default_factory=list)
    _looked: float = 0.0

    def __post_init__(self) -> None:
        self._before = [counter()[0] for counter in self.counters]

    def look(self, at_once: bool = False) -> None:
        """Take in what was used since the last look."""
        now = time.monotonic()
        if not at_once and now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        for place, counter in enumerate(self.counters):
            value, wraps = counter()
            used = value - self._before[place]
            self.microjoules += used if used >= 0 else used + wraps
            self._before[place] = value

    def watt_hours(self, seconds: float) -> tuple[tuple[float, float], str]:
        """(least, most) for so many seconds of this work, and what that stands on.

        The hardware counts the whole package, whoever used it.
        """
        self.look(at_once=True)
        passed = time.monotonic() - self.began
        if self.counters and passed > 0:
            used = self.microjoules / 1e6 / 3600 * seconds / passed
            return (used, used), "counted by the hardware (RAPL, NVML): the whole package"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        low, high = (watts * cores * seconds / 3600 for watts in CORE_WATTS)
        return (low, high), f"assumed: {CORE_WATTS[0]:g} to {CORE_WATTS[1]:g} W a core; no counter can be read here"


def _rapl() -> list[Callable[[], tuple[int, int]]]:
    """The packages' counters of Linux, where this user may read them."""
    found: list[Callable[[], tuple[int, int]]] = []
    for zone in sorted(_POWERCAP.glob("intel-rapl:[0-9]")) if _POWERCAP.is_dir() else []:
        counter, most = zone / "energy_uj", zone / "max_energy_range_uj"
        try:
            int(counter.read_text())
            wraps = int(most.read_text())
        except (OSError, ValueError):
            continue
        found.append(lambda counter=counter, wraps=wraps: (int(counter.read_text()), wraps))  # type: ignore[misc]
    return found


def _nvml() -> list[Callable[[], tuple[int, int]]]:
    """The GPUs' counters (Volta or newer)."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    if library.nvmlInit_v2() != 0:
        return []
    count = ctypes.c_uint()
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    found: list[Callable[[], tuple[int, int]]] = []
    for number in range(count.value):
        device, used = ctypes.c_void_p(), ctypes.c_ulonglong()
        if library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) != 0:
            continue
        if library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(used)) != 0:
            continue

        def read(device: ctypes.c_void_p = device) -> tuple[int, int]:
            millijoules = ctypes.c_ulonglong()
            library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules))
            return millijoules.value * 1000, 0

        found.append(read)
    return found
