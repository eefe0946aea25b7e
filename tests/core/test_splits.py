"""The Parquet files of a corpus: what is written is read back, however it was cut."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.error import WuxingError
from wuxing.core.record import Record
from wuxing.core.splits import (
    SplitWriter,
    corpus_schema,
    read_records,
    read_table,
    record_batch,
    records_of,
    write_records,
)

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts}), min_size=1
)
meta = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, max_size=3)
labels = st.none() | texts
records = (
    st.builds(Record, texts, texts, text=texts, label=labels, meta=meta)
    | st.builds(Record, texts, texts, messages=messages, liked=st.none() | st.booleans())
    | st.builds(Record, texts, texts, messages=messages, chosen=texts, rejected=texts)
    | st.builds(Record, texts, texts, image=st.binary(max_size=20), label=labels)
    | st.builds(Record, texts, texts, audio=st.binary(max_size=20), meta=meta)
)


@given(st.lists(records, max_size=5))
@settings(deadline=None)
def test_records_come_back(items: list[Record]) -> None:
    assert list(records_of(record_batch(items))) == items


@pytest.mark.parametrize("rows", [0, 1, 8192, 20_000])
def test_equal_rows_give_equal_bytes_however_they_are_cut(tmp_path: Path, rows: int) -> None:
    items = [Record(f"r{n}", "s", text=f"text {n % 7}", meta={"n": n}) for n in range(rows)]
    digests = set()
    for size in (1000, 3333, 20_001):
        path = tmp_path / f"{size}.parquet"
        with SplitWriter(path, corpus_schema()) as writer:
            for start in range(0, rows, size):
                writer.write(record_batch(items[start : start + size]))
        assert writer.rows == rows
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
    assert write_records(tmp_path, "train", items) == rows
    assert hashlib.sha256((tmp_path / "train.parquet").read_bytes()).hexdigest() in digests
    assert list(read_records(tmp_path, "train")) == items
    assert read_table(tmp_path, "train", ["id"]).column("id").to_pylist() == [item.id for item in items]


def test_a_split_that_is_none_or_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WuxingError, match='"tran" is no split of a corpus. Did you mean "train"?'):
        read_table(tmp_path, "tran")
    with pytest.raises(WuxingError, match=r"has no test\.parquet"):
        list(read_records(tmp_path, "test"))
