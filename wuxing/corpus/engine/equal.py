"""Finding equal keys among more of them than memory should hold: partitions on disk, sorted one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wuxing.corpus.duplicate import Bands, band_hashes, first_of_equal, flat, link

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARTITION_ENTRIES = 1 << 20
"""Entries that one partition holds on average: some 100 MB while it is sorted."""
OPEN_FILES = 512
"""Of all bands together; a process may have 1,024."""


class Partitions:
    """Keys and where they stand, in files by the keys' first bits, so that equal ones meet in one file."""

    def __init__(self, directory: Path, name: str, key_bytes: int, total: int, most: int = 256):
        self.directory, self.name, self.key_bytes = directory, name, key_bytes
        wanted = max(1, -(-total // PARTITION_ENTRIES))
        self.count = min(1 << (wanted - 1).bit_length(), most)
        self._files = ExitStack()

    def __enter__(self) -> Partitions:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._open = [self._files.enter_context(self._path(number).open("wb")) for number in range(self.count)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._files.close()

    def _path(self, number: int) -> Path:
        return self.directory / f"{self.name}-{number}"

    def _entry(self) -> np.dtype[Any]:
        import numpy as np

        return np.dtype([("key", np.void, self.key_bytes), ("index", np.int64)])

    def add(self, keys: NDArray[np.uint8], indices: NDArray[np.int64]) -> None:
        """Keys as rows of bytes, with the index of each."""
        import numpy as np

        entries = np.empty(len(keys), self._entry())
        entries["key"] = np.ascontiguousarray(keys).view(np.dtype((np.void, self.key_bytes))).ravel()
        entries["index"] = indices
        if self.count == 1:
            self._open[0].write(entries.tobytes())
            return
        number = keys[:, 0].astype(np.int64) * self.count >> 8
        order = np.argsort(number, kind="stable")
        ends = np.cumsum(np.bincount(number, minlength=self.count))
        for place, file in enumerate(self._open):
            mine = order[ends[place - 1] if place else 0 : ends[place]]
            file.write(entries[mine].tobytes())

    def read(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """Each partition's keys and indices, in the order in which they were added; its file is removed."""
        import numpy as np

        self._files.close()
        for number in range(self.count):
            entries = np.fromfile(self._path(number), self._entry())
            self._path(number).unlink()
            yield entries["key"], entries["index"]


def exact_firsts(partitions: Partitions, total: int) -> NDArray[Any]:
    """For each record the first with an equal key."""
    import numpy as np

    first = np.arange(total, dtype=index_type(total))
    for keys, indices in partitions.read():
        if len(indices):
            first[indices] = indices[first_of_equal(np.ascontiguousarray(keys))]
    return first


class NearKeys:
    """The bands of all signatures, each in partitions of its own."""

    def __init__(self, directory: Path, bands: Bands, total: int):
        self.bands = bands
        most = 1 << max(0, (OPEN_FILES // bands.count).bit_length() - 1)
        self._parts = [Partitions(directory, f"band-{band}", 8, total, most) for band in range(bands.count)]
        self._files = ExitStack()

    def __enter__(self) -> NearKeys:
        for partitions in self._parts:
            self._files.enter_context(partitions)
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def add(self, signatures: NDArray[np.uint32], indices: NDArray[np.int64]) -> None:
        """Signatures of documents."""
        import numpy as np

        for band, partitions in enumerate(self._parts):
            hashes = band_hashes(signatures, self.bands, band)
            partitions.add(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), indices)

    def roots(
        self,
        first: NDArray[Any],
        read: Callable[[NDArray[np.int64]], NDArray[np.uint32]],
        jaccard: float,
        said: Callable[[], None],
    ) -> NDArray[Any]:
        """For each document the first of its cluster (`duplicate.near_clusters`); those with an equal one aside."""
        import numpy as np

        root = np.arange(len(first), dtype=first.dtype)
        for partitions in self._parts:
            for keys, indices in partitions.read():
                mine = first[indices] == indices
                hashes = np.ascontiguousarray(keys[mine]).view(">u8").ravel().astype(np.uint64)
                link(hashes, indices[mine], root, read, jaccard)
            said()
        return flat(root)


def index_type(total: int) -> Any:
    """The narrowest type that counts records: 4 bytes up to two billion."""
    import numpy as np

    return np.int32 if total < 1 << 31 else np.int64
