"""Documents that an earlier version of a tokens artifact already holds: they are copied, only new ones are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wuxing.core.digest import digest_of_file
from wuxing.core.file import read_json
from wuxing.data.tokens import FORMAT, TokenSet, describe, open_tokens


class Earlier:
    """An index of the documents of one artifact by content: 16 bytes of hash each, nothing of the text."""

    def __init__(self, directory: Path):
        import pyarrow.parquet as pq

        self._sets: list[TokenSet] = []
        keys, places = [np.empty((0, 2), "<u8")], [np.empty((0, 2), np.int64)]
        self._bytes: list[NDArray[np.int64]] = []
        for number, (split, counts) in enumerate(describe(directory)["splits"].items()):
            self._sets.append(open_tokens(directory, split))
            paths = [directory / split / f"{shard['number']:05d}.parquet" for shard in counts["shards"]]
            tables = [pq.read_table(path, columns=["content", "bytes"]) for path in paths]
            sizes = [table["bytes"].to_numpy() for table in tables]
            raw = b"".join(b"".join(table["content"].to_pylist()) for table in tables)
            keys.append(np.frombuffer(raw, "<u8").reshape(-1, 2))
            self._bytes.append(np.concatenate([np.empty(0, np.int64), *sizes]))
            documents = len(self._sets[-1])
            places.append(np.stack([np.full(documents, number), np.arange(documents)], axis=1))
        whole, where = np.concatenate(keys), np.concatenate(places)
        order = np.argsort(whole[:, 0], kind="stable")
        self._first, self._second, self._where = whole[order, 0].copy(), whole[order, 1].copy(), where[order]

    def find(self, contents: Sequence[bytes]) -> list[Any]:
        """For each content (ids, what is taught or None for text, bytes), or None when it is new."""
        asked = np.frombuffer(b"".join(contents), "<u8").reshape(-1, 2)
        found: list[Any] = [None] * len(contents)
        if not len(self._first):
            return found
        places = np.minimum(np.searchsorted(self._first, asked[:, 0]), len(self._first) - 1)
        hits = (self._first[places] == asked[:, 0]) & (self._second[places] == asked[:, 1])
        for number in np.flatnonzero(hits).tolist():
            which, document = self._where[places[number]].tolist()
            data = self._sets[which]
            start, size = int(data.start[document]), int(data.tokens[document])
            ids, taught = data.labels(start, start + size - 1)
            mask = taught if data.dialogue[document] else None
            found[number] = (ids.astype(np.uint32), mask, int(self._bytes[which][document]))
        return found


def newest_usable(versions: Sequence[Path], tokenizer: str, template: str) -> Path | None:
    """The newest of these artifacts (oldest first) that was made with this tokenizer and is whole, byte for byte."""
    for directory in reversed(versions):
        if not (directory / "tokens.json").is_file():
            continue
        description = read_json(directory / "tokens.json")
        same = (description.get("tokenizer"), description.get("template")) == (tokenizer, template)
        if description.get("format") == FORMAT and same and _whole(directory, description):
            return directory
    return None


def _whole(directory: Path, description: dict[str, Any]) -> bool:
    for split, counts in description["splits"].items():
        for shard in counts["shards"]:
            for end, digest in shard["digests"].items():
                path = directory / split / f"{shard['number']:05d}{end}"
                if not path.is_file() or digest_of_file(path) != digest:
                    return False
    return True
