"""Memory that freed blocks take: given back, or kept for the next one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_MMAP_THRESHOLD = -3
"""`M_MMAP_THRESHOLD` of malloc.h."""
_TRIM_THRESHOLD = -1
"""`M_TRIM_THRESHOLD` of malloc.h."""
LARGEST_KEPT_BYTES = 32 << 20
"""`DEFAULT_MMAP_THRESHOLD_MAX` of glibc on 64 bits."""


def give_memory_back() -> None:
    """Let Arrow and NumPy give large blocks back when they are freed: a third less memory, which no longer creeps up.

    Arrow's own allocator keeps what it had; glibc's learns to keep ever larger blocks, unless its bound is set.
    """
    import ctypes

    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    bound = getattr(ctypes.CDLL(None), "mallopt", None)
    if bound is not None:
        bound(_MMAP_THRESHOLD, 1 << 20)


def trim_memory() -> None:
    """Give the system what has been freed, now: else it stays with this process until it happens to be used again."""
    import ctypes
    import gc

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # other C libraries have none
        trim(0)


@contextmanager
def giving_memory_back() -> Iterator[None]:
    """`give_memory_back` for a while: training in this process would run at half its speed with fresh pages each step.

    Afterwards glibc keeps blocks up to its own highest bound, which it would have learnt by itself.
    """
    import ctypes

    import pyarrow as pa

    before = pa.default_memory_pool()
    give_memory_back()
    try:
        yield
    finally:
        pa.set_memory_pool(before)
        bound = getattr(ctypes.CDLL(None), "mallopt", None)
        if bound is not None:
            bound(_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
            bound(_TRIM_THRESHOLD, 2 * LARGEST_KEPT_BYTES)
