"""Training a byte-level BPE tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wuxing.text.template import CHATML
from wuxing.text.tokenizer import END_OF_TEXT, END_OF_TURN, START_OF_TURN, Tokenizer, byte_alphabet

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


def train_tokenizer(texts: Iterable[str], vocab_size: int, min_pair_count: int = 2) -> Tokenizer:
    """Byte-level BPE of at most `vocab_size` ids, special tokens included; fewer when the text has no more pairs.

    The result depends on the texts only, not on their order's cut into batches or on the number of threads.
    """
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_pair_count,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=byte_alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    return Tokenizer(backend, tokenizer_config(), CHATML)


def tokenizer_config() -> dict[str, Any]:
    """`tokenizer_config.json` as transformers reads it; `pre_tokenizer` is ours, for the GGUF writer."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": [START_OF_TURN, END_OF_TURN],
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "model_max_length": 1_000_000_000,
        "pre_tokenizer": PRE_TOKENIZER,
    }
