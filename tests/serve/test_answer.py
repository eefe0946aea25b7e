"""Tokens to text: stop texts however the text is cut, whole characters only, log-probabilities beside."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.artifact import Artifact
from wuxing.generate.engine import Event
from wuxing.serve.answer import Answer, StopText
from wuxing.serve.error import ApiError
from wuxing.text.tokenizer import Tokenizer

letters = st.text("ab", min_size=0, max_size=30)


def cut(text: str, seed: int) -> list[str]:
    random, pieces = Random(seed), []
    while text:
        size = random.randint(1, 4)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def slow_truth(text: str, stops: list[str]) -> tuple[str, bool]:
    """Letter by letter: the first moment at which the text ends with a stop."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(len(stop) for stop in ending)], True
    return text, False


@settings(max_examples=400, deadline=None)
@given(letters, st.lists(st.text("ab", min_size=1, max_size=5), max_size=4), st.integers(0, 9))
def test_stop_text_does_not_depend_on_the_cut(text: str, stops: list[str], seed: int) -> None:
    stop, out = StopText(stops), ""
    for piece in cut(text, seed):
        out += stop.push(piece)
        assert not any(s in out for s in stops)
    found = stop.found
    out += stop.flush()
    assert (out, found) == slow_truth(text, stops)


def test_nothing_is_held_back_longer_than_needed() -> None:
    stop = StopText(["END"])
    assert [stop.push(piece) for piece in ("a", "E", "b", "EN", "E", "ND", "more")] == ["a", "", "Eb", "", "EN", "", ""]
    assert stop.found and stop.flush() == ""


@pytest.fixture(scope="module")
def tokenizer(release: Artifact) -> Tokenizer:
    return Tokenizer.load(release.path / "model")


def push_all(answer: Answer, ids: list[int], finish: str) -> list[str]:
    texts = []
    for place, token in enumerate(ids):
        last = place == len(ids) - 1
        texts.append(answer.push(Event("x", token, -0.5, finish if last else None)).text)  # type: ignore[arg-type]
    return texts


def test_every_piece_is_whole_characters_and_they_join_to_decode(tokenizer: Tokenizer) -> None:
    text = "héllo 😀 你好 — naïve 𝄞"
    ids = tokenizer.encode(text)
    answer = Answer(tokenizer, [], (tokenizer.end_of_turn_id,))
    pieces = push_all(answer, [*ids, tokenizer.end_of_turn_id], "stop")
    assert "".join(pieces) == answer.text == text
    assert not any("�" in piece for piece in pieces)
    assert len(answer.logprobs) == len(ids) + 1


def test_an_answer_cut_inside_a_character_says_so(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.token_bytes.index(bytes([byte])) for byte in "𝄞".encode()[:3]]
    answer = Answer(tokenizer, [], ())
    push_all(answer, ids, "length")
    assert answer.text == "�" and answer.finish == "length"


def test_a_stop_text_ends_the_answer_before_the_model_does(tokenizer: Tokenizer) -> None:
    answer = Answer(tokenizer, ["two"], ())
    ids = tokenizer.encode("one two three")
    finished = [piece.finish for token in ids if (piece := answer.push(Event("x", token, -0.1, None))).finish]
    assert finished[0] == "stop" and answer.text == "one "


def test_held_back_text_comes_out_at_the_end(tokenizer: Tokenizer) -> None:
    answer = Answer(tokenizer, ["three!"], ())
    push_all(answer, tokenizer.encode("one two three"), "length")
    assert answer.text == "one two three" and answer.finish == "length"


def test_a_model_that_is_not_finite_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ApiError, match="not finite"):
        Answer(tokenizer, [], ()).push(Event("x", 5, float("nan"), None))
