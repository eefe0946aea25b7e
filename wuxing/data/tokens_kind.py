"""The step kind `tokens`: a corpus or task, encoded once, that any number of models reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import RefusedError
from wuxing.core.file import write_json
from wuxing.core.step import Draft, Parent, StepConfig, StepKind

if TYPE_CHECKING:
    from wuxing.core.progress import Bar
    from wuxing.core.record import Record
    from wuxing.data.tokens import TokenWriter
    from wuxing.text.tokenizer import Tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
DATA_FILES = ("train.parquet", "validation.parquet", "test.parquet")
SPLITS = ("train", "validation", "test")
BATCH_RECORDS = 1024
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
"""Row lengths for which the evidence says what would be cut."""
ROUND_TRIPS = 200
"""Documents of each split that are decoded again and compared."""


class TokensConfig(StepConfig):
    """Which text, in which alphabet."""

    tokenizer: str
    """A tokenizer, or a model whose tokenizer is used."""
    data: str
    """The corpus or task to encode."""


class TokensKind(StepKind[TokensConfig]):
    """Encodes every split; dialogues with everything but the assistant's words masked."""

    kind = "tokens"
    Config = TokensConfig
    libraries = ("tokenizers", "numpy")
    required = ("counts_equal", "ids_in_vocabulary", "round_trip", "taught_share", "cut_at_length")

    def parents(self, config: TokensConfig) -> Mapping[str, Parent]:
        return {
            "tokenizer": Parent(config.tokenizer, ("tokenizer", "model"), TOKENIZER_FILES),
            "data": Parent(config.data, ("corpus", "task"), DATA_FILES),
        }

    def make(self, config: TokensConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        import pyarrow.parquet as pq

        from wuxing.data.tokens import DESCRIPTION
        from wuxing.text.tokenizer import Tokenizer

        tokenizer, data = Tokenizer.load(parents["tokenizer"].path), parents["data"]
        rows = {split: pq.read_metadata(data.file(f"{split}.parquet")).num_rows for split in SPLITS}
        splits: dict[str, dict[str, Any]] = {}
        unequal: list[str] = []
        with context.progress.bar(f"{draft.name}: encode", sum(rows.values())) as bar:
            for split in SPLITS:
                splits[split], wrong = _encode(split, data, tokenizer, draft, context, bar)
                unequal += wrong
        for split in ("train", "validation", "test"):
            if splits[split]["documents"] and not splits[split]["taught"]:
                raise RefusedError(
                    f"every label of {data.id} ({split}) is masked: a model could learn nothing from it",
                    "Its dialogues need a turn of the role assistant, in words of the tokenizer's chat template",
                )
        write_json(
            draft.file(DESCRIPTION),
            {
                "data": {"id": data.id, "content": data.content},
                "tokenizer": tokenizer.digest,
                "template": tokenizer.template_digest,
                "vocab_size": tokenizer.vocab_size,
                "end_of_text_id": tokenizer.end_of_text_id,
                "dtype": "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4",
                "splits": {split: {k: v for k, v in c.items() if k != "largest"} for split, c in splits.items()},
            },
        )
        _judge(draft, rows, splits, unequal, tokenizer.vocab_size)
        totals = {key: sum(counts[key] for counts in splits.values()) for key in ("documents", "tokens", "taught")}
        draft.summary.update(totals, share_taught=round(totals["taught"] / max(1, totals["tokens"]), 3))


def _judge(
    draft: Draft, rows: dict[str, int], splits: dict[str, dict[str, Any]], unequal: list[str], vocab_size: int
) -> None:
    evidence = draft.evidence
    documents = {split: counts["documents"] for split, counts in splits.items()}
    evidence.judge("counts_equal", documents == rows, documents, rows, "documents encoded, records of the data")
    largest = max(counts["largest"] for counts in splits.values())
    evidence.judge("ids_in_vocabulary", largest < vocab_size, largest, f"< {vocab_size}", "largest id")
    evidence.judge("round_trip", not unequal, unequal[:5], [], "documents that decode to another text")
    tokens, taught = (sum(counts[key] for counts in splits.values()) for key in ("tokens", "taught"))
    share = taught / max(1, tokens)
    evidence.judge("taught_share", taught > 0, round(share, 4), "> 0", "ids whose prediction is taught, of all")
    masked = sum(counts["fully_masked"] for counts in splits.values())
    evidence.measure("fully_masked", masked, "documents without a label that teaches: training leaves them out")
    cut = {
        str(length): round(sum(_cut(draft, split, length) for split in SPLITS) / max(1, tokens), 4)
        for length in LENGTHS
    }
    evidence.measure("cut_at_length", cut, "share of ids beyond the first N of their document")


def _cut(draft: Draft, split: str, length: int) -> int:
    import numpy as np

    from wuxing.data.tokens import open_tokens

    return int(np.maximum(open_tokens(draft.path, split).tokens - length, 0).sum())


def _encode(
    split: str, data: Artifact, tokenizer: Tokenizer, draft: Draft, context: Context, bar: Bar
) -> tuple[dict[str, Any], list[str]]:
    """(counts of the split, ids of documents that did not survive the round trip)."""
    from wuxing.core.splits import read_records
    from wuxing.data.tokens import TokenWriter

    unequal: list[str] = []
    with TokenWriter(draft.path, split, tokenizer.vocab_size, tokenizer.end_of_text_id) as writer:
        records = read_records(data.path, split)
        done = 0
        while batch := list(islice(records, BATCH_RECORDS)):
            for record, ids in _write(batch, tokenizer, writer):
                done += 1
                if done <= ROUND_TRIPS and tokenizer.decode(ids) != record.text:
                    unequal.append(record.id)
            bar.advance(len(batch))
            context.stop.leave("nothing of this step is kept")
    return {**writer.finish(), "largest": writer.largest}, unequal


def _write(batch: list[Record], tokenizer: Tokenizer, writer: TokenWriter) -> Iterator[tuple[Record, list[int]]]:
    """Write the documents of a batch; yields those of plain text with their ids."""
    texts = [record.text for record in batch if record.text is not None]
    encoded = iter(tokenizer.encode_batch(texts))
    for record in batch:
        if record.text is not None:
            ids = next(encoded)
            writer.write(record.id, ids, None, len(record.text.encode()))
            yield record, ids
        else:
            ids, taught = tokenizer.encode_dialogue(record.messages or [])
            said = [number for number, learn in zip(ids, taught, strict=True) if learn]
            writer.write(record.id, ids, taught, len(tokenizer.bytes_of(said)))
