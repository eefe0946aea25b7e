"""Big files cut into stretches: the same rows at the same places as read whole, whatever they hold."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wuxing.core.record import Drop
from wuxing.source.blob import FileBlob
from wuxing.source.config import SourceConfig
from wuxing.source.format import read_part
from wuxing.source.format.cut import cut
from wuxing.source.row import Part


def part_of(path: Path, kind: str) -> Part:
    return Part(FileBlob(path.name, path, path.stat().st_size), kind)


def same_rows(path: Path, kind: str, source: SourceConfig, size: int) -> list[Part]:
    whole = part_of(path, kind)
    parts = cut(whole, source, size)
    assert [row for part in parts for row in read_part(part, source)] == list(read_part(whole, source))
    return parts


def odd_lines(count: int, seed: int) -> bytes:
    draw = random.Random(seed)
    kinds = [
        lambda: json.dumps({"text": "word " * draw.randrange(40)}).encode(),
        lambda: b"",
        lambda: b"  \t",
        lambda: b'{"text": "cut',
        lambda: json.dumps({"text": "中文" * draw.randrange(30)}, ensure_ascii=False).encode(),
        lambda: '{"text": "价格"}'.encode("gb18030"),
        lambda: b'{"text": "nul \x00"}',
        lambda: b'{"text": "crlf"}\r',
    ]
    return b"\n".join(draw.choice(kinds)() for _ in range(count))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [50, 333, 4096])
def test_lines_of_json_keep_their_numbers(tmp_path: Path, seed: int, size: int) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(odd_lines(300, seed) + (b"\n" if seed % 2 else b""))
    parts = same_rows(path, "jsonl", SourceConfig(files=str(path)), size)
    assert len(parts) > 2
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert parts[-1].stop == path.stat().st_size


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lines_of_text_keep_their_numbers(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "x.txt"
    lines = [f"line {n} 行" if n % 3 else "　" for n in range(500)]
    path.write_bytes(ending.join(lines).encode("utf-8-sig"))
    assert len(same_rows(path, "text", SourceConfig(files=str(path), per="line"), 700)) > 2
    assert len(same_rows(path, "text", SourceConfig(files=str(path)), 700)) == 1
    path.write_bytes(path.read_bytes()[:-2] + b"\xff\xfe\xfd")
    assert len(same_rows(path, "text", SourceConfig(files=str(path), per="line"), 700)) == 1


def test_what_has_no_line_ends_to_cut_at_stays_whole(tmp_path: Path) -> None:
    source = SourceConfig(files="x")
    rows = "".join(json.dumps({"text": f"{n} text"}) + "\n" for n in range(200))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(rows.encode(), 0))
    (tmp_path / "wide.jsonl").write_bytes(rows.encode("utf-16"))
    for name in ("x.jsonl.gz", "wide.jsonl"):
        assert len(same_rows(tmp_path / name, "jsonl", source, 500)) == 1
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": "long " * 1000}))
    assert len(same_rows(tmp_path / "one.jsonl", "jsonl", source, 500)) == 1


def test_a_line_beyond_its_limit_is_never_held_to_cut_behind_it(tmp_path: Path) -> None:
    short = json.dumps({"text": "short"}) + "\n"
    (tmp_path / "x.jsonl").write_text(short * 50 + json.dumps({"text": "long " * 2000}) + "\n" + short * 50)
    source = SourceConfig.model_validate({"files": "x", "limits": {"line_bytes": 1000}})
    (part,) = same_rows(tmp_path / "x.jsonl", "jsonl", source, 500)
    fates = [row.value.reason for row in read_part(part, source) if isinstance(row.value, Drop)]
    assert fates == ["line_too_long"]


def test_row_groups_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"text": [f"row {n} {random.Random(n).random()}" for n in range(1000)]}), path, row_group_size=70
    )
    assert len(same_rows(path, "parquet", SourceConfig(files=str(path)), 2000)) > 3
    path.write_bytes(path.read_bytes()[:-100])
    (part,) = same_rows(path, "parquet", SourceConfig(files=str(path)), 2000)
    assert isinstance(next(read_part(part, SourceConfig(files="x"))).value, Drop)


def test_what_is_appended_leaves_the_stretches_before_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(odd_lines(300, 3))
    source = SourceConfig(files=str(path))
    before = cut(part_of(path, "jsonl"), source, 1000)
    path.write_bytes(path.read_bytes() + b"\n" + odd_lines(100, 4))
    after = cut(part_of(path, "jsonl"), source, 1000)
    assert [part.digest for part in before[:-1]] == [part.digest for part in after[: len(before) - 1]]
