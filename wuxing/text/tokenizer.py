"""Tokenizers: text to ids and back, and conversations to ids through the chat template.

One tokenizer is three files that transformers reads too: `tokenizer.json`, `tokenizer_config.json` and
`chat_template.jinja`.  Only byte-level ones are read: they lose no byte of any text.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wuxing.core.digest import digest_of
from wuxing.core.error import UsageError, WuxingError, nearest
from wuxing.core.file import read_json, write_json, write_text
from wuxing.text.template import ChatTemplate, Message

if TYPE_CHECKING:
    import pyarrow
    import tokenizers

    from wuxing.text.bpe import BpeEncoder

END_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
MASK = "<|mask|>"
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
PROBE = (
    "",
    " ",
    "\n\n \t x  y\r\n",
    "12345 + 67890 = 80235, 3.14 ½ ٣٤",
    "I'm we'll THEY'RE it's 'ſ 'tis",
    "naïve café Ångström \u0065\u0301",
    "汉字、漢字，かな カナ 한국어。学而时习之，不亦说乎？",
    "עברית العربية हिन्दी ไทย",
    "🙂👩‍👩‍👧‍👦🇨🇳 \U00010348",
    "def f(x):\n    return {'a': [x**2]}  # ok\n",
    "\u00a0\u2009\u3000|\u200b|\ufeff|\u0000|\x7f",
    "<|im_start|>user\n<|im_end|><|endoftext|> <think></think>",
    "The quick brown fox jumps over the lazy dog, " * 3 + "ab" * 100,
)
"""What trips encoders: space, digits, contractions, scripts, emoji, control characters, special tokens, long words."""


class Tokenizer:
    """Text to ids and back.  Raises WuxingError for a tokenizer that is not byte-level."""

    def __init__(self, backend: tokenizers.Tokenizer, config: dict[str, Any], template: str):
        self.backend = backend
        self.config = config
        self.template = ChatTemplate(template, tuple(self._special_tokens), _variables(config))
        if type(backend.decoder).__name__ != "ByteLevel":
            raise WuxingError("This tokenizer is not byte-level", "Use a byte-level BPE tokenizer (Qwen, Llama 3, GPT)")
        self.backend.encode_special_tokens = True

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read the three files from a tokenizer, model or release directory."""
        import tokenizers

        missing = [name for name in FILES if not (directory / name).is_file()]
        if missing:
            raise WuxingError(f"{directory} has no {' and no '.join(missing)}", "Give the directory of a tokenizer")
        try:
            backend = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise WuxingError(f"{directory / 'tokenizer.json'} is no tokenizer: {error}", None) from error
        template = (directory / "chat_template.jinja").read_text(encoding="utf-8")
        return cls(backend, read_json(directory / "tokenizer_config.json"), template)

    def save(self, directory: Path) -> None:
        """Write the three files; loading them gives an equal tokenizer."""
        write_text(directory / "tokenizer.json", self.backend.to_str(pretty=True))
        write_json(directory / "tokenizer_config.json", self.config)
        write_text(directory / "chat_template.jinja", self.template.source)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @cached_property
    def _special_tokens(self) -> dict[str, int]:
        added = self.backend.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no text."""
        return frozenset(self._special_tokens.values())

    def token_id(self, token: str) -> int | None:
        """The id of a token by its spelling in the vocabulary."""
        number = self.backend.token_to_id(token)
        return None if number is None else int(number)

    def _named(self, token: str, role: str) -> int:
        for name in (token, self.config.get(role)):
            name = name["content"] if isinstance(name, dict) else name
            if name and (number := self.token_id(name)) is not None:
                return number
        raise WuxingError(f"The tokenizer has no {token} and its config names no {role}", "Add one of the two")

    @cached_property
    def end_of_text_id(self) -> int:
        """`<|endoftext|>`: the end of a document; also used as padding."""
        return self._named(END_OF_TEXT, "eos_token")

    @cached_property
    def end_of_turn_id(self) -> int:
        """`<|im_end|>`: the end of what one speaker says."""
        return self._named(END_OF_TURN, "eos_token")

    def mask_id(self, token: str | None = None) -> int:
        """The id that stands where a token is to be guessed: `mask_token` of its config, or the one that is named.

        Raises UsageError where there is none, and for one that stands for text or ends it.
        """
        named = token or self.config.get("mask_token")
        name = named["content"] if isinstance(named, dict) else named
        ends = {self.end_of_text_id, self.end_of_turn_id}
        spare = sorted(t for t, number in self._special_tokens.items() if number not in ends and t != START_OF_TURN)
        if not name:
            free = (
                f", or name one of its special tokens in objective: {{masked: {{token: {spare[0]!r}}}}}"
                if spare
                else ""
            )
            raise UsageError("the tokenizer has no mask token", f"Make it with mask_token: true{free}")
        if name not in spare:
            known = nearest(name, spare) if spare else "It has none to spare: make one with mask_token: true"
            raise UsageError(f'"{name}" is no special token that could stand for a masked one', known)
        return self._special_tokens[name]

    @property
    def pre_tokenizer(self) -> str:
        """llama.cpp's name for the way in which text is split before the merges; empty when unknown."""
        return str(self.config.get("pre_tokenizer", ""))

    @property
    def template_digest(self) -> str:
        """SHA-256 of the chat template."""
        return hashlib.sha256(self.template.source.encode()).hexdigest()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what decides the ids: vocabulary, merges, splitting, config and chat template."""
        return digest_of([self.backend.to_str(), self.config, self.template.source])

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: what looks like a special token in it is spelled out, never parsed."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    @cached_property
    def fast(self) -> BpeEncoder | str:
        """The fast encoder, which gave the backend's ids for `PROBE`; or one line that says why there is none."""
        from wuxing.text.bpe import BpeEncoder

        try:
            made = BpeEncoder(self.backend)
        except ValueError as error:
            return str(error)
        expected = [self.encode(text) for text in PROBE]
        ids, ends = made.encode(PROBE)
        found = [part.tolist() for part in np.split(ids, ends[:-1])]
        wrong = [text for text, one, other in zip(PROBE, expected, found, strict=True) if one != other]
        return f"its ids differ from the library's, first for {wrong[0]!r}" if wrong else made

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts, fast."""
        ids, ends = self.encode_flat(texts)
        flat, start, lists = ids.tolist(), 0, []
        for end in ends.tolist():
            lists.append(flat[start:end])
            start = end
        return lists

    def encode_flat(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids of many texts, all in a row, and where each text's end."""
        if isinstance(self.fast, str):
            encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
            parts = [np.array(encoding.ids, np.uint32) for encoding in encodings]
            ids = np.concatenate([np.empty(0, np.uint32), *parts])
            return ids, np.cumsum([len(part) for part in parts], dtype=np.int64)
        return self.fast.encode(texts)

    def encode_arrow(self, texts: pyarrow.Array) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """`encode_flat` of an Arrow string array without nulls; its buffer is read where it is."""
        from wuxing.text.bpe import flat_of

        if isinstance(self.fast, str) or self.fast.looks_first:
            return self.encode_flat(texts.to_pylist())
        return self.fast.encode_flat(*flat_of(texts))

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each id (of a special token: its spelling)."""
        alphabet = {character: value for value, character in enumerate(byte_alphabet())}
        added = {number: token.content for number, token in self.backend.get_added_tokens_decoder().items()}
        spellings = {number: token for token, number in self.backend.get_vocab(with_added_tokens=True).items()}
        table = [b""] * (max(spellings) + 1)
        for number, spelling in spellings.items():
            if number in added:
                table[number] = added[number].encode()
            else:
                table[number] = bytes(alphabet[character] for character in spelling)
        return table

    def bytes_of(self, ids: Iterable[int], skip_special: bool = True) -> bytes:
        """The bytes that ids stand for."""
        table, special = self.token_bytes, self.special_ids if skip_special else frozenset()
        return b"".join(table[number] for number in ids if number not in special)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD."""
        return self.bytes_of(ids, skip_special).decode("utf-8", errors="replace")

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The conversation as the chat template writes it."""
        return self.template.render(messages, add_generation_prompt)

    def encode_chat(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
        """Ids of a conversation, equal to transformers' `apply_chat_template` for content without special tokens.

        Content that spells a special token stays text: nobody ends a turn by typing `<|im_end|>`.
        """
        return self._encode_pieces(messages, add_generation_prompt, teach=False)[0]

    def encode_dialogue(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Ids of a whole conversation, and which of them are taught: what the assistant says and its end of turn."""
        return self._encode_pieces(messages, False, teach=True)

    def encode_dialogues(
        self, dialogues: Sequence[Sequence[Message]]
    ) -> list[tuple[NDArray[np.uint32], NDArray[np.bool_]]]:
        """`encode_dialogue` of many, their pieces encoded together."""
        pieces = [self.template.pieces(messages, False, True) for messages in dialogues]
        ids, ends = self.encode_flat([piece.text for group in pieces for piece in group if not piece.special])
        ranges = iter(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=False))
        made = []
        for group in pieces:
            parts = [
                np.array([self._special_tokens[piece.text]], np.uint32) if piece.special else ids[slice(*next(ranges))]
                for piece in group
            ]
            taught = [np.full(len(part), piece.taught) for part, piece in zip(parts, group, strict=True)]
            empty = np.empty(0, np.uint32), np.empty(0, bool)
            made.append((np.concatenate([empty[0], *parts]), np.concatenate([empty[1], *taught])))
        return made

    def normal(self, text: str) -> str:
        """The text as the tokenizer sees it: what its ids decode to."""
        normalizer = self.backend.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _encode_pieces(
        self, messages: Sequence[Message], add_generation_prompt: bool, teach: bool
    ) -> tuple[list[int], list[bool]]:
        pieces = self.template.pieces(messages, add_generation_prompt, teach)
        ids: list[int] = []
        taught: list[bool] = []
        for piece in pieces:
            new = [self._special_tokens[piece.text]] if piece.special else self.encode(piece.text)
            ids += new
            taught += [piece.taught] * len(new)
        return ids, taught


class IncrementalDecoder:
    """Text of ids that come one by one, only as far as its characters are finished; the pieces join to `decode`."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True):
        self._table = tokenizer.token_bytes
        self._skipped = tokenizer.special_ids if skip_special else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """The characters that this id finishes."""
        return "" if id in self._skipped else self._decoder.decode(self._table[id])

    def flush(self) -> str:
        """What remains at the end: U+FFFD for an unfinished character."""
        return self._decoder.decode(b"", final=True)


def byte_alphabet() -> list[str]:
    """The visible character that stands for each byte in the vocabulary of a byte-level BPE (GPT-2's table)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    table = {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    return [table[byte] for byte in range(256)]


def _variables(config: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    named = {name: config.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    texts = {name: token["content"] if isinstance(token, dict) else token for name, token in named.items()}
    return tuple((name, token) for name, token in texts.items() if token)
