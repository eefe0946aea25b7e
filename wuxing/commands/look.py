"""How `browse` answers: a pager on a terminal, lines in a pipe, JSON for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from wuxing.commands.option import answer
from wuxing.core.error import UsageError

if TYPE_CHECKING:
    from wuxing.corpus.browse.query import Corpus, Query

JSON_LIMIT = 100


def one(corpus: Corpus, id: str, as_json: bool) -> None:
    """One record, whole."""
    from wuxing.corpus.browse.terminal import record_lines

    found = corpus.record(id)
    if found is None:
        raise UsageError(f'{corpus.id} read no row with the id "{id}"', "wuxing browse lists ids; --grep finds them")

    def text() -> None:
        for line in record_lines(found, 100, 10_000):
            print(line)

    answer(found, as_json, text)


def entries(found: list[dict[str, Any]], as_json: bool) -> None:
    """Some entries of a list."""
    from wuxing.corpus.browse.terminal import plain_line

    def text() -> None:
        for entry in found:
            print(plain_line(entry))

    answer(found, as_json, text)


def matches(corpus: Corpus, query: Query, limit: int | None, as_json: bool) -> None:
    """All matches: pages with keys on a terminal, lines in a pipe; JSON says where it goes on."""
    from itertools import islice

    from wuxing.corpus.browse.terminal import Pager, plain_line, read_key, read_line

    if as_json:
        page = corpus.find(query, None, limit or JSON_LIMIT, sys.maxsize)
        answer({"corpus": corpus.id, "records": page.entries, "more": page.next is not None}, True, lambda: None)
    elif sys.stdin.isatty() and sys.stdout.isatty() and limit is None:
        Pager(corpus, query, read_key, read_line).run()
    else:
        for entry in islice(corpus.each(query), limit):
            print(plain_line(entry))
