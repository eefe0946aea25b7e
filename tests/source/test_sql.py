"""Databases as sources: SQLite, and any other through SQLAlchemy; read-only, in order, with keys, without secrets."""

from __future__ import annotations

import datetime
import sqlite3
from pathlib import Path

import pytest

from wuxing.core.context import Context
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.record import Drop
from wuxing.source import open_source, rows_in, source_digest
from wuxing.source.config import SourceConfig
from wuxing.source.fields import Mapper


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, stars REAL, picture BLOB, made TEXT)")
        rows = [(n, f"note {n} 好", n / 4, bytes([n % 256]) * 3, str(datetime.date(2026, 1, 1))) for n in range(2500)]
        base.executemany("INSERT INTO note VALUES (?, ?, ?, ?, ?)", rows)
    base.close()
    return path


def source(url: str, query: str = "SELECT * FROM note ORDER BY id", **more: object) -> SourceConfig:
    return SourceConfig.model_validate({"sql": {"url": url, "query": query, **more}})


@pytest.mark.parametrize("scheme", ["sqlite:///", "sqlite+pysqlite:///"])
def test_rows_types_places_and_order(shop: Path, tmp_path: Path, scheme: str) -> None:
    context = Context(home=tmp_path)
    found = list(rows_in(source(f"{scheme}{shop}", batch_rows=7), context))
    assert [row.value["id"] for row in found] == list(range(2500))
    assert found[9].place == "query#9" and found[3].value["stars"] == 0.75 and found[3].value["picture"] == b"\3\3\3"
    keyed = list(rows_in(source(f"{scheme}{shop}", "SELECT * FROM note", key="id"), context))
    assert {row.place for row in keyed} == {f"query#id={n}" for n in range(2500)}
    record = Mapper(source(f"{scheme}{shop}")).record(found[5])
    assert record.text == "note 5 好" and record.source == "shop"  # type: ignore[union-attr]


@pytest.mark.parametrize("scheme", ["sqlite:///", "sqlite+pysqlite:///"])
def test_other_content_and_another_query_are_other_versions(shop: Path, tmp_path: Path, scheme: str) -> None:
    context, asked = Context(home=tmp_path), source(f"{scheme}{shop}")
    before = source_digest(asked, context)
    assert before == source_digest(asked, context)
    narrow = source(f"{scheme}{shop}", "SELECT * FROM note WHERE id < 5 ORDER BY id")
    with sqlite3.connect(shop) as base:
        base.execute("UPDATE note SET text = 'other' WHERE id = 2000")
    base.close()
    assert len({before, source_digest(asked, context), source_digest(narrow, context)}) == 3


def test_a_write_ahead_log_counts_too(shop: Path, tmp_path: Path) -> None:
    asked, context = source(f"sqlite:///{shop}"), Context(home=tmp_path)
    base = sqlite3.connect(shop)
    base.execute("PRAGMA journal_mode=WAL")
    before = source_digest(asked, context)
    base.execute("UPDATE note SET text = 'other' WHERE id = 0")
    base.commit()
    assert source_digest(asked, context) != before
    assert next(iter(rows_in(asked, context))).value["text"] == "other"
    base.close()


@pytest.mark.parametrize(
    "query", ["DELETE FROM note ORDER BY id", "SELECT 1 ORDER BY 1; DROP TABLE note", "PRAGMA user_version"]
)
def test_only_one_select_is_taken(shop: Path, query: str) -> None:
    with pytest.raises(ValueError, match="must be one"):
        source(f"sqlite:///{shop}", query)
    source(f"sqlite:///{shop}", "SELECT text AS ';' FROM note WHERE text <> 'a;b' ORDER BY id")


def test_what_writes_in_the_middle_of_a_select_is_refused(shop: Path, tmp_path: Path) -> None:
    hidden = source(f"sqlite:///{shop}", "WITH x AS (SELECT 1) DELETE FROM note WHERE id IN (SELECT 1 ORDER BY 1)")
    with pytest.raises(WuxingError, match="fails"):
        list(rows_in(hidden, Context(home=tmp_path)))
    with sqlite3.connect(shop) as base:
        assert base.execute("SELECT count(*) FROM note").fetchone() == (2500,)
    base.close()


def test_order_and_key_are_asked_for_and_checked(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no order of their own"):
        source(f"sqlite:///{shop}", "SELECT * FROM note")
    context = Context(home=tmp_path)
    with pytest.raises(WuxingError, match=r'"made" is no key: 2,500 rows have 1 values'):
        open_source(source(f"sqlite:///{shop}", "SELECT * FROM note", key="made"), context)
    with pytest.raises(WuxingError, match='no column "made2"'):
        open_source(source(f"sqlite:///{shop}", "SELECT * FROM note", key="made2"), context)
    with pytest.raises(WuxingError, match='two columns the name "text"'):
        open_source(source(f"sqlite:///{shop}", "SELECT text, text FROM note ORDER BY 1"), context)
    with pytest.raises(WuxingError, match="no such table: missing"):
        open_source(source(f"sqlite:///{shop}", "SELECT * FROM missing ORDER BY 1"), context)
    with pytest.raises(UsageError, match="There is no database"):
        open_source(source("sqlite:///not/there.db"), context)
    with pytest.raises(UsageError, match="no database that can be reached"):
        open_source(source("nonsense://host/x"), context)


def test_wrong_bytes_and_a_torn_file_are_fates(shop: Path, tmp_path: Path) -> None:
    with sqlite3.connect(shop) as base:
        base.execute("UPDATE note SET text = CAST(x'ff41' AS TEXT) WHERE id = 1")
    base.close()
    asked, context = source(f"sqlite:///{shop}"), Context(home=tmp_path)
    mapper = Mapper(asked)
    made = [mapper.record(row) for row in rows_in(asked, context)]
    assert isinstance(made[1], Drop) and made[1].reason == "broken_unicode" and len(made) == 2500
    parts = open_source(asked, context).parts
    raw = bytearray(shop.read_bytes())
    raw[len(raw) // 2 :] = b"\xee" * (len(raw) - len(raw) // 2)
    shop.write_bytes(raw)
    from wuxing.source import rows_of

    rows = [row for part in parts for row in rows_of(part, asked)]
    assert rows[-1].unreadable is not None and rows[-1].unreadable.reason == "broken_database"


def test_no_password_stands_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no password may stand in it") as error:
        source("postgresql://reader:hush@host/shop")
    monkeypatch.setenv("SHOP_PASSWORD", "hush-4711")
    asked = source("sqlite+pysqlite://reader:${SHOP_PASSWORD}@host/shop")
    with pytest.raises(WuxingError) as error:
        open_source(asked, Context(home=tmp_path))
    assert "hush" not in str(error.value) and "SHOP_PASSWORD" not in str(error.value)
