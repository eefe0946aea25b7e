"""A small tokenizer, trained once on text that the tests make."""

from __future__ import annotations

import pytest

from wuxing.text.tokenizer import Tokenizer
from wuxing.text.train import train_tokenizer

TEXTS = (
    "The quick brown fox jumps over the lazy dog. The dog sleeps; the fox does not.",
    "What is 12 + 30? It is 42. What is 7 + 5? It is 12.",
    "北京是中国的首都。上海是中国最大的城市。中国的首都是北京。",
    "I am a model. You are a person. We'll talk, won't we?\n\nYes, we will.\n",
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """500 ids."""
    return train_tokenizer(TEXTS * 20, 500)
