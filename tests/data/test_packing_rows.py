"""Packing: every label once, documents apart, losses counted; and a source that any number of ranks shares."""

from __future__ import annotations

from collections import Counter
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.digest import digest_of
from wuxing.core.error import WuxingError
from wuxing.core.file import write_json
from wuxing.data.packing import Blocks, Fit, Packing, Row, best_fit, pack
from wuxing.data.shard import Document, TokenWriter
from wuxing.data.source import PackedSource
from wuxing.data.tokens import FORMAT, TokenSet, open_tokens

END = 0
LENGTH = 16


def write_tokens(
    directory: Path, documents: list[tuple[list[int], list[bool] | None]], per_shard: int | None = None
) -> TokenSet:
    """A tokens artifact of one split; ids of document d are 100 d + 1, 100 d + 2, ..."""
    shards, cuts = [], [*range(0, len(documents), per_shard or max(1, len(documents))), len(documents)]
    for number, (first, last) in enumerate(pairwise(cuts if len(cuts) > 1 else [0, 0])):
        writer = TokenWriter(directory / "train" / f"{number:05d}", 1 << 20, END, number == 0)
        writer.write(
            [
                Document(
                    f"doc-{first + n}",
                    np.array(ids, np.uint32),
                    None if taught is None else np.array(taught, bool),
                    len(ids),
                    bytes(16),
                )
                for n, (ids, taught) in enumerate(documents[first:last])
            ]
        )
        shards.append(writer.finish())
    counts = {"shards": shards, "bytes": 0, "digest": digest_of([shard["digests"] for shard in shards])}
    description = {"format": FORMAT, "splits": {"train": counts}, "dtype": writer.dtype}
    write_json(directory / "tokens.json", {**description, "end_of_text_id": END, "vocab_size": 1 << 20})
    return open_tokens(directory, "train")


def texts(*sizes: int) -> list[tuple[list[int], list[bool] | None]]:
    return [([100 * d + i + 1 for i in range(size)], None) for d, size in enumerate(sizes)]


def dialogues(*sizes: int) -> list[tuple[list[int], list[bool] | None]]:
    """The second half of each is taught."""
    return [
        ([100 * d + i + 1 for i in range(size)], [i >= size // 2 for i in range(size)]) for d, size in enumerate(sizes)
    ]


def labels_of(packing: Packing) -> Counter[int]:
    return Counter(int(label) for row in range(packing.rows) for label in packing[row].labels_T if label >= 0)


def check_row(row: Row) -> None:
    """Inside a document the label is the next input, positions count up, and nothing else is taught."""
    for place in range(LENGTH - 1):
        same = row.documents_T[place] == row.documents_T[place + 1] >= 0
        if same:
            assert row.positions_T[place + 1] == row.positions_T[place] + 1
            if row.labels_T[place] >= 0:
                assert row.labels_T[place] == row.tokens_T[place + 1]
    assert (row.labels_T[row.documents_T < 0] < 0).all()


@pytest.mark.parametrize("whole", [False, True])
def test_every_token_of_text_is_taught_once(tmp_path: Path, whole: bool) -> None:
    documents = texts(5, 9, 3, 40, 1, 7, 16, 15, 2)
    packing = pack(write_tokens(tmp_path, documents), LENGTH, whole)
    expected = Counter(id for ids, _ in documents for id in ids) + Counter({END: len(documents)})
    assert labels_of(packing) == expected
    for row in range(packing.rows):
        check_row(packing[row])
    assert packing.losses["truncated"] == 0


def test_the_first_id_of_a_text_is_predicted_from_an_end_of_text(tmp_path: Path) -> None:
    data = write_tokens(tmp_path, texts(5, 4))
    for packing in (Blocks(data, LENGTH), Fit(data, LENGTH)):
        row = packing[0]
        firsts = [int(row.tokens_T[place]) for place in range(LENGTH) if row.labels_T[place] in (1, 101)]
        assert firsts == [END, END]
        assert {int(row.positions_T[place]) for place in range(LENGTH) if row.labels_T[place] in (1, 101)} == {0}


def test_dialogues_begin_as_they_are_served_and_only_replies_teach(tmp_path: Path) -> None:
    documents = dialogues(6, 8, 5)
    packing = pack(write_tokens(tmp_path, documents), LENGTH)
    assert isinstance(packing, Fit)
    inputs = {int(t) for row in range(packing.rows) for t in packing[row].tokens_T[packing[row].documents_T >= 0]}
    assert END not in inputs
    expected = Counter(id for ids, taught in documents for id, learn in zip(ids, taught or [], strict=True) if learn)
    assert labels_of(packing) == expected


def test_best_fit_wastes_little_and_counts_what_it_loses(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    sizes = rng.integers(2, LENGTH - 1, 400).tolist()
    packing = Fit(write_tokens(tmp_path / "a", texts(*sizes)), LENGTH)
    positions = sum(size + 1 for size in sizes)
    assert packing.rows <= -(-positions // LENGTH) * 11 / 9 + 1
    assert packing.losses["padding"] == pytest.approx(1 - positions / (packing.rows * LENGTH))
    long = Fit(write_tokens(tmp_path / "b", dialogues(30, 10)), LENGTH)
    # of 29 + 9 inputs, 16 + 9 stand in rows
    assert long.losses["truncated"] == pytest.approx(1 - 25 / 38)


def test_a_dialogue_whose_reply_is_cut_off_is_left_out_and_counted(tmp_path: Path) -> None:
    data = write_tokens(tmp_path, dialogues(40, 6))
    packing = Fit(data, LENGTH)
    assert packing.losses["fully_masked"] == 1
    assert all(name == "doc-1" for row in range(packing.rows) for name in packing.describe(row))
    with pytest.raises(WuxingError, match="first 16 tokens"):
        pack(write_tokens(tmp_path / "none", dialogues(40)), LENGTH)


def test_describe_names_the_records_of_a_row(tmp_path: Path) -> None:
    data = write_tokens(tmp_path, texts(10, 10, 10))
    for packing in (Blocks(data, LENGTH), Fit(data, LENGTH)):
        for row in range(packing.rows):
            inside = {int(t) // 100 for t in packing[row].labels_T if t > 0}
            assert {f"doc-{number}" for number in inside} <= set(packing.describe(row))


def test_the_digest_follows_length_data_and_way(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "a", texts(5, 9, 3))
    same = write_tokens(tmp_path / "b", texts(5, 9, 3))
    other = write_tokens(tmp_path / "c", texts(5, 9, 4))
    digests = [Fit(data, 16).digest, Fit(data, 8).digest, Blocks(data, 16).digest, Fit(other, 16).digest]
    assert len(set(digests)) == 4
    assert Fit(same, 16).digest == digests[0] and Blocks(same, 16).digest == digests[2]


def source(tmp_path: Path, rank: int = 0, ranks: int = 1, seed: int = 7) -> PackedSource:
    packings = {
        "texts": pack(write_tokens(tmp_path / "t", texts(*range(3, 60))), LENGTH),
        "talks": pack(write_tokens(tmp_path / "d", dialogues(*range(4, 15))), LENGTH),
    }
    return PackedSource(packings, {"texts": 0.75, "talks": 0.25}, seed, 8, 3, rank, ranks)


def sequence(of: PackedSource, steps: int) -> list[list[int]]:
    return [[sample for piece in next(of) for sample in piece.sample_ids] for _ in range(steps)]


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_share_one_global_sequence(tmp_path: Path, ranks: int) -> None:
    alone = source(tmp_path)
    expected = [next(alone) for _ in range(12)]
    shared = [source(tmp_path, rank, ranks) for rank in range(ranks)]
    for pieces in expected:
        whole = {s: t for p in pieces for s, t in zip(p.sample_ids, p.tokens_BT, strict=True)}
        split = {s: t for one in shared for p in next(one) for s, t in zip(p.sample_ids, p.tokens_BT, strict=True)}
        assert whole.keys() == split.keys() and all((whole[s] == split[s]).all() for s in whole)


def test_a_change_of_ranks_half_way_keeps_the_sequence(tmp_path: Path) -> None:
    expected = sequence(source(tmp_path), 6)
    first = [source(tmp_path, rank, 2) for rank in range(2)]
    begun = [sorted(chain(*(sequence(one, 1)[0] for one in first))) for _ in range(3)]
    later = [source(tmp_path, rank, 4) for rank in range(4)]
    for one in later:
        one.load_state_dict(first[0].state_dict())
    ended = [sorted(chain(*(sequence(one, 1)[0] for one in later))) for _ in range(3)]
    assert begun + ended == expected


def test_a_position_is_all_that_a_resume_needs(tmp_path: Path) -> None:
    straight = source(tmp_path)
    for _ in range(5):
        next(straight)
    resumed = source(tmp_path)
    resumed.load_state_dict(straight.state_dict())
    for a, b in zip(next(straight), next(resumed), strict=True):
        assert a.sample_ids == b.sample_ids and (a.tokens_BT == b.tokens_BT).all()
    with pytest.raises(WuxingError, match="another sample plan"):
        source(tmp_path, seed=8).load_state_dict(straight.state_dict())


def one_by_one(sizes: list[int], length: int) -> list[int]:
    """Best-fit decreasing as it is defined; the room that is left in each row."""
    room: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [(left, row) for row, left in enumerate(room) if left >= size]
        if fitting:
            room[min(fitting)[1]] -= size
        else:
            room.append(length - size)
    return sorted(room)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n), max_size=60))))
@settings(deadline=None, max_examples=200)
def test_best_fit_is_best_fit_decreasing(case: tuple[int, list[int]]) -> None:
    length, sizes = case
    order, bounds = best_fit(np.array(sizes, np.int64), length)
    assert sorted(order.tolist()) == list(range(len(sizes)))
    rows = [[sizes[n] for n in order[a:b].tolist()] for a, b in pairwise(bounds.tolist())]
    assert sorted(length - sum(row) for row in rows) == one_by_one(sizes, length)


@pytest.mark.parametrize("per_shard", [1, 2, 5])
def test_the_cut_into_shards_changes_no_row(tmp_path: Path, per_shard: int) -> None:
    documents = [*texts(5, 9, 0, 40, 1), *dialogues(7, 16, 30, 2), *texts(3, 3)]
    whole, cut = write_tokens(tmp_path / "whole", documents), write_tokens(tmp_path / "cut", documents, per_shard)
    assert np.array_equal(np.asarray(whole.ids), np.asarray(cut.ids)) and len(whole.ids) == len(cut.ids)
    assert list(whole.names) == list(cut.names)
    for make in (Blocks, Fit):
        one, other = make(whole, LENGTH), make(cut, LENGTH)
        assert (one.rows, one.losses, one.fates) == (other.rows, other.losses, other.fates)
        for row in range(one.rows):
            assert one.describe(row) == other.describe(row)
            for name in ("tokens_T", "labels_T", "positions_T", "documents_T"):
                assert np.array_equal(getattr(one[row], name), getattr(other[row], name))


@pytest.mark.parametrize("make", [Blocks, Fit])
def test_without_the_mask_a_row_is_one_document(tmp_path: Path, make: type[Blocks] | type[Fit]) -> None:
    data = write_tokens(tmp_path, texts(5, 40, 9, 3))
    masked, open_rows = make(data, LENGTH), make(data, LENGTH, mask=False)
    assert masked.digest != open_rows.digest and masked.rows == open_rows.rows
    for row in range(masked.rows):
        one, other = masked[row], open_rows[row]
        assert np.array_equal(one.tokens_T, other.tokens_T) and np.array_equal(one.labels_T, other.labels_T)
        held = np.count_nonzero(one.documents_T >= 0)
        assert other.positions_T[:held].tolist() == list(range(held))
        assert set(other.documents_T[:held].tolist()) == {0} and (other.documents_T[held:] < 0).all()


def test_every_document_has_one_fate(tmp_path: Path) -> None:
    data = write_tokens(tmp_path, [*texts(5, 40, 9), *dialogues(6, 20, 40)])
    assert Fit(data, LENGTH).fates == {"kept": 3, "cut": 1, "truncated": 1, "fully_masked": 1}
    assert Blocks(data, LENGTH).fates == {"kept": 6, "fully_masked": 0}


def test_scores_of_rows_are_means_over_their_ids(tmp_path: Path) -> None:
    data = write_tokens(tmp_path, texts(5, 40, 9, 2, 2, 30))
    lengths = {f"doc-{n}": int(size) for n, size in enumerate(data.tokens)}
    of_id = {100 * d + i + 1: lengths[f"doc-{d}"] for d, size in enumerate(data.tokens) for i in range(int(size))}
    for packing in (Blocks(data, LENGTH), Fit(data, LENGTH)):
        for row, score in enumerate(packing.scores("length")):
            tokens, labels = packing[row].tokens_T, packing[row].labels_T
            following = [of_id[int(label)] for label in labels if label > 0]
            assert min(following) <= score <= max(following)
            if len(set(following)) == 1 and END not in tokens[1:]:
                assert score == following[0]
    with pytest.raises(WuxingError, match='no number "quality"'):
        Fit(data, LENGTH).scores("quality")


@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_made_ahead_are_the_same(tmp_path: Path, ranks: int) -> None:
    plain, ahead = source(tmp_path, 0, ranks), source(tmp_path, 0, ranks)
    ahead.ahead = 3
    for step in range(12):
        for one, other in zip(next(plain), next(ahead), strict=True):
            assert one.sample_ids == other.sample_ids and torch.equal(one.tokens_BT, other.tokens_BT)
        assert plain.state_dict() == ahead.state_dict()
        assert ahead.figures["loader_wait_seconds"] >= 0
        if step == 6:
            back = {**plain.state_dict(), "position": 16}
            plain.load_state_dict(back)
            ahead.load_state_dict(back)


def test_an_error_of_the_loader_reaches_the_step(tmp_path: Path) -> None:
    broken = source(tmp_path)
    broken.ahead = 2
    for path in tmp_path.rglob("*.bin"):
        path.unlink()
    with pytest.raises(FileNotFoundError):
        next(broken)
