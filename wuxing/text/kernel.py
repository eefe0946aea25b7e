"""The compiled hot loops over text: `kernel.c`, built once per machine with its C compiler, called without the GIL.

Where there is no compiler the NumPy twin (`shingle.py`) runs: equal results, slower.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.text.shingle import coefficients, minhash_of, shingles_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("kernel.c")
FLAGS = ("-std=c99", "-O3", "-fPIC", "-shared")
MAX_WIDTH = 16


def library_directory() -> Path:
    """Where compiled kernels are kept for this user: `$WUXING_KERNELS`, or the user's cache directory."""
    named = os.environ.get("WUXING_KERNELS")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wuxing"


@cache
def native() -> ctypes.CDLL | str:
    """The compiled kernel, or one line that says why there is none."""
    found = compiled(SOURCE)
    return found if isinstance(found, str) else _declared(found)


def compiled(source: Path, flags: tuple[str, ...] = FLAGS, key: str = "") -> ctypes.CDLL | str:
    """A C file of this package as a library, built once per machine; or one line that says why there is none.

    `key`: on what else the result depends, such as the processor's instructions.
    """
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        return "no C compiler is installed"
    try:
        return ctypes.CDLL(str(_build(compiler, source, flags, key)))
    except (OSError, subprocess.SubprocessError) as error:
        return f"the C compiler {compiler} failed: {error}"


def _build(compiler: str, source: Path, flags: tuple[str, ...], key: str) -> Path:
    parts = [path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h")))]
    parts.append(repr((flags, compiler, platform.machine())).encode() + key.encode())
    digest = hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    path = library_directory() / f"{source.stem}-{digest}.so"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as build:
        made = Path(build) / path.name
        command = [compiler, *flags, "-o", str(made), str(source)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        os.replace(made, path)
    return path


def _declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number, count = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    loaded.wuxing_minhash.argtypes = [pointer, pointer, number, count, pointer, pointer, count, pointer]
    loaded.wuxing_minhash.restype = None
    loaded.wuxing_shingles.argtypes = [pointer, pointer, number, count, pointer, pointer]
    loaded.wuxing_shingles.restype = None
    return loaded


def missing_reason() -> str | None:
    """Why the NumPy twin runs in place of the compiled kernel; None when the kernel is there."""
    found = native()
    return found if isinstance(found, str) else None


def minhash(texts: pyarrow.Array, width: int, hashes: int) -> NDArray[np.uint32]:
    """`shingle.minhash_of` over an Arrow string array without nulls."""
    import numpy as np

    _check(texts, width)
    kernel = native()
    if isinstance(kernel, str):
        return minhash_of(texts.to_pylist(), width, hashes)
    a, b = coefficients(hashes)
    minima = np.empty((len(texts), hashes), np.uint32)
    raw, offsets = buffers(texts)
    kernel.wuxing_minhash(
        raw, offsets.ctypes.data, len(texts), width, a.ctypes.data, b.ctypes.data, hashes, minima.ctypes.data
    )
    return minima


def shingles(texts: pyarrow.Array, width: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """All shingles of all documents in a row, and where each document's end (`shingle.shingles_of` for each)."""
    import numpy as np

    _check(texts, width)
    kernel = native()
    if isinstance(kernel, str):
        parts = [shingles_of(text, width) for text in texts.to_pylist()]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return np.concatenate([np.empty(0, np.uint32), *parts]), ends
    raw, offsets = buffers(texts)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint32)
    ends = np.empty(len(texts), np.int64)
    kernel.wuxing_shingles(raw, offsets.ctypes.data, len(texts), width, out.ctypes.data, ends.ctypes.data)
    return out[: int(ends[-1]) if len(ends) else 0].copy(), ends


def _check(texts: Any, width: int) -> None:
    assert texts.null_count == 0, "documents without text have no shingles"
    assert 1 <= width <= MAX_WIDTH, f"a shingle has 1 to {MAX_WIDTH} tokens"


def buffers(texts: pyarrow.Array) -> tuple[int, NDArray[np.int64]]:
    """The address of the text, and the offsets of this (perhaps sliced) array in it."""
    import numpy as np
    import pyarrow as pa

    wide = pa.types.is_large_string(texts.type)
    _, offsets, raw = texts.buffers()
    if offsets is None:
        return 0, np.zeros(1, np.int64)
    all_offsets = np.frombuffer(offsets, np.int64 if wide else np.int32)
    mine = all_offsets[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return (raw.address if raw is not None else 0), mine


def strings(raw: NDArray[np.uint8], offsets: NDArray[np.int64], type: pyarrow.DataType) -> pyarrow.Array:
    """A string array of these bytes, cut at the offsets; no byte is copied."""
    import numpy as np
    import pyarrow as pa

    wide = pa.types.is_large_string(type)
    cuts = offsets if wide else offsets.astype(np.int32)
    return pa.Array.from_buffers(type, len(offsets) - 1, [None, pa.py_buffer(cuts), pa.py_buffer(raw)])
