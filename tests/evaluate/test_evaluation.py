"""The whole evaluation on a small world: figures equal to slow truths whatever the batch, and faults it catches."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_world import EVALUATION, Shelf, evaluation_parents, stories

from wuxing.core.artifact import Artifact
from wuxing.core.error import Interrupted, WuxingError
from wuxing.core.file import read_json, read_lines
from wuxing.core.record import Record
from wuxing.core.statistic import wilson
from wuxing.evaluate.evaluation_kind import EvaluationKind
from wuxing.evaluate.subject import Sampling, Score, Subject, windows
from wuxing.task.task import load_task

Made = dict[str, Artifact]


def evaluate(shelf: Shelf, made: Made, **changes: Any) -> Artifact:
    return shelf.make(EvaluationKind(), "scores", {**EVALUATION, **changes}, evaluation_parents(made))


def slow_nats(network: Any, prompt: list[int], ids: list[int]) -> float:
    """One document alone, one plain forward pass."""
    with torch.inference_mode():
        logprobs = network(torch.tensor([prompt + ids])).log_softmax(-1)[0]
    return -sum(float(logprobs[len(prompt) - 1 + place, token]) for place, token in enumerate(ids))


@pytest.fixture
def scores(shelf: Shelf, lived: Made) -> Artifact:
    return evaluate(shelf, lived)


def test_figures_equal_slow_truths_and_every_sample_is_kept(
    scores: Artifact, lived: Made, networks: Any, tokenizer: Any, world: Any
) -> None:
    assert scores.failures == []
    results = read_json(scores.path / "results.json")
    texts = {record.id: record.text for record in world["test"]}
    task = load_task(lived["arithmetic"].path)
    for name in ("early", "late"):
        rows = read_lines(scores.path / f"samples/{name}--articles.jsonl")
        nats = {
            row["id"]: slow_nats(networks[name], [tokenizer.end_of_text_id], tokenizer.encode(texts[row["id"]]))
            for row in rows
        }
        assert all(row["nats"] == pytest.approx(nats[row["id"]], abs=1e-3) for row in rows)
        size = sum(len(texts[id].encode()) for id in nats)
        metrics = results["models"][name]["metrics"]
        assert metrics["bits_per_byte/articles"]["value"] == pytest.approx(
            sum(nats.values()) / math.log(2) / size, rel=1e-5
        )
        replies = read_lines(scores.path / f"samples/{name}--arithmetic.jsonl")
        examples = {example.id: example for example in task.examples("test")}
        right = sum(task.score(examples[row["id"]], row["reply"])["correct"] for row in replies)
        assert metrics["accuracy/arithmetic"] == wilson(int(right), 20).to_json()
        assert [row["answer"] for row in replies] == [examples[row["id"]].answer for row in replies]
    assert metrics["bits_per_byte/articles"]["n"] == 30 and len(rows) == 30
    difference = results["comparisons"][0]
    assert difference["metric"] == "bits_per_byte/articles" and difference["high"] < 0 and difference["p"] < 0.01


def test_greedy_replies_equal_a_slow_loop(networks: Any, tokenizer: Any, shelf: Shelf, lived: Made) -> None:
    prompts = [[{"role": "user", "content": f"What is {n} + {n % 3}?"}] for n in range(7)]
    subject = Subject.load("late", lived["late"], shelf.context, 4)
    for prompt, said in zip(prompts, subject.ask(prompts, Sampling(6), 0), strict=True):
        ids, total = tokenizer.encode_chat(prompt), 0.0
        start = len(ids)
        for _ in range(6):
            with torch.inference_mode():
                logprobs = networks["late"](torch.tensor([ids])).log_softmax(-1)[0, -1]
            token = int(logprobs.argmax())
            total += float(logprobs[token])
            ids.append(token)
            if token in subject.stop_tokens:
                break
        assert said.text == tokenizer.decode(ids[start:])
        assert said.mean_logprob == pytest.approx(total / (len(ids) - start), abs=1e-4)
        assert (said.prompt_tokens, said.reply_tokens) == (start, len(ids) - start)


def test_results_do_not_depend_on_how_many_rows_run_at_once(shelf: Shelf, lived: Made) -> None:
    one, many = evaluate(shelf, lived, rows=1), evaluate(shelf, lived, rows=13)
    for name in ("early", "late"):
        for rows in zip(*(read_lines(e.path / f"samples/{name}--arithmetic.jsonl") for e in (one, many)), strict=True):
            assert rows[0]["reply"] == rows[1]["reply"]
            assert rows[0]["mean_logprob"] == pytest.approx(rows[1]["mean_logprob"], abs=1e-4)
    signals = [read_json(e.path / "reference.json")["late"]["signals"] for e in (one, many)]
    assert signals[0]["reply_tokens"] == signals[1]["reply_tokens"]
    assert signals[0]["mean_logprob"] == pytest.approx(signals[1]["mean_logprob"], abs=1e-4)
    figures = [read_json(e.path / "results.json")["models"]["late"]["metrics"] for e in (one, many)]
    assert figures[0]["accuracy/arithmetic"] == figures[1]["accuracy/arithmetic"]


def test_equal_evaluations_give_equal_bytes(shelf: Shelf, lived: Made) -> None:
    assert evaluate(shelf, lived).content == evaluate(shelf, lived).content


def test_reference_window_is_measured_as_it_is_served(scores: Artifact) -> None:
    reference = read_json(scores.path / "reference.json")
    assert set(reference) == {"early", "late"}
    signals = reference["late"]["signals"]
    assert {len(values) for values in signals.values()} == {10}
    assert all(1 <= n <= 8 for n in signals["reply_tokens"]) and all(p < 0 for p in signals["mean_logprob"])
    assert reference["late"]["settings"]["temperature"] == 1.0


@pytest.mark.parametrize("length", [1, 2, 10, 11, 12, 30, 57])
@pytest.mark.parametrize("prompt", [1, 3, 14])
def test_windows_predict_every_id_exactly_once_with_what_stands_before_it(length: int, prompt: int) -> None:
    before, ids = list(range(-prompt, 0)), list(range(length))
    pairs = windows(before, ids, 12)
    assert [token for _, tokens in pairs for token in tokens] == ids
    everything = before + ids
    for context, tokens in pairs:
        assert context and len(context) + len(tokens) <= 12
        end = everything.index(tokens[0])
        assert context == everything[end - len(context) : end]
        assert len(context) >= 6 or len(context) == end, "half a window of context, or all there is"


def test_texts_longer_than_the_model_are_scored_whole(shelf: Shelf, lived: Made, tokenizer: Any) -> None:
    text = " ".join(record.text or "" for record in stories(20, "long"))
    subject = Subject.load("late", lived["late"], shelf.context, 4)
    assert len(tokenizer.encode(text)) > 3 * subject.max_positions
    [score] = subject.score([Record("long", "x", text)])
    assert score.tokens == len(tokenizer.encode(text)) and score.bytes == len(text.encode())
    assert score.nats / math.log(2) / score.bytes < 1.0


def test_only_what_the_assistant_says_is_counted_of_a_dialogue(
    shelf: Shelf, lived: Made, networks: Any, tokenizer: Any
) -> None:
    messages = [
        {"role": "user", "content": "Where does Anna live?"},
        {"role": "assistant", "content": "In Oslo."},
        {"role": "user", "content": "And Boris?"},
        {"role": "assistant", "content": "He lives in Vienna."},
    ]
    subject = Subject.load("late", lived["late"], shelf.context, 4)
    [score] = subject.score([Record("talk", "x", None, messages)])
    nats = sum(
        slow_nats(networks["late"], tokenizer.encode_chat(messages[:turn]), tokenizer.encode(messages[turn]["content"]))
        for turn in (1, 3)
    )
    assert score.nats == pytest.approx(nats, abs=1e-3)
    assert score.bytes == len("In Oslo.He lives in Vienna.")


def test_prompts_without_room_for_a_reply_count_as_wrong_and_are_named(shelf: Shelf, lived: Made) -> None:
    subject = Subject.load("late", lived["late"], shelf.context, 4)
    long, short = ([{"role": "user", "content": text}] for text in ("too long " * 200, "What is 1 + 1?"))
    said = subject.ask([long, short, long], Sampling(4), 0)
    assert [one.finish for one in said] == ["too_long", "length", "too_long"] and said[0].mean_logprob is None


# ------------------------------------------------------------------------------------------------ seeded faults
def leak(shelf: Shelf, lived: Made, world: Any) -> Made:
    """A model further trained on a corpus that holds one test document."""
    mixed = shelf.corpus("mixed", {"train": [*stories(5, "other"), world["test"][3]]})
    tokens = shelf.sign(shelf.draft("tokens", "mixed.bpe"), {"data": mixed})
    late = lived["late"]
    record = {**late.record, "parents": {**late.record["parents"], "data.mixed": {"id": tokens.id, "content": "x"}}}
    return {**lived, "late": Artifact(late.path, record)}


def test_a_training_row_in_the_evaluation_set_is_caught(shelf: Shelf, lived: Made, world: Any) -> None:
    found = evaluate(shelf, leak(shelf, lived, world), documents=40)
    assert len(found.failures) == 1 and found.failures[0].startswith("overlap is 1, asked for 0")
    assert world["test"][3].id in found.failures[0]
    matches = read_json(found.path / "overlap.json")
    assert matches["early"] == []
    assert [(m["set"], m["item"], m["data"], m["how"]) for m in matches["late"]] == [
        ("articles", world["test"][3].id, "corpus/mixed@v1", "exact")
    ]


def test_leaked_items_can_be_left_out(shelf: Shelf, lived: Made, world: Any) -> None:
    found = evaluate(shelf, leak(shelf, lived, world), documents=40, overlap={"exact": "remove"})
    assert found.failures == []
    rows = read_lines(found.path / "samples/late--articles.jsonl")
    assert len(rows) == 39 and world["test"][3].id not in {row["id"] for row in rows}
    assert read_json(found.path / "results.json")["overlap"]["leaked"] == 1


def test_a_model_whose_data_are_unknown_is_not_called_clean(shelf: Shelf, lived: Made) -> None:
    (lived["articles"].path / "record.json").unlink()
    parents = {role: artifact for role, artifact in evaluation_parents(lived).items() if role != "corpus"}
    config = {key: value for key, value in EVALUATION.items() if key != "corpus"}
    found = shelf.make(EvaluationKind(), "scores", config, parents)
    assert len(found.failures) == 1 and "corpus/articles@v1 are not in the store" in found.failures[0]


def test_a_verifier_that_always_says_yes_is_caught(shelf: Shelf, lived: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from wuxing.task.arithmetic import ArithmeticStep

    monkeypatch.setattr(ArithmeticStep, "score", lambda self, example, reply: {"correct": 1.0})
    [failure] = evaluate(shelf, lived).failures
    assert failure.startswith("metrics_react is ['accuracy/arithmetic']")


def test_bits_that_do_not_react_are_caught(shelf: Shelf, lived: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(self: Subject, records: Any, group: int = 64) -> Iterator[Score]:
        for record in records:
            yield Score(record.id, len(record.text) * 0.5, 10, len(record.text.encode()))

    monkeypatch.setattr(Subject, "score", constant)
    [failure] = evaluate(shelf, lived).failures
    assert failure.startswith("metrics_react is ['bits_per_byte']")


def test_a_scorer_that_is_off_by_one_token_is_caught(
    shelf: Shelf, lived: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wuxing.generate.engine import Engine

    plain = Engine.score

    def shifted(self: Engine, pairs: list[tuple[list[int], list[int]]]) -> list[list[float]]:
        return [[*scores[1:], scores[0]] for scores in plain(self, pairs)]

    monkeypatch.setattr(Engine, "score", shifted)
    [failure] = evaluate(shelf, lived).failures
    assert failure.startswith("scorer_exact")


def test_a_stop_is_obeyed_between_replies(shelf: Shelf, lived: Made) -> None:
    shelf.context.stop.request()
    with pytest.raises(Interrupted):
        evaluate(shelf, lived)


def test_a_test_split_without_items_is_named_before_anything_is_asked(shelf: Shelf, lived: Made, world: Any) -> None:
    empty = shelf.corpus("articles", {"train": world["train"], "test": [Record("blank", "x", "")]})
    with pytest.raises(WuxingError, match="the test split of corpus/articles@v2 has no item"):
        shelf.make(EvaluationKind(), "scores", EVALUATION, {**evaluation_parents(lived), "corpus": empty})


def test_two_versions_of_one_name_are_told_apart(shelf: Shelf, lived: Made, networks: Any, tokenizer: Any) -> None:
    newer = shelf.model("early", networks["late"], tokenizer, {"data.articles": lived["articles"]})
    parents = {**evaluation_parents(lived), "models.1": newer}
    found = shelf.make(EvaluationKind(), "scores", {**EVALUATION, "models": ["early@v1", "early@v2"]}, parents)
    assert set(read_json(found.path / "results.json")["models"]) == {"early@v1", "early@v2"}
    assert (found.path / "samples/early@v2--arithmetic.jsonl").exists()
    json.dumps(read_json(found.path / "reference.json"), allow_nan=False)
