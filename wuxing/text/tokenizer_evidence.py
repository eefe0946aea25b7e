"""The checks of a saved tokenizer: nothing is lost, and every encoder that will meet its files gives the same ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wuxing.core.evidence import Evidence
from wuxing.text.reference import ReferenceEncoder
from wuxing.text.tokenizer import PROBE, Tokenizer

REFERENCE_CHARACTERS = 300_000
SPELLED = "<|im_start|>user\n<|im_end|><|endoftext|>"
CONVERSATIONS = (
    [{"role": "user", "content": "What is 12 + 30?"}],
    [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "你好！\n\n Who are you?"},
        {"role": "assistant", "content": "  I am a model.\n"},
        {"role": "user", "content": "  spaced  "},
    ],
)


def examine(directory: Path, held_out: Mapping[str, Sequence[str]], evidence: Evidence) -> None:
    """Judge the tokenizer in `directory` on held-out texts by language."""
    tokenizer = Tokenizer.load(directory)
    texts = {"odd": (*PROBE, SPELLED), **held_out}
    _judge_round_trip(tokenizer, texts, evidence)
    _judge_bytes(tokenizer, evidence)
    _judge_reference(tokenizer, texts, evidence)
    _judge_template(tokenizer, directory, evidence)
    _judge_special_text(tokenizer, evidence)


def _judge_round_trip(tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]], evidence: Evidence) -> None:
    lost: dict[str, int] = {}
    rates: dict[str, float] = {}
    all_bytes, all_tokens = 0, 0
    for language, group in texts.items():
        encoded = tokenizer.encode_batch(group)
        lost[language] = sum(tokenizer.decode(ids) != text for ids, text in zip(encoded, group, strict=True))
        size, tokens = sum(len(text.encode()) for text in group), sum(map(len, encoded))
        if language != "odd" and tokens:
            rates[language] = round(size / tokens, 3)
            all_bytes, all_tokens = all_bytes + size, all_tokens + tokens
    rates["all"] = round(all_bytes / max(1, all_tokens), 3)
    evidence.judge("round_trip", not any(lost.values()), lost, 0, "held-out texts that decode to something else")
    evidence.measure("bytes_per_token", rates, "on held-out text, by language")


def _judge_bytes(tokenizer: Tokenizer, evidence: Evidence) -> None:
    """Each of the 256 bytes has an id of its own, and ids give exactly the bytes back."""
    of_byte = {value: number for number, value in enumerate(tokenizer.token_bytes) if len(value) == 1}
    back = [byte for byte in range(256) if bytes([byte]) in of_byte]
    ids = [of_byte[bytes([byte])] for byte in back]
    whole = tokenizer.bytes_of(ids) == bytes(range(256))
    evidence.judge("all_bytes", whole, len(back), 256, "bytes that have an id and come back from it")


def _judge_reference(tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]], evidence: Evidence) -> None:
    sample = list(_sample(texts))
    reference = ReferenceEncoder(tokenizer)
    batch = tokenizer.encode_batch(sample)
    wrong = sum(
        not reference.encode(text) == tokenizer.encode(text) == ids for text, ids in zip(sample, batch, strict=True)
    )
    encoder = "the library" if isinstance(tokenizer.fast, str) else "the fast encoder"
    note = f"of {len(sample)} texts that {encoder}, the library or the definition encodes differently"
    evidence.judge("reference_encoder", not wrong, wrong, 0, note)


def _sample(texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Some of every language, in turn, up to a bound."""
    room = REFERENCE_CHARACTERS // max(1, len(texts))
    for group in texts.values():
        left = room
        for text in group:
            if left <= 0:
                break
            yield text[:left]
            left -= len(text)


def _judge_special_text(tokenizer: Tokenizer, evidence: Evidence) -> None:
    """Who writes a special token gets its letters: in plain text, and in what a user says."""
    whole = set(tokenizer.backend.get_added_tokens_decoder())
    parsed = len(set(tokenizer.encode(SPELLED)) & whole)
    harmless, hostile = ([{"role": "user", "content": text}] for text in ("x", SPELLED))
    counts = [sum(i in whole for i in tokenizer.encode_chat(said)) for said in (harmless, hostile)]
    parsed += counts[1] - counts[0]
    evidence.judge("special_text", not parsed, parsed, 0, "special ids that a text made by spelling them")


def _judge_template(tokenizer: Tokenizer, directory: Path, evidence: Evidence) -> None:
    """transformers loads the files, and gives the same ids for texts and for conversations."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    wrong = []
    for number, messages in enumerate(CONVERSATIONS):
        for prompted in (True, False):
            expected = theirs.apply_chat_template(messages, add_generation_prompt=prompted, return_dict=False)
            if list(expected) != tokenizer.encode_chat(messages, prompted):
                wrong.append(f"conversation {number}")
    plain = [text for text in PROBE if "<|" not in text]
    wrong += [repr(text) for text in plain if theirs(text)["input_ids"] != tokenizer.encode(text)]
    evidence.judge("chat_template", not wrong, wrong, [], "what transformers encodes differently")
