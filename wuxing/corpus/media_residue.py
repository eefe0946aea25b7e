"""Near duplicates among pictures and sounds that are left: each of a sample against all, by plain comparison.

No index, no bands: the distances are computed for every pair.  A second look shares nothing with the signatures: the
luma of pictures at 16 × 16, the spectra of sounds, compared level by level.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.splits import SPLITS, split_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLED = 1000
VALUES_PER_CHUNK = 256
LARGEST_DIFFERENCE = 8.0
"""Two 16 × 16 pictures none of whose cells differ by more, of 255 levels, are one picture encoded twice."""
LEAST_CONTRAST = 10.0
"""Standard deviation below which pictures are too even to tell."""


def media_twins(directory: Path, column: str, bits: int, likeness: float) -> dict[str, Any]:
    """How many of a sample of held-out and training records have a twin: by signature, and (images) by pixels."""
    import numpy as np

    held: list[tuple[bytes, Any]] = []
    train: list[tuple[bytes, Any]] = []
    for split in SPLITS:
        (train if split == "train" else held).extend(_facts(directory, split, column))
    every = [*held, *train]
    if not every:
        return {"sampled": 0, "alike": 0}
    chosen = np.unique(np.linspace(0, len(every) - 1, min(SAMPLED, len(every))).astype(np.int64))
    chosen = np.union1d(np.arange(min(len(held), SAMPLED // 2)), chosen)
    rows = np.frombuffer(b"".join(signature for signature, _ in every), np.uint8).reshape(len(every), -1)
    found = {"sampled": len(chosen), "alike": _alike(rows, chosen, bits, likeness)}
    if column == "image":
        small = np.stack([thumb for _, thumb in every]).astype(np.float32)
        found["same_pixels"] = _same(small, chosen)
    return found


def _facts(directory: Path, split: str, column: str) -> Iterator[tuple[bytes, Any]]:
    """Signature and thumbnail of every record that has one."""
    import pyarrow.parquet as pq

    from wuxing.media import audio, hash
    from wuxing.media.error import MediaError

    with pq.ParquetFile(split_path(directory, split)) as file:
        for batch in file.iter_batches(VALUES_PER_CHUNK, columns=[column]):
            for value in batch.column(0).drop_null():
                data = value.as_py()
                try:
                    if column == "audio":
                        yield hash.sound_signature(audio.decode(data)), None
                    else:
                        yield _picture(data)
                except MediaError:
                    continue


def _picture(data: bytes) -> tuple[bytes, NDArray[np.uint8]]:
    import numpy as np
    from PIL import Image

    from wuxing.media import hash, image

    signature = hash.image_signature(image.decode(data))
    with Image.open(io.BytesIO(data)) as picture:
        clear = picture.convert("RGBA")
        ground = Image.new("RGBA", clear.size, "white")
        ground.alpha_composite(clear)
        return signature, np.asarray(ground.convert("L").resize((16, 16), Image.Resampling.BOX))


def _alike(rows: NDArray[np.uint8], chosen: NDArray[np.int64], bits: int, likeness: float) -> int:
    import numpy as np

    hashes = np.ascontiguousarray(rows[:, :8]).view(np.uint64).ravel()
    sketches = rows[:, 8:].astype(np.float32)
    sketches -= sketches.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(sketches, axis=1)
    sketches /= np.maximum(1e-6, lengths)[:, None]
    found = 0
    for one in chosen.tolist():
        close = np.flatnonzero(np.bitwise_count(hashes ^ hashes[one]) <= bits)
        close = close[(close != one) & (lengths[close] > 0)]
        found += bool(lengths[one] > 0 and (sketches[close] @ sketches[one] >= likeness).any())
    return found


def _same(small: NDArray[np.float32], chosen: NDArray[np.int64]) -> int:
    import numpy as np

    flat = small.reshape(len(small), -1)
    contrast = flat.std(axis=1) > LEAST_CONTRAST
    found = 0
    for one in chosen.tolist():
        near = np.abs(flat - flat[one]).max(axis=1) < LARGEST_DIFFERENCE
        near[one] = False
        found += bool(contrast[one] and near.any())
    return found
