"""Every format, every way in which a file can be broken: a row or a reason, never a crash, never a silent loss."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.context import Context
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.record import Drop, Record
from wuxing.source import rows_in, source_digest
from wuxing.source.blob import MemoryBlob
from wuxing.source.config import SourceConfig
from wuxing.source.encoding import decode
from wuxing.source.fields import Mapper
from wuxing.source.format import SUFFIXES, format_of, read_part
from wuxing.source.row import Part, Row


def read(path: Path, **settings: Any) -> list[Row]:
    source = SourceConfig.model_validate({"files": str(path), **settings})
    return list(rows_in(source, Context(home=path.parent / "home")))


def values(rows: list[Row]) -> list[Any]:
    return [row.value.reason if isinstance(row.value, Drop) else row.value for row in rows]


ROWS = [{"title": "a", "text": "one\ntwo"}, {"title": "ü", "text": "汉字"}]


def write(path: Path) -> Path:
    """`ROWS` in the format that the path's name says."""
    plain = path.name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    if plain.endswith(".json"):
        content = json.dumps(ROWS)
    elif plain.endswith(".yaml"):
        content = '- {title: a, text: "one\\ntwo"}\n- {title: ü, text: 汉字}\n'
    elif plain.endswith(".jsonl"):
        content = "".join(json.dumps(row) + "\n" for row in ROWS)
    else:
        content = 'title,text\r\na,"one\ntwo"\r\nü,汉字\r\n'.replace(",", "\t" if plain.endswith(".tsv") else ",")
    path.write_bytes(gzip.compress(content.encode()) if path.name.endswith(".gz") else content.encode())
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "csv", "tsv", "csv.gz", "parquet", "yaml"])
def test_each_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = read(write(tmp_path / f"r.{suffix}"))
    assert values(rows) == ROWS
    assert [row.place for row in rows] == [f"r.{suffix}#0", f"r.{suffix}#1"]


def test_a_mapping_of_rows_keeps_its_keys(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"x": {"text": "a"}, "y": {"text": "b"}}))
    assert values(read(tmp_path / "m.json")) == [{"key": "x", "text": "a"}, {"key": "y", "text": "b"}]


def test_yaml_words_stay_words(tmp_path: Path) -> None:
    turns = "- - Ready?\n  - Yes\n- - How many?\n  - 007\n- - What?\n  - null\n"
    (tmp_path / "d.yml").write_text(f"conversations:\n{turns}")
    rows = read(tmp_path / "d.yml", rows="conversations")
    assert values(rows) == [{"value": ["Ready?", "Yes"]}, {"value": ["How many?", "007"]}, {"value": ["What?", "null"]}]


@pytest.mark.parametrize(("per", "count"), [("file", 1), ("paragraph", 2), ("line", 3)])
def test_text_files_in_pieces(tmp_path: Path, per: str, count: int) -> None:
    (tmp_path / "t.txt").write_text("one\r\ntwo\r\n\r\n\r\nthree\n")
    rows = read(tmp_path / "t.txt", per=per)
    assert len(rows) == count
    assert " ".join(row.value["text"] for row in rows).split() == ["one", "two", "three"]


def test_broken_rows_have_reasons_and_the_rest_stays(tmp_path: Path) -> None:
    lines = [b'{"text": "a"}', b'{"text": ', b"\xff\xfe\xfd", b"", b"[1, 2]", b'{"text": "b"}', b"[" * 100_000]
    (tmp_path / "b.jsonl").write_bytes(b"\n".join(lines))
    assert values(read(tmp_path / "b.jsonl")) == [
        {"text": "a"},
        "broken_json",
        "wrong_encoding",
        {"value": [1, 2]},
        {"text": "b"},
        "broken_json",
    ]
    (tmp_path / "b.csv").write_text("a,b\n1,2\n3\n4,5,6\n7,8\n")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    assert values(read(tmp_path / "twice.csv")) == ["broken_csv"]
    found = values(read(tmp_path / "b.csv"))
    assert found == [{"a": "1", "b": "2"}, "wrong_columns", "wrong_columns", {"a": "7", "b": "8"}]


def test_a_yaml_bomb_is_no_text(tmp_path: Path) -> None:
    """Nine levels of ten references each: a billion words, if anybody wrote them out."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join([*levels, "text: *a8", "meta: *a8"]))
    source = SourceConfig.model_validate(
        {"files": str(tmp_path / "bomb.yaml"), "fields": {"text": "text", "meta": ["meta"]}}
    )
    [row] = rows_in(source, Context(home=tmp_path))
    assert Mapper(source).record(row) == Drop("no_text_in_field", "text holds a list")


def test_a_file_cut_short_gives_what_it_holds_and_a_reason(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b'{"text": "%06d"}\n' % (n * n) for n in range(5000)))
    (tmp_path / "c.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    rows = read(tmp_path / "c.jsonl.gz")
    assert len(rows) > 100
    assert [row.unreadable is None for row in rows] == [True] * (len(rows) - 1) + [False]
    assert rows[-1].unreadable.reason == "broken_file"


def test_a_directory_names_every_file_and_skips_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/z.txt", "a.md", ".hidden.txt", "b/.git/c.txt", "picture.xyz"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text(name)
    rows = read(tmp_path / "d")
    assert [row.place for row in rows] == ["a.md#0", "b/z.txt#0", "picture.xyz"]
    assert values(rows)[-1] == "unknown_format"
    assert [row.place for row in read(tmp_path / "d" / "**" / "*.txt")] == ["b/z.txt#0"]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        read(tmp_path / "nothing.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WuxingError, match="holds no file"):
        read(tmp_path / "empty")


def test_a_source_s_digest_follows_content_not_place(tmp_path: Path) -> None:
    context = Context(home=tmp_path / "home")

    def digest(name: str, text: str) -> str | None:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "t.txt").write_text(text)
        return source_digest(SourceConfig(files=str(tmp_path / name)), context)

    assert digest("a", "one") == digest("b", "one")
    assert digest("a", "one") != digest("a", "two")


OLD = "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。"
NEW = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("naïve 汉字".encode(), "naïve 汉字"),
        ("naïve".encode("utf-8-sig"), "naïve"),
        ("naïve 汉字".encode("utf-16"), "naïve 汉字"),
        (OLD.encode("big5"), OLD),
        (NEW.encode("gb18030"), NEW),
        ("Ein schöner Tag für müde Füße".encode("cp1252"), "Ein schöner Tag für müde Füße"),
        (b"", ""),
    ],
)
def test_encodings(raw: bytes, text: str) -> None:
    assert decode(raw) == text


def test_a_stated_encoding_is_kept_to() -> None:
    assert decode("ü".encode("cp1252"), "cp1252") == "ü"
    assert decode(b"\xff", "utf-8") == Drop("wrong_encoding", "not utf-8")
    assert decode(b"a\x00b") == Drop("binary", "holds NUL bytes")


@given(st.binary(max_size=300), st.sampled_from([*SUFFIXES, ".jsonl.gz", ".csv.gz"]))
@settings(deadline=None, max_examples=300)
def test_garbage_never_crashes_a_reader(raw: bytes, suffix: str) -> None:

    source = SourceConfig(files="f")
    mapper = Mapper(source)
    rows = list(read_part(Part(MemoryBlob(f"f{suffix}", raw), format_of(f"f{suffix}") or ""), source))
    for row in rows:
        made = mapper.record(row)
        assert isinstance(made, Record | Drop)
        if isinstance(made, Record):
            (made.text or "".join(m["content"] for m in made.messages or ())).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=4), st.sampled_from(["text", "messages", "conversations", "value"]))
@settings(deadline=None, max_examples=100)
def test_any_json_is_a_record_or_a_reason(items: list[Any], name: str) -> None:
    mapper = Mapper(SourceConfig(files="f"))
    for number, item in enumerate(items):
        for value in (item, {name: item}, {"instruction": item, "output": item}, {"messages": items}):
            row = Row(f"f#{number}", value if isinstance(value, dict) else {"value": value})
            assert isinstance(mapper.record(row), Record | Drop)
