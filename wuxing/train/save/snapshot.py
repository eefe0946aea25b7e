"""A copy of everything that moves, in memory that is used again, and its way to the disk in one pass."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Groups = Mapping[str, Mapping[str, Tensor]]

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The words of the safetensors format."""
WRITE_BYTES = 8 << 20


@dataclass
class Snapshot:
    """Buffers of the shapes of the tensors, filled anew by each `take`.

    Fresh memory costs a page fault every 4 KiB, which made the first copy five times as long as the others; so
    `prepare` gets it in a thread while training goes on.  Copies of a GPU's tensors lie in pinned memory.
    """

    groups: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    _thread: threading.Thread | None = None

    def prepare(self, tensors: Groups) -> None:
        """Begin to get the memory that `take` will need."""
        self._thread = threading.Thread(target=self._shape, args=(tensors,), name="snapshot", daemon=True)
        self._thread.start()

    def take(self, tensors: Groups) -> dict[str, dict[str, Tensor]]:
        """Copy the tensors of this moment; the result is good until the next `take`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._shape(tensors)
        on_gpu = False
        for file, group in tensors.items():
            for name, tensor in group.items():
                on_gpu = on_gpu or tensor.is_cuda
                self.groups[file][name].copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        if on_gpu:
            torch.cuda.synchronize()
        return self.groups

    def _shape(self, tensors: Groups) -> None:
        """Keep the buffers that fit, make the others, drop those that nobody needs."""
        made: dict[str, dict[str, Tensor]] = {}
        for file, group in tensors.items():
            made[file] = {}
            for name, tensor in group.items():
                old = self.groups.get(file, {}).get(name)
                fits = old is not None and (old.shape, old.dtype) == (tensor.shape, tensor.dtype)
                made[file][name] = old if old is not None and fits else _buffer(tensor)
        self.groups = made


def _buffer(tensor: Tensor) -> Tensor:
    buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return buffer.zero_()


def write_tensors(path: Path, group: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write a safetensors file and have it on the disk; returns its SHA-256, taken while writing.

    The library's own `save_file` copies every tensor into a Python object first, holding up the training beside it.
    """
    return stream_tensors(path, {name: (t.dtype, t.shape) for name, t in group.items()}, group.__getitem__, metadata)


def stream_tensors(
    path: Path,
    described: Mapping[str, tuple[torch.dtype, Sequence[int]]],
    give: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> str:
    """The same for tensors that are asked for one after the other, so that only one of them is in memory."""
    names = sorted(described, key=lambda name: (-described[name][0].itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name in names:
        dtype, shape = described[name]
        end = place + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, "wb", buffering=0) as file:
        start = memoryview(len(text).to_bytes(8, "little") + text)
        for part in itertools.chain([start], (_bytes(give(name)) for name in names)):
            for place in range(0, len(part), WRITE_BYTES):
                piece = part[place : place + WRITE_BYTES]
                digest.update(piece)
                while len(piece):
                    piece = piece[file.write(piece) :]
        os.fsync(file.fileno())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    array: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)
