"""Near duplicates of media: the index against all pairs, and planted copies in real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.corpus.lookalike import near_media, near_pairs
from wuxing.media.hash import SIGNATURE_BYTES, image_signature
from wuxing.media.image import decode, encode


@pytest.mark.parametrize("bits", [0, 3, 4, 7, 8, 10, 12, 16])
def test_the_index_finds_every_pair_once(bits: int) -> None:
    random = np.random.default_rng(bits)
    hashes = np.repeat(random.integers(0, 1 << 63, 150, dtype=np.uint64), 3)
    for place in range(150, len(hashes)):
        for bit in random.choice(64, int(random.integers(0, 20)), replace=False):
            hashes[place] ^= np.uint64(1) << np.uint64(bit)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    truth = set(zip(*map(np.ndarray.tolist, np.nonzero(np.triu(apart <= bits, 1))), strict=True))
    found = [tuple(pair) for chunk in near_pairs(hashes, bits) for pair in chunk.tolist()]
    assert len(found) == len(set(found)) and set(found) == truth


def slowly(rows: np.ndarray, bits: int, likeness: float) -> list[int]:
    """The promise in words: in order, each that is near to an earlier one that stayed leaves."""
    root: list[int] = []
    for late in range(len(rows)):
        root.append(late)
        for early in range(late):
            a, b = rows[early], rows[late]
            if root[early] != early or not a[8:].any() or not b[8:].any():
                continue
            distance = sum(int(x ^ y).bit_count() for x, y in zip(a[:8].tolist(), b[:8].tolist(), strict=True))
            if distance <= bits and np.corrcoef(a[8:].astype(float), b[8:].astype(float))[0, 1] >= likeness:
                root[late] = early
                break
    return root


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), bits=st.sampled_from([2, 6, 10]))
def test_roots_are_those_of_the_plain_rule(seed: int, bits: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.integers(0, 256, (6, SIGNATURE_BYTES), dtype=np.uint8)[random.integers(0, 6, 40)]
    for row in rows:
        row[: random.integers(0, 3)] ^= 1
        row[8:] = np.clip(row[8:] + random.normal(0, 8, SIGNATURE_BYTES - 8), 0, 255)
    rows[random.integers(0, 40), 8:] = 0
    assert near_media(rows, bits, 0.98).tolist() == slowly(rows, bits, 0.98)


def test_planted_copies_among_real_pictures(data_directory: Path) -> None:
    table = pq.read_table(data_directory / "images/fashion-mnist-test.parquet")
    images = [decode(item["bytes"]) for item in table["image"].slice(0, 500).to_pylist()]
    copies = [decode(encode(image, "jpeg", 60)) for image in images[:200]]
    rows = np.frombuffer(b"".join(map(image_signature, [*images, *copies])), np.uint8).reshape(-1, SIGNATURE_BYTES)
    root = near_media(rows, 10, 0.99)
    assert (root[500:] == root[:200]).mean() >= 0.97
    assert (root[:500] != np.arange(500)).mean() <= 0.02  # pictures that only look alike
    assert near_media(rows[:0], 10, 0.99).tolist() == []
    usable = np.arange(700) < 500
    assert (near_media(rows, 10, 0.99, usable)[500:] == np.arange(500, 700)).all()
