"""Training a byte-level BPE tokenizer: words are counted, then pairs of tokens are merged, the most frequent first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

from wuxing.text.bpe import SPLITS, WORD_BYTES, WordCounts, flat, native
from wuxing.text.template import CHATML
from wuxing.text.tokenizer import END_OF_TEXT, END_OF_TURN, MASK, START_OF_TURN, Tokenizer, byte_alphabet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Batches = Iterable[tuple[NDArray[np.uint8], NDArray[np.int64]]]

PRE_TOKENIZER = "qwen2"
"""llama.cpp's name for SPLIT: the only spelling of it that its GGUF loader knows."""
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Words with one leading space, single digits, runs of signs, runs of space.  Single digits, so that every number is
written in the same few tokens place by place: with merged digits a small model has to learn the sums of 1,110 tokens
instead of ten (Singh & Strouse 2024, "Tokenization counts", show how much the cut of numbers moves
arithmetic)."""
SPECIAL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN)
TEXTS_PER_BATCH = 1024


def special_tokens(mask: bool) -> tuple[str, ...]:
    """What a tokenizer has besides text, with a token for masked places or without."""
    return (*SPECIAL_TOKENS, MASK) if mask else SPECIAL_TOKENS


def train_tokenizer(texts: Iterable[str], vocab_size: int, min_pair_count: int = 2, mask: bool = False) -> Tokenizer:
    """Byte-level BPE of at most `vocab_size` ids, special tokens included; fewer when the text has no more pairs.

    The result depends on the texts only: not on their order or its cut into batches, nor on the number of threads.
    """
    rows = iter(texts)
    batches = iter(lambda: list(islice(rows, TEXTS_PER_BATCH)), [])
    return train_on(map(flat, batches), vocab_size, min_pair_count, mask=mask)


def train_on(
    batches: Batches,
    vocab_size: int,
    min_pair_count: int = 2,
    workers: int = 1,
    watch: Callable[[int], object] = lambda ids: None,
    mask: bool = False,
) -> Tokenizer:
    """`train_tokenizer` on texts as `flat` gives them.  Memory holds the different words, never the texts.

    `watch` is told the number of ids now and then; what it raises ends the work.
    """
    if isinstance(native(), str):
        return _wrapped(_slowly(batches, vocab_size, min_pair_count, mask), mask)
    with WordCounts(SPLITS[SPLIT]) as counts:
        _count(counts, batches, workers)
        return _wrapped(_learnt(counts, vocab_size, min_pair_count, watch, mask), mask)


def _count(counts: WordCounts, batches: Batches, workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        running: list[Future[None]] = []
        for raw, offsets in batches:
            running.append(pool.submit(counts.add, raw, offsets))
            if len(running) > workers:
                running.pop(0).result()
        for future in running:
            future.result()


def _learnt(
    counts: WordCounts, vocab_size: int, min_pair_count: int, watch: Callable[[int], object], mask: bool
) -> Any:
    import numpy as np
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    alphabet = byte_alphabet()
    spelled = [*special_tokens(mask), *sorted(alphabet)]
    vocab = {token: number for number, token in enumerate(spelled)}
    byte_ids = np.array([vocab[character] for character in alphabet], np.uint32)
    merges = counts.learn(byte_ids, len(vocab), vocab_size, min_pair_count, watch)
    last: dict[tuple[str, str], int] = {}
    for rank, (left, right, made) in enumerate(merges.tolist()):
        if made == len(spelled):
            spelled.append(spelled[left] + spelled[right])
            vocab[spelled[made]] = made
        last[spelled[left], spelled[right]] = rank
    return Backend(models.BPE(vocab=vocab, merges=sorted(last, key=last.__getitem__)))


def _slowly(batches: Batches, vocab_size: int, min_pair_count: int, mask: bool = False) -> Any:
    """The same by the library `tokenizers`: the truth of the kernel, and what runs where there is none."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = _pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_pair_count,
        initial_alphabet=byte_alphabet(),
        show_progress=False,
        special_tokens=list(special_tokens(mask)),
    )
    texts = (
        piece
        for raw, offsets in batches
        for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        for piece in cut_words(raw[start:stop].tobytes().decode())
    )
    backend.train_from_iterator(texts, trainer=trainer)
    return backend


def cut_words(text: str) -> Iterator[str]:
    """The text, cut wherever the kernel cuts words that are too long to count."""
    from tokenizers import Regex, pre_tokenizers

    begin = 0
    if len(text.encode()) > WORD_BYTES:
        split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
        for word, (start, stop) in split.pre_tokenize_str(text):
            raw = word.encode()
            if len(raw) <= WORD_BYTES:
                continue
            yield text[begin:start]
            while raw:
                piece = raw[:WORD_BYTES].decode(errors="ignore")
                raw = raw[len(piece.encode()) :]
                yield piece
            begin = stop
    yield text[begin:]


def _pre_tokenizer() -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _wrapped(backend: Any, mask: bool = False) -> Tokenizer:
    from tokenizers import AddedToken, decoders

    backend.pre_tokenizer = _pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    added = [AddedToken(token, special=True, normalized=False) for token in special_tokens(mask)]
    backend.add_special_tokens(added)
    return Tokenizer(backend, tokenizer_config(mask), CHATML)


def tokenizer_config(mask: bool = False) -> dict[str, Any]:
    """`tokenizer_config.json` as transformers reads it; `pre_tokenizer` is ours, for the GGUF writer."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
        **({"mask_token": MASK} if mask else {}),
        "additional_special_tokens": [START_OF_TURN, END_OF_TURN],
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "model_max_length": 1_000_000_000,
        "pre_tokenizer": PRE_TOKENIZER,
    }
