"""The loop's last link: what a release was asked and answered, as judged by people, becomes dialogues to learn from."""

from __future__ import annotations

from collections.abc import Iterator

from wuxing.core.context import Context
from wuxing.core.digest import digest_of
from wuxing.core.error import WuxingError
from wuxing.core.exchange import Exchange, ExchangeLog, Judgement
from wuxing.core.record import Drop, Record
from wuxing.source.config import SourceConfig
from wuxing.source.row import Origin, Part, Row


def read(source: SourceConfig, context: Context) -> Origin:
    """The log of a release."""
    log = _log(source, context)
    said = {
        "exchanges": source.exchanges,
        "judged": source.judged or "up",
        "releases": sorted({exchange.artifact for exchange in log.exchanges()}),
        "sha256": digest(source, context),
    }
    return Origin([Part(log, "exchanges")], said, ready=True)


def digest(source: SourceConfig, context: Context) -> str:
    """Digest of which exchange was judged how.  An exchange never changes once it is written."""
    log = _log(source, context)
    judgements = log.judgements()
    return digest_of([[e.id, judgements[e.id].thumb if e.id in judgements else ""] for e in log.exchanges()])


def _log(source: SourceConfig, context: Context) -> ExchangeLog:
    assert source.exchanges is not None
    log = ExchangeLog(context.home, source.exchanges)
    if not log.files():
        raise WuxingError(
            f"{source.exchanges} has answered nothing yet in {context.home}",
            f"Serve it (wuxing serve {source.exchanges}@production), ask, judge, and run again",
        )
    return log


def read_exchanges(part: Part, source: SourceConfig) -> Iterator[Row]:
    """One row per exchange, in the order of the log; ready records, or the reason why one is none."""
    log: ExchangeLog = part.blob
    judgements = log.judgements()
    seen: set[str] = set()
    for exchange in log.exchanges():
        again = exchange.id in seen
        seen.add(exchange.id)
        judgement = judgements.get(exchange.id)
        reason = Drop("written_twice") if again else _unfit(exchange, judgement, source.judged or "up")
        yield Row(exchange.id, reason or _record(exchange, judgement, source))


def _unfit(exchange: Exchange, judgement: Judgement | None, asked: str) -> Drop | None:
    if asked != "any" and judgement is None:
        return Drop("not_judged")
    if asked != "any" and judgement is not None and judgement.thumb != asked:
        return Drop(f"judged_{judgement.thumb}")
    if exchange.finish == "cancelled":
        return Drop("cancelled", "the answer was broken off")
    return None if exchange.reply.strip() else Drop("empty_reply")


def _record(exchange: Exchange, judgement: Judgement | None, source: SourceConfig) -> Record:
    meta = {
        "exchange": exchange.id,
        "release": exchange.artifact,
        "model": exchange.model,
        "time": exchange.time,
        "thumb": judgement.thumb if judgement else "",
    }
    name = f"{source.label}/{exchange.id}"
    if [message["role"] for message in exchange.messages] == ["prompt"]:
        return Record(name, source.label, text=exchange.messages[0]["content"] + exchange.reply, meta=meta)
    messages = [{"role": m["role"], "content": m["content"]} for m in exchange.messages]
    return Record(name, source.label, messages=[*messages, {"role": "assistant", "content": exchange.reply}], meta=meta)
