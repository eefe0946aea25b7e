"""All rows and records of a corpus in the order of its sources, whichever shards hold them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.corpus.engine.look import LOOK_BYTES
from wuxing.corpus.engine.plan import Plan
from wuxing.corpus.engine.shard import ShardFile
from wuxing.corpus.fingerprint import KEY_BYTES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

OPEN_BYTES = 12 << 20
"""Shards that are held in memory at once while their rows are put into order."""
OPEN_FILES = 200


@dataclass(frozen=True)
class Piece:
    """Rows of one source that lie side by side in a shard."""

    source: int
    shard: ShardFile
    rows: tuple[int, int]
    records: tuple[int, int]


class Pieces:
    """All rows and records of a corpus, in order."""

    def __init__(self, plan: Plan):
        import numpy as np

        held = {(settings, one.key): (shard, one) for (settings, _), shard in plan.found.items() for one in shard.parts}
        self.pieces: list[Piece] = []
        for part in plan.parts:
            shard, mine = held[part.settings, part.key]
            last = self.pieces[-1] if self.pieces else None
            if last and last.shard is shard and (last.source, last.rows[1]) == (part.source, mine.rows[0]):
                joined = (last.rows[0], mine.rows[1]), (last.records[0], mine.records[1])
                self.pieces[-1] = Piece(part.source, shard, *joined)
            else:
                self.pieces.append(Piece(part.source, shard, mine.rows, mine.records))
        counts = [piece.records[1] - piece.records[0] for piece in self.pieces]
        self.starts = np.cumsum([0, *counts])
        self.rows = sum(piece.rows[1] - piece.rows[0] for piece in self.pieces)
        self._files: OrderedDict[Path, int] = OrderedDict()
        self._tables: OrderedDict[tuple[Path, str], Any] = OrderedDict()

    @property
    def records(self) -> int:
        """Records that go on."""
        return int(self.starts[-1])

    def shards(self) -> list[ShardFile]:
        """Each shard once."""
        return list({piece.shard.path: piece.shard for piece in self.pieces}.values())

    def each(self) -> Iterator[tuple[Piece, NDArray[np.int64]]]:
        """Each piece with the numbers of its records."""
        import numpy as np

        for number, piece in enumerate(self.pieces):
            yield piece, np.arange(self.starts[number], self.starts[number + 1])

    def keys(self, piece: Piece) -> NDArray[np.uint8]:
        """Content key and split key of each record of a piece."""
        return self._raw(piece, "keys", 2 * KEY_BYTES)

    def signatures(self, piece: Piece) -> NDArray[np.uint32]:
        """The signature of each record of a piece."""
        import numpy as np

        return self._raw(piece, "signatures", 4 * piece.shard.hashes).view(np.uint32)

    def keys_of(self, records: NDArray[np.int64]) -> NDArray[np.uint8]:
        """`keys` of the piece that begins with the first of these records."""
        import numpy as np

        return self.keys(self.pieces[int(np.searchsorted(self.starts, records[0], side="right")) - 1])

    def looks(self, piece: Piece) -> NDArray[np.uint8]:
        """View and signature of each record of a piece; zeros where its shard has none."""
        import numpy as np

        if not piece.shard.header["sections"]["looks"]:
            return np.zeros((piece.records[1] - piece.records[0], LOOK_BYTES), np.uint8)
        return self._raw(piece, "looks", LOOK_BYTES)

    def _raw(self, piece: Piece, section: str, width: int) -> NDArray[np.uint8]:
        import numpy as np

        at, _ = piece.shard.place(section)
        first, last = piece.records
        raw = os.pread(self._file(piece.shard.path), (last - first) * width, at + first * width)
        return np.frombuffer(raw, np.uint8).reshape(last - first, width)

    def read_signatures(self, indices: NDArray[np.int64]) -> NDArray[np.uint32]:
        """The signatures of single records, wherever they lie."""
        import numpy as np

        hashes = self.pieces[0].shard.hashes
        found = np.empty((len(indices), hashes), np.uint32)
        place = np.searchsorted(self.starts, indices, side="right") - 1
        for row in np.argsort(indices, kind="stable").tolist():
            piece = self.pieces[place[row]]
            at, _ = piece.shard.place("signatures")
            record = piece.records[0] + int(indices[row] - self.starts[place[row]])
            raw = os.pread(self._file(piece.shard.path), 4 * hashes, at + record * 4 * hashes)
            found[row] = np.frombuffer(raw, np.uint32)
        return found

    def _file(self, path: Path) -> int:
        """An open file; not more than a few hundred at a time."""
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        if len(self._files) >= OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        self._files[path] = os.open(path, os.O_RDONLY)
        return self._files[path]

    def table(self, piece: Piece, section: str) -> pyarrow.Table:
        """The rows or records of a piece.  Shards stay at hand while they fit: new files stand between old ones."""
        key = piece.shard.path, section
        if key not in self._tables:
            table = piece.shard.table(section)
            self._tables[key] = table
            while len(self._tables) > 2 and sum(held.nbytes for held in self._tables.values()) > OPEN_BYTES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        first, last = piece.rows if section == "rows" else piece.records
        return self._tables[key].slice(first, last - first)

    def close(self) -> None:
        """Let go of files and memory."""
        for handle in self._files.values():
            os.close(handle)
        self._files.clear()
        self._tables.clear()
