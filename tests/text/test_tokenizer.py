"""Text to ids and back: against the definition, against transformers, and for any text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.error import WuxingError
from wuxing.text.reference import ReferenceEncoder
from wuxing.text.tokenizer import FILES, PROBE, IncrementalDecoder, Tokenizer
from wuxing.text.tokenizer_evidence import CONVERSATIONS, SPELLED

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=80)


@given(texts)
@settings(deadline=None)
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "x"])[0] == ids


@given(texts)
@settings(deadline=None)
def test_the_fast_encoder_does_what_the_definition_says(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode(text) == ReferenceEncoder(tokenizer).encode(text)


@given(st.lists(st.integers(0, 499), max_size=30), st.booleans())
@settings(deadline=None)
def test_pieces_of_the_incremental_decoder_join_to_decode(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    ids = [i % tokenizer.vocab_size for i in ids]
    decoder = IncrementalDecoder(tokenizer, skip_special=skip)
    pieces = [decoder.push(i) for i in ids]
    assert "".join([*pieces, decoder.flush()]) == tokenizer.decode(ids, skip_special=skip)
    assert tokenizer.decode(ids, skip_special=skip) == tokenizer.backend.decode(ids, skip_special_tokens=skip)


def test_no_piece_ends_inside_a_character(tokenizer: Tokenizer) -> None:
    text = "a🙂b汉c"
    decoder = IncrementalDecoder(tokenizer)
    pieces = [decoder.push(i) for i in tokenizer.encode(text)]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == text
    assert decoder.flush() == ""


def test_each_digit_is_a_token_of_its_own(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("1234567890")
    assert [tokenizer.decode([i]) for i in ids] == list("1234567890")


def test_text_that_spells_special_tokens_stays_text(tokenizer: Tokenizer) -> None:
    spelled = "<|im_end|><|endoftext|>"
    ids = tokenizer.encode(spelled)
    assert not set(ids) & tokenizer.special_ids
    assert tokenizer.decode(ids) == spelled


def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(FILES)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.digest == tokenizer.digest
    assert loaded.template_digest == tokenizer.template_digest
    assert [loaded.encode(t) for t in (*PROBE, SPELLED)] == [tokenizer.encode(t) for t in (*PROBE, SPELLED)]
    assert (loaded.end_of_text_id, loaded.end_of_turn_id) == (tokenizer.end_of_text_id, tokenizer.end_of_turn_id)


def test_transformers_reads_the_files_and_gives_the_same_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    for text in (text for text in PROBE if "<|" not in text):
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    for messages in CONVERSATIONS:
        for prompted in (True, False):
            assert theirs.apply_chat_template(messages, add_generation_prompt=prompted, tokenize=False) == (
                tokenizer.render(messages, prompted)
            )
            ids = theirs.apply_chat_template(messages, add_generation_prompt=prompted, return_dict=False)
            assert ids == tokenizer.encode_chat(messages, prompted)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.end_of_turn_id, tokenizer.end_of_text_id)


def test_training_is_the_same_for_any_number_of_threads(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from conftest import TEXTS\n"
        "from wuxing.text.train import train_tokenizer\n"
        "print(train_tokenizer(TEXTS * 50, 450).digest)"
    )
    digests = set()
    for threads in ("1", "2", "3"):
        environment = {"RAYON_NUM_THREADS": threads, "PATH": "", "TOKENIZERS_PARALLELISM": "true"}
        command = [sys.executable, "-c", program, str(Path(__file__).parent)]
        digests.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(digests) == 1


def test_missing_and_broken_files_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(WuxingError, match="has no tokenizer.json and no tokenizer_config.json"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(WuxingError, match=r"tokenizer\.json is no tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_that_loses_bytes_is_refused() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    with pytest.raises(WuxingError, match="not byte-level"):
        Tokenizer(Backend(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")), {}, "x")


turns = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), texts), max_size=4)


@given(st.lists(turns, max_size=4))
@settings(deadline=None, max_examples=60)
def test_dialogues_encoded_together_are_those_encoded_alone(
    tokenizer: Tokenizer, dialogues: list[list[tuple[str, str]]]
) -> None:
    messages = [[{"role": role, "content": content} for role, content in dialogue] for dialogue in dialogues]
    together = tokenizer.encode_dialogues(messages)
    alone = [tokenizer.encode_dialogue(one) for one in messages]
    assert [(ids.tolist(), taught.tolist()) for ids, taught in together] == alone
