"""The fast byte-level BPE: `bpe.c` learns merges from counted words and encodes text, both without the GIL.

Ids and merges are those of the library `tokenizers`, which stays the judge: an encoder is compared with it when it is
made (`fast_encoder`), and takes over where the kernel cannot run or does not know how a tokenizer splits text.
"""

from __future__ import annotations

import ctypes
import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wuxing.text.kernel import compiled, library_directory

if TYPE_CHECKING:
    import pyarrow
    import tokenizers

SOURCE = Path(__file__).with_name("bpe.c")
CLASSES = 0x40000
"""Characters whose class is looked up; beyond are tags, private use and nothing else: signs."""
WORD_BYTES = 1024
"""Longer words are cut before they are counted: none is worth a token, and each merge reads the whole word."""
WATCH_SECONDS = 0.2
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
DIGITS = {r"\p{N}": 1, r"\p{N}{1,3}": 3, r"\p{N}+": 0}
"""How a pattern may cut numbers → the kernel's number of digits."""
SPLITS = {"|".join((CONTRACTIONS, LETTERS, digits, SIGNS, SPACES)): count for digits, count in DIGITS.items()}
"""The splitting patterns that the kernel knows: Qwen's and ours, Llama 3's, and the same with whole numbers."""
_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


@cache
def native() -> ctypes.CDLL | str:
    """The compiled kernel, or one line that says why there is none."""
    if os.environ.get("WUXING_NO_FAST_BPE"):
        return "WUXING_NO_FAST_BPE is set"
    found = compiled(SOURCE)
    if isinstance(found, str):
        return found
    signatures: dict[str, tuple[Any, ...]] = {
        "bpe_model": (_POINTER, _POINTER, _INT, _POINTER, _POINTER, _LONG, _POINTER, _POINTER, _POINTER, _LONG),
        "bpe_model_close": (None, _POINTER),
        "bpe_coder": (_POINTER, _POINTER),
        "bpe_coder_close": (None, _POINTER),
        "bpe_encode": (_LONG, _POINTER, _POINTER, _POINTER, _LONG, _POINTER, _POINTER),
        "bpe_counter": (_POINTER, _POINTER, _INT),
        "bpe_counter_close": (None, _POINTER),
        "bpe_words": (_LONG, _POINTER),
        "bpe_count": (_LONG, _POINTER, _POINTER, _POINTER, _LONG),
        "bpe_add": (_LONG, _POINTER, _POINTER),
        "bpe_learn": (_LONG, _POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _LONG, _POINTER, _POINTER),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


@cache
def classes() -> NDArray[np.uint8]:
    """What each character is, as the library `tokenizers` sees it: 1 letter, 2 number, 3 space, 4 line end, 0 a sign.

    Asked of the library itself (0.7 s), so that both know the same Unicode, and kept in a file for the next time.
    """
    from importlib.metadata import version

    path = library_directory() / f"classes-{version('tokenizers')}.bin"
    if path.is_file() and path.stat().st_size == CLASSES:
        return np.fromfile(path, np.uint8)
    table = _asked_classes()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    table.tofile(draft)
    os.replace(draft, path)
    return table


def _asked_classes() -> NDArray[np.uint8]:
    from tokenizers import Regex, pre_tokenizers

    places = np.array([c for c in range(CLASSES) if not 0xD800 <= c < 0xE000])
    text = "".join(map(chr, places))
    table = np.zeros(CLASSES, np.uint8)
    for value, pattern in ((1, r"\p{L}+"), (2, r"\p{N}+"), (3, r"\s+"), (4, r"[\r\n]+")):
        inside = np.ones(len(places), bool)
        for _, (start, stop) in pre_tokenizers.Split(Regex(pattern), behavior="removed").pre_tokenize_str(text):
            inside[start:stop] = False
        table[places[inside]] = value
    return table


def flat(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """UTF-8 of all texts in a row, and where each begins and ends."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(part) for part in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def flat_of(texts: pyarrow.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`flat` of an Arrow string array without nulls: the buffer as it is, nothing is copied but the offsets."""
    import pyarrow as pa

    assert texts.null_count == 0, "there is no text in a null"
    wide = pa.types.is_large_string(texts.type)
    _, offsets, raw = texts.buffers()
    if offsets is None or raw is None:
        return np.zeros(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    all_offsets = np.frombuffer(offsets, np.int64 if wide else np.int32)
    mine = all_offsets[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return np.frombuffer(raw, np.uint8), mine


class WordCounts:
    """How often each word occurs: all that training needs of the texts, and all that it keeps of them.

    Counts are sums, so neither the order of the texts nor the number of threads changes them.  Raises OSError when the
    kernel is missing.
    """

    def __init__(self, digits: int):
        found = native()
        if isinstance(found, str):
            raise OSError(found)
        self._kernel, self._classes, self._digits = found, classes(), digits
        self._idle: list[int] = []
        """One counter for each thread that counted at the same time."""

    def _counter(self) -> int:
        with suppress(IndexError):
            return self._idle.pop()
        return _made(self._kernel.bpe_counter(self._classes.ctypes.data, self._digits))

    def add(self, raw: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        """Count texts as `flat` gives them; may be called from several threads at once."""
        counter = self._counter()
        count = self._kernel.bpe_count(counter, raw.ctypes.data, offsets.ctypes.data, len(offsets) - 1)
        self._idle.append(counter)
        if count < 0:
            raise MemoryError

    def __len__(self) -> int:
        """Different words."""
        return int(self._kernel.bpe_words(self._merged()))

    def _merged(self) -> int:
        whole = self._counter()
        while self._idle:
            other = self._idle.pop()
            if self._kernel.bpe_add(whole, other) < 0:
                raise MemoryError
            self._kernel.bpe_counter_close(other)
        self._idle.append(whole)
        return whole

    def learn(
        self,
        byte_ids: NDArray[np.uint32],
        taken: int,
        vocab_size: int,
        least: int,
        watch: Callable[[int], object] = lambda ids: None,
    ) -> NDArray[np.uint32]:
        """Merges (left, right, made) in the order in which they were found, until there are `vocab_size` ids.

        `byte_ids` are the ids of the 256 bytes, `taken` the number of ids there are before the first merge.  `watch` is
        told the number of ids now and then; what it raises ends the work.
        """
        merges = np.empty((4 * max(1, vocab_size), 3), np.uint32)
        stop, done, count = ctypes.c_int32(0), ctypes.c_int64(taken), ctypes.c_int64(-1)
        addresses = merges.ctypes.data, len(merges), ctypes.addressof(stop), ctypes.addressof(done)
        counter = self._merged()

        def run() -> None:
            count.value = self._kernel.bpe_learn(counter, byte_ids.ctypes.data, taken, vocab_size, least, *addresses)

        worker = threading.Thread(target=run, name="learn merges")
        worker.start()
        try:
            while worker.is_alive():
                worker.join(WATCH_SECONDS)
                watch(done.value)
        finally:
            stop.value = 1
            worker.join()
        if count.value < 0:
            raise MemoryError
        return merges[: count.value]

    def close(self) -> None:
        """Give the memory back."""
        while self._idle:
            self._kernel.bpe_counter_close(self._idle.pop())

    def __enter__(self) -> WordCounts:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class BpeEncoder:
    """Encodes as a `tokenizers` backend does.  Raises ValueError, with the reason, for one that it does not know."""

    def __init__(self, backend: tokenizers.Tokenizer):
        found = native()
        if isinstance(found, str):
            raise ValueError(found)
        self._kernel = found
        self.backend = backend
        described = json.loads(backend.to_str())
        self._normalizer = _known_normalizer(described)
        self._parsed = [token["content"] for token in described["added_tokens"] if not token["special"]]
        self._model = self._make(described)
        self._idle: list[int] = []
        """One coder, with the words that it has met, for each thread that encoded at the same time."""

    def _make(self, described: dict[str, Any]) -> int:
        from wuxing.text.tokenizer import byte_alphabet

        model, alphabet = described["model"], byte_alphabet()
        digits = _known_split(described["pre_tokenizer"])
        _known_model(model)
        vocab: dict[str, int] = model["vocab"]
        missing = [character for character in alphabet if character not in vocab]
        if missing:
            raise ValueError(f"{len(missing)} of the 256 bytes have no id")
        byte_ids = np.array([vocab[character] for character in alphabet], np.uint32)
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        table = np.array([(vocab[a], vocab[b], vocab[a + b]) for a, b in pairs], np.uint32).reshape(-1, 3)
        whole, offsets, ids = b"", np.zeros(1, np.int64), np.zeros(0, np.uint32)
        if model.get("ignore_merges"):
            values = {character: value for value, character in enumerate(alphabet)}
            spelled = {t: n for t, n in vocab.items() if all(character in values for character in t)}
            parts = [bytes(values[character] for character in token) for token in spelled]
            whole, offsets = b"".join(parts), np.cumsum([0, *map(len, parts)], dtype=np.int64)
            ids = np.array(list(spelled.values()), np.uint32)
        self._classes = classes()
        made = self._kernel.bpe_model(
            self._classes.ctypes.data,
            digits,
            byte_ids.ctypes.data,
            table.ctypes.data,
            len(table),
            whole,
            offsets.ctypes.data,
            ids.ctypes.data,
            len(ids),
        )
        return _made(made)

    def encode_flat(
        self, raw: NDArray[np.uint8], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids of texts as `flat` gives them, all in a row, and where each text's end.

        For text that needs no look before: normal, and without words that the tokenizer reads as one token.
        """
        ids = np.empty(int(offsets[-1] - offsets[0]), np.uint32)
        ends = np.empty(len(offsets) - 1, np.int64)
        coder = self._idle.pop() if self._idle else _made(self._kernel.bpe_coder(self._model))
        addresses = raw.ctypes.data, offsets.ctypes.data, len(ends), ids.ctypes.data, ends.ctypes.data
        count = self._kernel.bpe_encode(coder, *addresses)
        self._idle.append(coder)
        if count < 0:
            raise MemoryError
        return ids[:count], ends

    @property
    def looks_first(self) -> bool:
        """Whether texts must go through `encode`, as strings."""
        return self._normalizer or bool(self._parsed)

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """`encode_flat` of strings; those with a token that the backend parses out of text go through it."""
        if self._normalizer:
            normal = self.backend.normalizer.normalize_str
            texts = [text if text.isascii() else normal(text) for text in texts]
        odd = {n for n, text in enumerate(texts) if any(token in text for token in self._parsed)}
        ids, ends = self.encode_flat(*flat(["" if n in odd else text for n, text in enumerate(texts)]))
        if not odd:
            return ids, ends
        parts = np.split(ids, ends[:-1])
        for n in odd:
            parts[n] = np.array(self.backend.encode(texts[n], add_special_tokens=False).ids, np.uint32)
        return np.concatenate(parts), np.cumsum([len(part) for part in parts], dtype=np.int64)

    def __del__(self) -> None:
        for coder in getattr(self, "_idle", ()):
            self._kernel.bpe_coder_close(coder)
        if hasattr(self, "_model"):
            self._kernel.bpe_model_close(self._model)


def _made(address: int | None) -> int:
    if not address:
        raise MemoryError
    return address


def _known_normalizer(described: dict[str, Any]) -> bool:
    """Whether text is normalised (NFC) first."""
    normalizer = described["normalizer"]
    if normalizer is None:
        return False
    if normalizer == {"type": "NFC"}:
        return True
    raise ValueError(f"the normalizer {normalizer.get('type')} is unknown to the fast encoder")


def _known_split(pre_tokenizer: dict[str, Any] | None) -> int:
    steps = (pre_tokenizer or {}).get("pretokenizers") or [pre_tokenizer]
    bytes_step = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    if len(steps) == 2 and steps[0] and steps[1]:
        split, level = steps
        pattern = (split.get("pattern") or {}).get("Regex")
        plain = split.get("type") == "Split" and split.get("behavior") == "Isolated" and not split.get("invert")
        if plain and pattern in SPLITS and {key: level.get(key) for key in bytes_step} == bytes_step:
            return SPLITS[pattern]
    raise ValueError("its way of splitting text is unknown to the fast encoder")


def _known_model(model: dict[str, Any]) -> None:
    if model.get("type") != "BPE":
        raise ValueError(f"it is {model.get('type')}, not BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise ValueError(f"its {key} is unknown to the fast encoder")
