"""The BPE kernel against its slow truths: the library's encoder and trainer, and the definition."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.text import bpe, train
from wuxing.text.tokenizer import Tokenizer

garbage = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
tricky = st.text("ab \n\r\t'sſREll1９汉字。🙂\u3000\u00a0=–\u0301<|im_end|>", max_size=120)


def random_texts(random: Random, count: int, length: int) -> list[str]:
    alphabet = "ab c\n\r'sſ 1９é汉字。🙂\u3000\t\u00a0=–\u0301T"
    few = alphabet[: random.choice([4, 8, 25])]
    return ["".join(random.choice(few) for _ in range(random.randint(0, length))) for _ in range(count)]


@pytest.fixture(scope="module", params=sorted(bpe.SPLITS))
def any_split(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with each of the splitting patterns that the kernel knows."""
    from tokenizers import Tokenizer as Backend

    described = json.loads(tokenizer.backend.to_str())
    described["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = request.param
    made = Tokenizer(Backend.from_str(json.dumps(described)), tokenizer.config, tokenizer.template.source)
    assert isinstance(made.fast, bpe.BpeEncoder)
    return made


@given(st.lists(garbage | tricky, max_size=5))
@settings(deadline=None, max_examples=150)
def test_ids_are_those_of_the_library(any_split: Tokenizer, texts: list[str]) -> None:
    assert any_split.encode_batch(texts) == [any_split.encode(text) for text in texts]


def test_every_character_is_classed_as_the_library_does(tokenizer: Tokenizer) -> None:
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and (c < 0x3100 or c % 7 == 0)]
    for before, after in (("", ""), ("a", "a"), ("'", ""), (" ", "1")):
        texts = [before + "".join(characters[n : n + 3]) + after for n in range(0, len(characters), 3)]
        wide = [before.join(texts[n : n + 500]) for n in range(0, len(texts), 500)]
        assert tokenizer.encode_batch(wide) == [tokenizer.encode(text) for text in wide]


def test_a_sliced_arrow_array_is_read_where_it_is(tokenizer: Tokenizer) -> None:
    words = ["", "one", "zwei", "三三三", "four  ", "5"]
    for kind in (pa.string(), pa.large_string()):
        ids, ends = tokenizer.encode_arrow(pa.array(words, kind).slice(1, 4))
        assert [part.tolist() for part in np.split(ids, ends[:-1])] == [tokenizer.encode(word) for word in words[1:5]]
    assert len(tokenizer.encode_arrow(pa.array([], pa.string()))[0]) == 0
    ids, ends = tokenizer.encode_arrow(pa.array([""] * 1_000_000))
    assert len(ids) == 0 and not ends.any()


def test_full_caches_and_threads_change_nothing(tokenizer: Tokenizer) -> None:
    random = Random(1)
    words = ["".join(random.choices("abcdefghij", k=random.randint(3, 12))) for _ in range(300_000)]
    texts = [" ".join(words[n : n + 1000]) for n in range(0, len(words), 1000)]
    encoder = bpe.BpeEncoder(tokenizer.backend)
    whole, ends = encoder.encode(texts)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda n: encoder.encode(texts[n : n + 30])[0], range(0, 300, 30)))
    assert np.array_equal(np.concatenate(parts), whole)
    for n in (0, 150, 299):
        assert whole[ends[n - 1] if n else 0 : ends[n]].tolist() == tokenizer.encode(texts[n])


@pytest.mark.parametrize("word", ["a", "ab", "=", " ", "\n", "汉", "the"])
def test_a_word_of_a_megabyte_does_not_hang(tokenizer: Tokenizer, word: str) -> None:
    text = word * (1_000_000 // len(word.encode()))
    started = time.process_time()
    ids = tokenizer.encode_batch([text])[0]
    assert tokenizer.decode(ids) == text
    assert ids == tokenizer.encode(text)
    made = train.train_tokenizer([text, "and some more words"], 300)
    assert made.decode(made.encode(text[:2000])) == text[:2000]
    assert time.process_time() - started < 10


@pytest.mark.parametrize("seed", range(30))
def test_merges_are_those_of_the_library(seed: int) -> None:
    random = Random(seed)
    texts = random_texts(random, random.randint(0, 12), random.choice([20, 3000]))
    size, least = random.choice([259, 262, 300, 1000]), random.choice([1, 2, 3])
    slow = train._wrapped(train._slowly([bpe.flat(texts)], size, least))
    assert train.train_tokenizer(texts, size, least).backend.to_str() == slow.backend.to_str()


def test_merges_of_real_text_are_those_of_the_library(data_directory: Path) -> None:
    import gzip

    with gzip.open(data_directory / "text" / "tang-poems-zh.jsonl.gz", "rt") as file:
        lines = file.readlines()[:1500]
    english = (data_directory / "text" / "shakespeare.txt").read_text()[:300_000]
    texts = [json.loads(line)["text"] for line in lines] + english.split("\n\n")
    slow = train._wrapped(train._slowly([bpe.flat(texts)], 2000, 2))
    fast = train.train_tokenizer(texts, 2000)
    assert fast.backend.to_str() == slow.backend.to_str()
    assert fast.encode_batch(texts) == [fast.encode(text) for text in texts]


def test_words_of_more_than_a_kilobyte_are_cut_alike_by_both() -> None:
    random = Random(3)
    parts = ["=" * 1025 + "abc", " " * 2000 + "x", "汉字" * 400, "\n" * 1500 + " ", " \n" * 700 + " y", "'s" * 900]
    texts = [random.choice(["", "a ", "\t"]) + part + random.choice(["", "b", " 1"]) for part in parts * 3]
    slow = train._wrapped(train._slowly([bpe.flat(texts)], 420, 1))
    assert train.train_tokenizer(texts, 420, 1).backend.to_str() == slow.backend.to_str()


def test_neither_order_nor_batches_nor_threads_decide_the_merges() -> None:
    random = Random(5)
    texts = random_texts(random, 200, 400)
    expected = train.train_tokenizer(texts, 500).digest
    for workers in (1, 3):
        random.shuffle(texts)
        cuts = [0, *sorted(random.sample(range(1, 200), 20)), 200]
        batches = [bpe.flat(texts[a:b]) for a, b in pairwise(cuts)]
        assert train.train_on(batches, 500, workers=workers).digest == expected


def test_training_can_be_stopped() -> None:
    random = Random(7)
    texts = ["".join(random.choices("abcdefghijklmnop ", k=5000)) for _ in range(200)]

    seen = []

    def stop(ids: int) -> None:
        seen.append(ids)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train_on([bpe.flat(texts)], 50_000, 1, watch=stop)
    assert len(seen) == 1 and seen[0] < 25_000  # not half of the way


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        (("normalizer",), {"type": "Lowercase"}, "Lowercase"),
        (("pre_tokenizer", "pretokenizers", 0, "pattern", "Regex"), r"\w+|\W+", "splitting"),
        (("pre_tokenizer", "pretokenizers", 1, "add_prefix_space"), True, "splitting"),
        (("model", "byte_fallback"), True, "byte_fallback"),
    ],
)
def test_an_unknown_tokenizer_is_left_to_the_library(
    tokenizer: Tokenizer, part: tuple[str | int, ...], value: object, reason: str
) -> None:
    from tokenizers import Tokenizer as Backend

    described = json.loads(tokenizer.backend.to_str())
    place = described
    for key in part[:-1]:
        place = place[key]
    place[part[-1]] = value
    other = Tokenizer(Backend.from_str(json.dumps(described)), tokenizer.config, tokenizer.template.source)
    assert isinstance(other.fast, str) and reason in other.fast
    texts = ["Some Text", "", "汉字 and more"]
    assert other.encode_batch(texts) == [other.encode(text) for text in texts]


def test_an_encoder_that_errs_is_found_out(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "classes", lambda table=bpe.classes(): np.where(table == 1, 0, table).astype(np.uint8))
    other = Tokenizer(tokenizer.backend, tokenizer.config, tokenizer.template.source)
    assert isinstance(other.fast, str) and "differ" in other.fast
    assert other.encode_batch(["12345"]) == [tokenizer.encode("12345")]


def test_parsed_tokens_normal_forms_and_whole_words_are_kept(tokenizer: Tokenizer) -> None:
    """What foreign tokenizers ask for: NFC, added tokens that are text, and words that are ids as they stand."""
    from tokenizers import AddedToken, normalizers
    from tokenizers import Tokenizer as Backend

    described = json.loads(tokenizer.backend.to_str())
    described["model"]["ignore_merges"] = True
    described["model"]["vocab"]["zqzqz"] = len(described["model"]["vocab"])
    backend = Backend.from_str(json.dumps(described))
    backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    other = Tokenizer(backend, tokenizer.config, tokenizer.template.source)
    assert isinstance(other.fast, bpe.BpeEncoder)
    texts = ["a <think> b", "e\u0301e\u0301", "zqzqz", "Å ngstro\u0308m", "<|im_end|>", "", "<think>"]
    assert other.encode_batch(texts) == [other.encode(text) for text in texts]
    assert other.encode_arrow(pa.array(texts))[0].tolist() == [i for text in texts for i in other.encode(text)]


def test_without_the_kernel_the_library_gives_the_same(tokenizer: Tokenizer) -> None:
    code = """
import sys
from wuxing.text import bpe
from wuxing.text.train import train_tokenizer
assert isinstance(bpe.native(), str)
made = train_tokenizer(["low lower lowest 12 汉字汉字"] * 3, 300)
assert isinstance(made.fast, str)
print(made.digest, made.encode_batch(["lower", "汉字"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"WUXING_NO_FAST_BPE": "1"}, check=True
    )
    made = train.train_tokenizer(["low lower lowest 12 汉字汉字"] * 3, 300)
    assert done.stdout.strip() == f"{made.digest} {made.encode_batch(['lower', '汉字'])}"
