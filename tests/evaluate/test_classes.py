"""Classifiers and encoders under evaluation: figures equal to slow truths, and baselines and trials that can fail."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support
from small_world import PEOPLE, Shelf, stories

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.file import read_json, read_lines, write_json
from wuxing.core.record import Record
from wuxing.evaluate.calibration import by_chance, calibration_error, calibration_estimate
from wuxing.evaluate.classes import Named, class_baselines, try_classes
from wuxing.evaluate.compare import compare
from wuxing.evaluate.evaluation_kind import EvaluationKind
from wuxing.evaluate.filling import EncoderSubject
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.classifier import new_classifier
from wuxing.model.encoder import Encoder, encoder_config

KINDS = {"bread": "baker", "paint": "painter", "sea": "sailor"}


def told(count: int, seed: str) -> list[Record]:
    """Short texts about trades; one class is commoner than the others, and a tenth of the labels are wrong."""
    random, found = Random(seed), []
    for number in range(count):
        kind = random.choice(["bread", "bread", "paint", "sea"])
        text = f"{random.choice(PEOPLE)} the {KINDS[kind]} met {random.choice(PEOPLE)} {number} times."
        text += " They talked for a long while." * random.choice([0, 0, 1, 2])
        found.append(Record(f"{seed}-{number}", "trades", text, meta={"kind": random.choice([*[kind] * 18, "sea"])}))
    return found


def learnt(tokenizer: Any, records: list[Record], steps: int) -> Any:
    architecture = Architecture(size="100k", width=64, layers=2, heads=2, kv_heads=1, max_positions=128)
    network = new_classifier(resolve(architecture, tokenizer.vocab_size), sorted(KINDS), 3)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for step in range(steps):
        loss = torch.zeros(())
        for place in range(16):
            record = records[(step * 16 + place) % len(records)]
            hidden = network.hidden(torch.tensor([tokenizer.encode(record.text)]))[0, -1]
            label = torch.tensor(sorted(KINDS).index(record.meta["kind"]))
            loss = loss + torch.nn.functional.cross_entropy(hidden @ network.head_VD.T, label)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return network


@pytest.fixture(scope="module")
def namers(tokenizer: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    train = told(300, "train")
    return {name: learnt(tokenizer, train, steps) for name, steps in (("dull", 0), ("keen", 14))}


@pytest.fixture
def made(shelf: Shelf, tokenizer: Any, namers: dict[str, Any]) -> dict[str, Artifact]:
    found = {"trades": shelf.corpus("trades", {"train": told(300, "train"), "test": told(80, "test")})}
    for name, network in namers.items():
        found[name] = shelf.model(name, network, tokenizer, {"data.trades": found["trades"]})
        training = {"objective": {"classify": {"label": "kind"}}, "length_tokens": 64}
        write_json(found[name].path / "training.json", training)
    return found


def evaluated(shelf: Shelf, made: dict[str, Artifact], *names: str, **changes: Any) -> Artifact:
    parents = {f"models.{place}": made[name] for place, name in enumerate(names)} | {"corpus": made["trades"]}
    config = {"models": list(names), "corpus": "trades", "overlap": {"threshold": 1.0}, **changes}
    return shelf.make(EvaluationKind(), "scores", config, parents)


def test_figures_are_those_of_scikit_learn_on_each_document_alone(
    shelf: Shelf, made: dict[str, Artifact], namers: dict[str, Any], tokenizer: Any
) -> None:
    scores = evaluated(shelf, made, "keen")
    assert scores.failures == []
    results, truth, named, sure = read_json(scores.path / "results.json"), [], [], []
    for record in told(80, "test"):
        ids = tokenizer.encode(record.text)[:64]
        with torch.inference_mode():
            states = namers["keen"].hidden(torch.tensor([ids]))[0, -1]
            probabilities = (states @ namers["keen"].head_VD.T).softmax(-1)
        truth.append(record.meta["kind"])
        named.append(sorted(KINDS)[int(probabilities.argmax())])
        sure.append(float(probabilities.max()))
    metrics = results["models"]["keen"]["metrics"]
    right = np.array(truth) == np.array(named)
    assert metrics["accuracy/trades"]["value"] == right.mean()
    assert metrics["macro_f1/trades"]["value"] == pytest.approx(f1_score(truth, named, average="macro"))
    details = results["models"]["keen"]["details"]["trades"]
    assert details["confusion"]["classes"] == sorted(KINDS)
    assert details["confusion"]["counts"] == confusion_matrix(truth, named, labels=sorted(KINDS)).tolist()
    rows = zip(*precision_recall_fscore_support(truth, named, labels=sorted(KINDS)), strict=True)
    for one, (precision, recall, f1, n) in zip(details["classes"], rows, strict=True):
        assert (one["precision"]["value"], one["recall"]["value"], one["n"]) == (precision, recall, n)
        assert one["f1"] == pytest.approx(f1) and one["recall"]["low"] < recall <= one["recall"]["high"]
    error = 0.0  # Guo et al. 2017, bin by bin
    for low in np.arange(15) / 15:
        inside = (np.array(sure) > low) & (np.array(sure) <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - np.array(sure)[inside].mean())
    assert metrics["calibration_error/trades"]["value"] == pytest.approx(error, abs=1e-4)
    assert results["baselines"]["accuracy/trades"] == {
        "name": "commonest_class",
        "answer": "bread",
        "value": truth.count("bread") / 80,
    }
    value = scores.evidence.value
    assert value("classes")["keen"]["paint"]["n"] == truth.count("paint") and value("scorer_exact") < 1e-4
    assert sum(one["count"] for one in value("confusions")["keen"]) == (~right).sum()


def test_a_classifier_that_knows_nothing_fails_its_evidence(shelf: Shelf, made: dict[str, Artifact]) -> None:
    scores = evaluated(shelf, made, "dull")
    assert any("beats_majority" in line for line in scores.failures)
    both = evaluated(shelf, made, "dull", "keen")
    (difference,) = read_json(both.path / "results.json")["comparisons"]
    assert difference["metric"] == "accuracy/trades" and difference["low"] > 0


def test_stored_samples_are_compared_without_running_anything(shelf: Shelf, made: dict[str, Artifact]) -> None:
    evaluated(shelf, made, "keen")
    home, again = shelf.home, shelf.model("other", _network(made["keen"]), _words(made["keen"]), {})
    made["other"] = again
    write_json(again.path / "training.json", read_json(made["keen"].path / "training.json"))
    scores = evaluated(shelf, made, "other")
    rows = read_lines(scores.path / "samples/other--trades.jsonl")
    assert len(rows) == 80 and {row["answer"] for row in rows} == set(KINDS)
    (measure,) = compare(home, made["keen"], again).measures
    assert measure.metric == "accuracy/trades" and measure.difference.difference == 0 and measure.better is None


def _network(artifact: Artifact) -> Any:
    from wuxing.model.classifier import Classifier
    from wuxing.model.files import load_network

    return load_network(artifact.path, kind=Classifier)


def _words(artifact: Artifact) -> Any:
    from wuxing.text.tokenizer import Tokenizer

    return Tokenizer.load(artifact.path)


def test_mistakes_are_named(shelf: Shelf, made: dict[str, Artifact], lived: dict[str, Artifact]) -> None:
    with pytest.raises(WuxingError, match='has no class "sort"'):
        evaluated(shelf, made, "keen", label="sort")
    parents = {"models.0": made["keen"], "tasks.0": lived["arithmetic"]}
    with pytest.raises(UsageError, match="keen is a classifier: it answers no tasks"):
        shelf.make(EvaluationKind(), "s", {"models": ["keen"], "tasks": ["arithmetic"]}, parents)


def named(truth: list[str], said: list[str]) -> list[Named]:
    return [Named(str(n), a, b, 0.9, 0.1, 3, "") for n, (a, b) in enumerate(zip(truth, said, strict=True))]


def test_the_measures_are_tried_and_a_constant_answer_does_not_pass() -> None:
    truth = ["a", "b", "a", "c", "b", "a"]
    assert try_classes(named(truth, ["a", "b", "a", "c", "b", "c"]))["passed"]
    assert not try_classes(named(truth, ["a"] * 6))["passed"]
    assert not try_classes(named(["a"] * 4, ["a"] * 4))["passed"]  # one class: nothing can be told apart
    train = [Record(str(n), "x", "t", label=label) for n, label in enumerate("bbac")]
    found = class_baselines(train, truth, "label")
    assert found["accuracy"]["answer"] == "b" and found["accuracy"]["value"] == pytest.approx(2 / 6)
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(truth, ["b"] * 6, average="macro"))


def test_calibration_knows_chance_from_overconfidence() -> None:
    generator = np.random.default_rng(5)
    sure = generator.uniform(0.4, 1.0, 800)
    honest, boasting = ((generator.random(800) < sure * factor).astype(float) for factor in (1.0, 0.7))
    limit = by_chance(sure, 1)
    assert calibration_error(sure, honest) < limit < calibration_error(sure, boasting)
    estimate = calibration_estimate(sure, boasting, 1)
    assert estimate.low <= estimate.value <= estimate.high and estimate.value == pytest.approx(0.21, abs=0.04)


@pytest.mark.parametrize("masks", [0, 5])
def test_an_encoder_fills_every_gap_once(masks: int, shelf: Shelf, tokenizer: Any) -> None:
    """Against one plain pass per gap; the small world's tokenizer has no mask, so a spare id stands for it."""
    architecture = Architecture(size="100k", width=64, layers=2, heads=2, kv_heads=1, max_positions=48)
    network = Encoder(encoder_config(resolve(architecture, tokenizer.vocab_size), 1)).initialise(2)
    subject = EncoderSubject("e", tokenizer, network, masks)
    dialogue = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Anna is a baker."}]
    records = [*stories(3, "gaps"), Record("talk", "world", messages=dialogue)]
    for record, score in zip(records, subject.score(records), strict=True):
        gaps, nats, seen = subject.gaps(record), 0.0, []
        for one in gaps:
            shown = torch.tensor([one.ids])
            shown[0, one.places] = 1
            with torch.inference_mode():
                logprobs = network(shown)[0].log_softmax(-1)
            nats -= sum(float(logprobs[place, one.ids[place]]) for place in one.places)
            seen += [one.ids[place] for place in one.places]
            assert masks or len(one.places) == 1
        text = record.text or dialogue[1]["content"]
        assert sorted(seen) == sorted(tokenizer.encode(text)) and score.bytes == len(text.encode())
        assert score.nats == pytest.approx(nats, rel=1e-5) and score.tokens == len(seen)


def test_an_encoder_is_measured_with_an_interval(shelf: Shelf, tokenizer: Any, world: Any) -> None:
    architecture = Architecture(size="100k", width=64, layers=2, heads=2, kv_heads=1, max_positions=128)
    network = Encoder(encoder_config(resolve(architecture, tokenizer.vocab_size), 1)).initialise(2)
    articles = shelf.corpus("articles", world)
    model = shelf.model("encoder", network, tokenizer, {"data.articles": articles})
    parents = {"models.0": model, "corpus": articles}
    scores = shelf.make(EvaluationKind(), "scores", {"models": ["encoder"], "corpus": "articles"}, parents)
    results = read_json(scores.path / "results.json")
    value = results["models"]["encoder"]["metrics"]["masked_bits_per_byte/articles"]
    assert value["low"] < value["value"] < value["high"] and value["n"] == 40
    rows = read_lines(scores.path / "samples/encoder--articles.jsonl")
    whole = sum(row["nats"] for row in rows) / math.log(2) / sum(row["bytes"] for row in rows)
    assert value["value"] == pytest.approx(whole) and scores.evidence.value("scorer_exact") < 1e-4
    # it has learnt nothing: shuffled words are no harder, which the trial of the measure finds
    assert any("metrics_react" in line for line in scores.failures)
    assert "masked_bits_per_byte/articles" in results["baselines"]
