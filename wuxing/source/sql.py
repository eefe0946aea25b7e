"""The rows of one query: SQLite by Python's own module, other databases through SQLAlchemy and their drivers.

The connection only reads: SQLite is opened in its read-only mode, PostgreSQL and MySQL are told that the transaction is
read-only, and the query itself must be one SELECT.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from wuxing.core.context import Context
from wuxing.core.digest import digest_of, digest_of_file
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.row import Origin, Part, Row, short
from wuxing.source.secret import filled, hidden, shown

SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Query:
    """One query to one database."""

    url: str
    """Its secrets not filled in; of SQLite with an absolute path."""
    query: str
    key: str | None
    batch_rows: int
    identity: str
    rows: int

    name = "query"

    @property
    def bytes(self) -> int:
        """Unknown."""
        return 0

    def digest(self) -> str:
        """Of the query and the database's content."""
        return self.identity


class Broken(Exception):
    """What a database says went wrong."""


def read(source: SourceConfig, context: Context) -> Origin:
    """The query, tried: its columns are known, its key is one."""
    query = _query(source)
    columns, rows = _tried(query)
    query = Query(query.url, query.query, query.key, query.batch_rows, _identity(query), rows)
    card = {"sql": shown(query.url), "query": query.query, "columns": columns, "rows": rows, "sha256": query.identity}
    return Origin([Part(query, "sql")], card)


def digest(source: SourceConfig, context: Context) -> str:
    """Of the query and the file of SQLite; of other databases, of all rows of the result."""
    return _identity(_query(source))


def _query(source: SourceConfig) -> Query:
    asked = source.sql
    assert asked is not None
    url = asked.url
    if url.startswith(SQLITE):
        path = Path(unquote(url.removeprefix(SQLITE).partition("?")[0])).expanduser()
        if not path.is_file():
            raise UsageError(
                f"There is no database {path}", f"The path starts at {Path.cwd()}; sqlite:////x is absolute"
            )
        url = SQLITE + str(path.absolute())
    return Query(url, asked.query.strip().rstrip(";"), asked.key, asked.batch_rows, "", 0)


def _identity(query: Query) -> str:
    asked = [query.query, query.key]
    if query.url.startswith(SQLITE):
        path = Path(query.url.removeprefix(SQLITE))
        journal = path.with_name(path.name + "-wal")
        beside = digest_of_file(journal) if journal.is_file() and journal.stat().st_size else ""
        return digest_of(["sqlite", *asked, digest_of_file(path), beside])
    state = hashlib.sha256()
    for row in _rows(query, query.query):
        state.update(repr(row).encode("utf-8", errors="surrogatepass"))
    return digest_of(["sql", *asked, state.hexdigest()])


def _tried(query: Query) -> tuple[list[str], int]:
    """The query's columns and the number of its rows; WuxingError when it fails, or when its key is none."""
    try:
        with _connected(query) as connection:
            whole = query.url.startswith(SQLITE)  # which starts a query without running it, and renames columns below
            cursor = connection.cursor(query.query if whole else f"SELECT * FROM ({query.query}) AS asked WHERE 1 = 0")
            columns = [str(column[0]) for column in cursor.description]
            cursor.close()
    except Broken as error:
        raise WuxingError(f"the query to {shown(query.url)} fails: {error}", "Try it in the database itself") from error
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise WuxingError(f'the query gives two columns the name "{twice}"', "Give each a name of its own by AS")
    key = "*" if query.key is None else f'DISTINCT "{query.key}"'
    if query.key is not None and query.key not in columns:
        raise WuxingError(f'the query has no column "{query.key}" for key', f"It has {', '.join(columns)}")
    [(rows, different)] = list(_rows(query, f"SELECT count(*), count({key}) FROM ({query.query}) AS asked"))
    if rows != different:
        raise WuxingError(
            f'"{query.key}" is no key: {rows:,} rows have {different:,} values',
            "Name a column that differs in every row",
        )
    return columns, int(rows)


def read_query(part: Part, source: SourceConfig) -> Iterator[Row]:
    """The rows in the order of the query; a database that breaks off is a row with the reason."""
    query: Query = part.blob
    number = 0
    try:
        with _connected(query) as connection:
            cursor = connection.cursor(query.query)
            names = [str(column[0]) for column in cursor.description]
            while batch := connection.fetch(cursor, query.batch_rows):
                for values in batch:
                    row = dict(zip(names, values, strict=True))
                    place = str(number) if query.key is None else f"{query.key}={row[query.key]}"
                    yield Row(f"{query.name}#{place}", row)
                    number += 1
    except Broken as error:
        yield Row(f"{query.name}#{number}", Drop("broken_database", str(error)))


def _rows(query: Query, statement: str) -> Iterator[tuple[Any, ...]]:
    try:
        with _connected(query) as connection:
            cursor = connection.cursor(statement)
            while batch := connection.fetch(cursor, query.batch_rows):
                yield from (tuple(values) for values in batch)
    except Broken as error:
        raise WuxingError(f"the query to {shown(query.url)} fails: {error}", "Try it in the database itself") from error


class _Sqlite:
    """A SQLite file, read-only."""

    def __init__(self, path: str):
        try:
            self.connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)
        except sqlite3.Error as error:
            raise Broken(short(error)) from error
        self.connection.text_factory = _text

    def cursor(self, statement: str) -> Any:
        try:
            return self.connection.execute(statement)
        except sqlite3.Error as error:
            raise Broken(short(error)) from error

    def fetch(self, cursor: Any, rows: int) -> list[Any]:
        try:
            found: list[Any] = cursor.fetchmany(rows)
            return found
        except sqlite3.Error as error:
            raise Broken(short(error)) from error

    def close(self) -> None:
        self.connection.close()


def _text(raw: bytes) -> str:
    """SQLite does not check encodings; a wrong byte becomes half a surrogate pair, which drops its row later."""
    return raw.decode("utf-8", errors="surrogateescape")


class _Alchemy:
    """Any database that SQLAlchemy has a driver for."""

    def __init__(self, url: str):
        try:
            import sqlalchemy as sa
        except ImportError as error:
            raise UsageError(
                f"{url.partition('://')[0]}:// needs SQLAlchemy",
                'Install it: pip install "wuxing[sql]", and the driver',
            ) from error
        self._url, self._error = url, sa.exc.SQLAlchemyError
        try:
            engine = sa.create_engine(filled(url), poolclass=sa.pool.NullPool)
            options = {"stream_results": True, "postgresql_readonly": True}
            self.connection = engine.connect().execution_options(**options)
            if engine.dialect.name in ("mysql", "mariadb"):
                self.connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise UsageError(
                f"{shown(url)} is no database that can be reached: {hidden(short(error), url)}",
                "Check the URL, and install the database's driver",
            ) from error
        except sa.exc.SQLAlchemyError as error:
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> Broken:
        return Broken(hidden(short(getattr(error, "orig", None) or error), self._url))

    def cursor(self, statement: str) -> Any:
        try:
            found: Any = self.connection.exec_driver_sql(statement)
        except self._error as error:
            raise self._broken(error) from error
        found.description = [(name,) for name in found.keys()]  # noqa: SIM118
        return found

    def fetch(self, cursor: Any, rows: int) -> list[Any]:
        try:
            return [tuple(row) for row in cursor.fetchmany(rows)]
        except self._error as error:
            raise self._broken(error) from error

    def close(self) -> None:
        self.connection.rollback()
        self.connection.close()


@contextmanager
def _connected(query: Query) -> Iterator[Any]:
    connection: _Sqlite | _Alchemy
    if query.url.startswith(SQLITE):
        connection = _Sqlite(query.url.removeprefix(SQLITE))
    else:
        connection = _Alchemy(query.url)
    try:
        yield connection
    finally:
        connection.close()
