"""The step kind `tokenizer`: a byte-level BPE trained on the train split of one or more corpora."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.step import Draft, Parent, StepConfig, StepKind

if TYPE_CHECKING:
    import pyarrow

    from wuxing.text.tokenizer import Tokenizer

FEWEST_IDS = 256 + 3
ROWS_PER_BATCH = 1024


class TokenizerConfig(StepConfig):
    """A byte-level BPE with single digits, for documents and ChatML dialogues."""

    corpus: str | tuple[str, ...]
    """The corpus to learn from, or several of them."""
    vocab_size: int = Field(ge=FEWEST_IDS, le=1_000_000)
    """Number of ids, 256 bytes and three special tokens included; more make texts shorter and models larger."""
    min_pair_count: int = Field(default=2, ge=1)
    """A pair of tokens that occurs less often is not merged."""
    mask_token: bool = False
    """One special token more, `<|mask|>`: what the objective `masked` puts where a token is to be guessed."""


class TokenizerKind(StepKind[TokenizerConfig]):
    """Writes `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`, which transformers reads too."""

    kind: ClassVar[str] = "tokenizer"
    Config = TokenizerConfig
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)
    required: ClassVar[tuple[str, ...]] = (
        "round_trip",
        "all_bytes",
        "bytes_per_token",
        "reference_encoder",
        "chat_template",
        "special_text",
    )

    def parents(self, config: TokenizerConfig) -> Mapping[str, Parent]:
        """The corpora; only their records decide the vocabulary."""
        references = (config.corpus,) if isinstance(config.corpus, str) else config.corpus
        members = ("train.parquet", "validation.parquet", "test.parquet")
        roles = ["corpus"] if len(references) == 1 else [f"corpus {number + 1}" for number in range(len(references))]
        return {
            r: Parent(name, ("corpus", "task", "augmentation"), members)
            for r, name in zip(roles, references, strict=True)
        }

    def make(self, config: TokenizerConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        """Train, save, and check the saved files."""
        from wuxing.text.tokenizer import Tokenizer
        from wuxing.text.tokenizer_evidence import examine

        directories = [artifact.path for artifact in parents.values()]
        trained = _train(config, directories, draft.name, context)
        trained.save(draft.path)
        saved = Tokenizer.load(draft.path)
        with context.progress.bar("checking the tokenizer"):
            examine(draft.path, _held_out(directories), draft.evidence)
        draft.summary.update(_summary(saved, draft))


def _train(config: TokenizerConfig, directories: list[Path], name: str, context: Context) -> Tokenizer:
    from wuxing.text.bpe import flat_of, native
    from wuxing.text.train import train_on

    missing = native()
    if isinstance(missing, str):
        context.progress.say(f"{name}: {missing}, so the library tokenizers learns the merges: equal, but slower")

    def watch(ids: int) -> None:
        bar.note(f"{ids:,} ids")
        context.stop.leave("a tokenizer starts over")

    read = 0
    with context.progress.bar(f"{name}: read and merge") as bar:

        def batches() -> Iterator[tuple[Any, Any]]:
            nonlocal read
            for directory in directories:
                for texts in text_arrays(directory, "train"):
                    read += len(texts)
                    bar.set(read)
                    context.stop.leave("a tokenizer starts over")
                    yield flat_of(texts)

        sizes = (config.vocab_size, config.min_pair_count, context.workers)
        trained = train_on(batches(), *sizes, watch, config.mask_token)
    if not read:
        raise WuxingError(f"{name} has no text to learn from", "Give a corpus with records in its train split")
    return trained


def text_arrays(directory: Path, split: str) -> Iterator[pyarrow.Array]:
    """The texts of one split of a corpus as Arrow arrays: documents, and each turn of dialogues."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(directory / f"{split}.parquet") as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=["text", "messages"]):
            turns = pc.struct_field(pc.list_flatten(batch["messages"]), "content")
            yield from (texts for texts in (batch["text"].drop_null(), turns.drop_null()) if len(texts))


def labelled_texts(directory: Path, split: str) -> Iterator[tuple[str, str]]:
    """The texts of one split, turns of dialogues too, with their record's language (`unknown` where there is none)."""
    import json

    import pyarrow.parquet as pq

    with pq.ParquetFile(directory / f"{split}.parquet") as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=["text", "messages", "meta"]):
            for row in batch.to_pylist():
                language = str(json.loads(row["meta"]).get("language", "unknown"))
                if row["text"]:
                    yield row["text"], language
                yield from ((message["content"], language) for message in row["messages"] or ())


def _held_out(directories: list[Path]) -> dict[str, list[str]]:
    """Language → texts that the tokenizer did not see; where nothing is held out, the first that it saw."""
    from itertools import islice

    found: dict[str, list[str]] = {}
    splits = [
        [(d, split) for d in directories for split in ("test", "validation")],
        [(d, "train") for d in directories],
    ]
    for places in splits:
        for directory, split in places:
            for text, language in islice(labelled_texts(directory, split), 20_000):
                found.setdefault(language, []).append(text)
        if found:
            break
    return found


def _summary(tokenizer: Tokenizer, draft: Draft) -> dict[str, object]:
    return {
        "ids": tokenizer.vocab_size,
        "bytes per token": draft.evidence.value("bytes_per_token")["all"],
        "splitting": tokenizer.pre_tokenizer,
        "encoder": f"tokenizers ({tokenizer.fast})" if isinstance(tokenizer.fast, str) else "fast",
    }
