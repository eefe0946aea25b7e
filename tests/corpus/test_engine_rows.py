"""The short way of reading against the long one: equal records and fates for rows of every kind."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wuxing.core.context import Context
from wuxing.core.record import Drop, Record
from wuxing.core.splits import record_batch
from wuxing.corpus.clean.column import Columns
from wuxing.corpus.engine.histogram import Histogram
from wuxing.corpus.engine.rows import Reader
from wuxing.corpus.engine.sample import Sample, Samples, around, rank
from wuxing.corpus.engine.worker import batch_of, keys_of
from wuxing.corpus.fingerprint import KEY_BYTES, content_key, split_key
from wuxing.source import open_source, rows_of
from wuxing.source.config import SourceConfig
from wuxing.source.fields import Mapper

Row = Callable[[random.Random], bytes]
ODD: list[Row] = [
    lambda d: json.dumps({"text": f"plain {d.random()}", "title": "t"}).encode(),
    lambda d: json.dumps({"text": f"plain 中文 {d.random()}", "title": "题", "n": 5}, ensure_ascii=False).encode(),
    lambda d: json.dumps({"text": " padded \n", "title": "t"}).encode(),
    lambda d: json.dumps({"text": "", "title": "t"}).encode(),
    lambda d: json.dumps({"text": "\u3000\x1c ", "title": "t"}).encode(),
    lambda d: json.dumps({"text": None, "title": "t"}).encode(),
    lambda d: json.dumps({"title": "no text"}).encode(),
    lambda d: json.dumps({"text": 5, "title": "t"}).encode(),
    lambda d: json.dumps({"text": 12345678901234567890123, "title": 1.5}).encode(),
    lambda d: json.dumps({"text": ["a"], "title": "t"}).encode(),
    lambda d: json.dumps({"text": {"a": 1}, "title": "t"}).encode(),
    lambda d: json.dumps({"text": True, "title": False}).encode(),
    lambda d: b'{"text": "half \\ud800 pair", "title": "t"}',
    lambda d: b'{"text": "whole \\ud83d\\ude00 pair", "title": "t"}',
    lambda d: b'{"text": "nan", "title": NaN}',
    lambda d: b'{"text": NaN, "title": "t"}',
    lambda d: b'{"text": "twice", "text": "second", "title": "t"}',
    lambda d: b'{"text": "a", "title": "t", "n": 1, "n" :2}',
    lambda d: json.dumps(
        {"text": 'she "said": \\"\\', "title": 'a \\\\"quote"', "more": {"x": ["y", {"z": 1}]}}
    ).encode(),
    lambda d: b'{"text": "a", "title": "t"} {"text": "b"}',
    lambda d: b'{"text": "cut',
    lambda d: b"[1, 2]",
    lambda d: b'"just a text"',
    lambda d: b"",
    lambda d: b"   ",
    lambda d: b'{"text": "nul \\u0000 inside", "title": "t"}',
    lambda d: b'{"text": "raw nul \x00", "title": "t"}',
    lambda d: '{"text": "价格", "title": "t"}'.encode("gb18030"),
    lambda d: b'{"text": "crlf", "title": "t"}\r',
]
FIELDS: list[dict[str, Any] | None] = [
    None,
    {"text": "text"},
    {"text": "{title}: {text}"},
    {"text": "text", "meta": ["title"]},
    {"text": "{text} {n}"},
]


def slowly(source: SourceConfig) -> list[tuple[str, Any]]:
    mapper, found = Mapper(source), []
    for part in open_source(source, Context()).parts:
        for row in rows_of(part, source):
            made = row.value if isinstance(row.value, Record) else mapper.record(row)
            unread = isinstance(row.value, Drop)
            found.append((f"{source.label}/{row.place}", (made, unread) if isinstance(made, Drop) else made))
    return found


def quickly(source: SourceConfig) -> list[tuple[str, Any]]:
    found = []
    for chunk in Reader(source).chunks(open_source(source, Context()).parts):
        made = dict(zip(chunk.rows.tolist(), (record for _, record in chunk.columns.records()), strict=True))
        found += [(id, made.get(row, chunk.drops.get(row))) for row, id in enumerate(chunk.ids)]
        assert sum(count for _, count in chunk.parts) == len(chunk.ids)
    return found


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("seed", range(3))
def test_lines_of_json(tmp_path: Path, fields: dict[str, Any] | None, seed: int) -> None:
    draw = random.Random(seed)
    rows = [draw.choice(ODD)(draw) for _ in range(2500)] + [row(draw) for row in ODD]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(rows))
    source = SourceConfig.model_validate({"files": str(tmp_path), "fields": fields, "fill": {"n": "7"}})
    assert quickly(source) == slowly(source)


@pytest.mark.parametrize("values", [["a", "b"], ["a", None, "c"], ["a", " \u3000", "b"], ["\x1c", "a"], [], [1, 2]])
@pytest.mark.parametrize("fields", [None, {"text": "text"}, {"text": "{text}!"}, {"text": "other"}])
def test_parquet(tmp_path: Path, values: list[Any], fields: dict[str, Any] | None) -> None:
    column = pa.array(values * 800, pa.string() if not values or isinstance(values[0], str) else pa.int64())
    pq.write_table(pa.table({"text": column, "n": np.arange(len(column))}), tmp_path / "x.parquet", row_group_size=1500)
    source = SourceConfig.model_validate({"files": str(tmp_path), "fields": fields})
    assert quickly(source) == slowly(source)


def test_parquet_that_is_broken_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    texts = [f"{number} {random.Random(number).random()}" for number in range(9000)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=1000, compression="zstd")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 2000] = bytes(2000)
    path.write_bytes(raw)
    source = SourceConfig(files=str(path))
    found, truth = quickly(source), slowly(source)
    assert [id for id, _ in found] == [id for id, _ in truth]
    assert found == truth


def records() -> list[Record]:
    dialogue = [{"role": "user", "content": " Hi  there "}, {"role": "assistant", "content": "Hé"}]
    return [
        Record("a", "s", text="Ein  Straße\n", meta={"title": "t", "n": 1}),
        Record("b", "s", messages=dialogue, label="x"),
        Record("c", "s", messages=dialogue[:1], chosen="good", rejected="bad"),
        Record("d", "s", messages=dialogue, liked=False),
        Record("e", "s", image=b"\x89PNG", meta={"file": "x"}),
        Record("f", "s", audio=b"RIFF", label="dog"),
        Record("g", "s", text="中文 text"),
    ]


def test_columns_give_back_their_records_batches_and_keys() -> None:
    columns = Columns.of(records())
    assert [record for _, record in columns.records()] == records()
    kept = columns.kept()
    assert batch_of(columns, kept).equals(record_batch(records()))
    truth = [content_key(record) + split_key(record) for record in records()]
    assert [row.tobytes() for row in keys_of(columns, kept)] == truth
    assert len({key[:KEY_BYTES] for key in truth}) == len(truth)
    columns.drop(3, {1: Drop("x"), 4: Drop("y")})
    left = [record for record in records() if record.id not in "be"]
    assert [record for _, record in columns.records()] == left
    assert batch_of(columns, columns.kept()).equals(record_batch(left))
    assert [row.tobytes() for row in keys_of(columns, columns.kept())] == [
        content_key(record) + split_key(record) for record in left
    ]


def test_histograms_add_up_in_any_order() -> None:
    draw = np.random.default_rng(4)
    values = np.concatenate([draw.lognormal(4, 2, 5000), draw.normal(0, 1, 300), [0.0, -0.0, np.nan, np.inf]])
    whole, cut = Histogram(), Histogram()
    whole.add(values)
    for part in np.array_split(draw.permutation(values), 13):
        cut.add(part)
    assert whole.to_json() == cut.to_json()
    found, known = whole.to_json(), values[np.isfinite(values)].astype(np.float32)
    assert found["count"] == len(known) == sum(found["counts"]) and found["missing"] == 2
    assert found["mean"] == pytest.approx(known.astype(float).mean(), rel=1e-6)
    for share, value in found["quantiles"].items():
        assert value == pytest.approx(np.quantile(known, float(share), method="inverted_cdf"), rel=0.01)
    ratios = Histogram()
    ratios.add(draw.random(1000))
    assert ratios.to_json()["scale"] == "linear" and len(ratios.to_json()["counts"]) <= 40
    counts = Histogram()
    counts.add(np.array([1, 10, 100, 100000]))
    assert counts.to_json()["scale"] == "log" and sum(counts.to_json()["counts"]) == 4
    assert Histogram().to_json()["count"] == 0


def test_samples_are_those_of_least_rank_however_they_are_cut() -> None:
    offered = [Sample(rank(f"r{n}"), f"r{n}", "x", "", str(n)) for n in range(300)]
    truth = sorted(offered, key=lambda sample: sample.rank)[:7]
    parts = [Samples(7, [], str) for _ in range(5)]
    for number, sample in enumerate(offered):
        parts[number % 5].offer(sample)
    whole = Samples(7, [], str)
    for part in parts:
        for sample in part.all():
            whole.offer(sample)
    assert whole.all() == truth


def test_a_change_is_shown_where_it_is() -> None:
    before = "x" * 5000 + "old" + "y" * 5000
    shown = around(before, before.replace("old", "new"))
    assert "old" in shown[0] and "new" in shown[1] and max(map(len, shown)) < 1100
    assert around("abc", "abcd") == ("abc", "abcd")
    assert around("", "a") == ("", "a")
