"""Which rows of a batch a query means, and what a list shows of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wuxing.page.text import cut

if TYPE_CHECKING:
    import pyarrow

    from wuxing.corpus.browse.query import Query

EXCERPT_CHARACTERS = 400
FOUND_BEFORE = 80
"""Characters shown before the place where a searched text was found."""


def matches(query: Query, batch: pyarrow.RecordBatch) -> list[int]:
    """The positions of the rows that match; what Arrow can decide is decided by Arrow."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = batch.schema.names
    mask = pa.array([True] * batch.num_rows)

    def also(found: Any) -> None:
        nonlocal mask
        mask = pc.and_(mask, pc.fill_null(found, False))

    if query.fate and "fate" in names:
        exact = pc.equal(batch.column("fate"), query.fate)
        also(pc.or_(exact, pc.starts_with(batch.column("fate"), f"{query.fate}:")))
    if query.step and "step" in names:
        step = batch.column("step")
        also(pc.or_(pc.equal(step, query.step), pc.ends_with(step, f":{query.step}")))
    for name in ("label", "source"):
        wanted = getattr(query, name)
        if wanted is not None:
            also(pc.equal(batch.column(name), wanted) if name in names else _by_id(name, wanted, batch))
    if query.language is not None:
        wanted = f'"language": {json.dumps(query.language, ensure_ascii=False)}'
        also(pc.match_substring(batch.column("meta"), wanted) if "meta" in names else pa.array([False] * len(mask)))
    places: list[int] = pc.indices_nonzero(mask).to_pylist()
    if query.grep is None and query.min_length is None and query.max_length is None and query.language is None:
        return places
    rows = batch.take(pa.array(places, pa.int64())).to_pylist()
    return [place for place, row in zip(places, rows, strict=True) if _holds(query, row)]


def _by_id(name: str, wanted: str, batch: pyarrow.RecordBatch) -> Any:
    """Files of dropped rows name the source only as the first part of the id, and no label."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if name == "source":
        return pc.starts_with(batch.column("id"), f"{wanted}/")
    return pa.array([False] * batch.num_rows)


def _holds(query: Query, row: dict[str, Any]) -> bool:
    if query.language is not None and json.loads(row.get("meta") or "{}").get("language") != query.language:
        return False
    length = sum(map(len, texts_of_row(row)))
    if query.min_length is not None and length < query.min_length:
        return False
    if query.max_length is not None and length > query.max_length:
        return False
    if query.grep is None or ("text" not in row and "before" not in row):  # fates alone: the sample decides later
        return True
    wanted = query.grep.lower()
    return wanted in row["id"].lower() or any(wanted in text.lower() for text in texts_of_row(row))


def texts_of_row(row: dict[str, Any]) -> Iterator[str]:
    """All text of a row of any of the files."""
    for name in ("text", "chosen", "rejected", "before", "after"):
        if row.get(name):
            yield row[name]
    for message in row.get("messages") or ():
        yield message["content"] or ""


def excerpt(row: dict[str, Any], file: str, media: str, grep: str | None = None) -> dict[str, Any]:
    """What a list shows of a row: of a long text the part around what was searched."""
    meta = json.loads(row.get("meta") or "{}")
    fate = row.get("fate") or ("changed" if "before" in row else "kept")
    messages = row.get("messages")
    kind = "dialogue" if messages else "text" if row.get("text") is not None or not media else media
    text = row.get("text") or row.get("after") or ""
    if messages:
        text = "\n".join(f"{m['role']}: {m['content']}" for m in messages)
    entry = {
        "id": row["id"],
        "split": file if file not in ("fates", "dropped", "changed") else None,
        "fate": fate,
        "detail": row.get("detail") or "",
        "kind": "preference" if row.get("chosen") else kind,
        "label": row.get("label"),
        "language": meta.get("language"),
        "length": sum(map(len, texts_of_row(row))) if "before" not in row else len(row["after"] or ""),
        "text": _around(text, grep),
    }
    if "before" in row:
        entry |= {"step": row["step"], "before": cut(row["before"] or "", 4000), "after": cut(row["after"] or "", 4000)}
    return entry


def _around(text: str, grep: str | None) -> str:
    at = text.lower().find(grep.lower()) if grep else -1
    if at > EXCERPT_CHARACTERS - FOUND_BEFORE:
        return "…" + cut(text[at - FOUND_BEFORE :], EXCERPT_CHARACTERS)
    return cut(text, EXCERPT_CHARACTERS)
