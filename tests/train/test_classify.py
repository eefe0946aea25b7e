"""Classifiers: the same classes from the packed rows, from each text alone, and from transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from small_run import base_config, make_in, signed, train_base
from test_model_kind import stopped_after
from test_together import TOLERANCE, along, difference

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import Interrupted, UsageError, WuxingError
from wuxing.core.file import read_json, read_lines
from wuxing.core.record import Record
from wuxing.core.splits import read_records, write_records
from wuxing.core.statistic import f1_interval, macro_f1
from wuxing.data.labelled import labelled, labels_of
from wuxing.data.tokens import open_tokens
from wuxing.data.tokens_kind import TokensKind
from wuxing.model.classifier import Classifier
from wuxing.model.files import load_network
from wuxing.objective.classify import Classify, ClassLoss, class_weights
from wuxing.text.tokenizer import Tokenizer
from wuxing.train.model_kind import ModelKind
from wuxing.train.update.freeze import Freeze, check_names

PLACES = {"water": ("river", "sea", "lake"), "land": ("mountain", "forest", "field"), "sky": ("star", "cloud", "moon")}


def records(seed: int, count: int) -> list[Record]:
    """Uneven classes, and one text that is longer than a row."""
    random = Random(seed)
    made = []
    for number in range(count):
        kind = random.choice(["water", "water", "land", "sky"])
        words = [f"The {random.choice(PLACES[kind])} is {random.choice(['old', 'near', 'quiet'])}."]
        words += ["It was named after the king."] * (30 if number == 5 else random.choice([0, 1, 2]))
        made.append(Record(f"{seed}-{number}", "places", text=" ".join(words), meta={"kind": kind}, label=kind[0]))
    return made


@pytest.fixture(scope="module")
def places(world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    root = tmp_path_factory.mktemp("places")
    (root / "places").mkdir()
    for seed, (split, count) in enumerate({"train": 240, "validation": 60, "test": 20}.items()):
        write_records(root / "places", split, records(seed, count))
    corpus = signed(root / "places", "corpus", "places")
    parents = {"tokenizer": world["vocabulary"], "data": corpus}
    tokens = make_in(
        root / "tokens", TokensKind(), {"tokenizer": "vocabulary", "data": "places"}, parents, Context(home=root)
    )
    return {"tokenizer": world["vocabulary"], "data.places": tokens, "labels.places": corpus}


def config(**changes: Any) -> dict[str, Any]:
    objective = {"classify": {"label": "kind", "class_weights": "balanced", "smoothing": 0.05}}
    return base_config(data={"places": 1.0}, objective=objective, validation={"times": 2}, **changes)


def made_in(directory: Path, places: dict[str, Artifact], context: Context | None = None, **changes: Any) -> Artifact:
    return make_in(directory, ModelKind(), config(**changes), places, context or Context(home=directory))


@pytest.fixture(scope="module")
def classifier(places: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return made_in(tmp_path_factory.mktemp("classifier") / "base", places)


def test_it_learns_and_leaves_its_evidence(classifier: Artifact) -> None:
    assert classifier.record["failures"] == []
    last = read_json(classifier.path / "training.json")["validation"][-1]
    assert last["accuracy"] > 0.9 and last["accuracy_low"] < last["accuracy"] <= last["accuracy_high"]
    assert last["macro_f1_low"] <= last["macro_f1"] <= last["macro_f1_high"]


def test_transformers_says_the_same(classifier: Artifact) -> None:
    """Every held-out text by itself, through the plain class of the family, from the files alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theirs = AutoModelForSequenceClassification.from_pretrained(classifier.path).eval()
    assert type(theirs).__name__ == "Qwen3ForSequenceClassification"
    tokenizer, ours = AutoTokenizer.from_pretrained(classifier.path), load_network(classifier.path, kind=Classifier)
    texts = [record.text for record in records(1, 60) if len(record.text) < 200]
    with torch.no_grad():
        for text in texts[:8]:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            alone = ours.hidden(ids)[0, -1] @ ours.head_VD.T
            torch.testing.assert_close(theirs(ids).logits[0], alone, rtol=1e-4, atol=1e-5)
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        named = [theirs.config.id2label[number] for number in theirs(**batch).logits.argmax(-1).tolist()]
    truth = [record.meta["kind"] for record in records(1, 60) if len(record.text) < 200]
    assert accuracy_score(truth, named) > 0.9
    logged = read_json(classifier.path / "training.json")["validation"][-1]
    assert logged["accuracy"] == pytest.approx(accuracy_score(truth, named), abs=0.06)  # bf16, and the long text


def test_a_label_stands_at_the_last_token_of_its_text(places: dict[str, Artifact], world: dict[str, Artifact]) -> None:
    data, tokenizer = open_tokens(places["data.places"].path, "train"), Tokenizer.load(world["vocabulary"].path)
    truth = {record.id: record for record in read_records(places["labels.places"].path, "train")}
    classes = {"land": 1, "sky": 1, "water": 1}
    rows = labelled(data, [truth[name].meta["kind"] for name in data.names], classes, 64)
    seen = []
    for number in range(rows.rows):
        row, names = rows[number], rows.describe(number)
        for place, name in enumerate(names):
            where = row.documents_T == place
            ids = tokenizer.encode(truth[name].text)[:64]
            assert row.tokens_T[where].tolist() == ids and row.positions_T[where].tolist() == list(range(len(ids)))
            labels = row.labels_T[where]
            assert sorted(classes)[labels[-1]] == truth[name].meta["kind"] and (labels[:-1] == -100).all()
        seen += names
    assert sorted(seen) == sorted(data.names) and rows.fates["truncated"] == 1


def test_the_loss_is_that_of_torch() -> None:
    class Model:
        head_VD = torch.randn(3, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)

        def hidden(self, tokens: Any, positions: Any = None, documents: Any = None) -> Any:
            return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2))

    from wuxing.data.batch import Batch

    labels = torch.tensor([[-100, 2, -100, 0, -100], [1, -100, -100, -100, 2]])
    batch = Batch(labels, labels, labels, labels)
    loss = ClassLoss((0.5, 2.0, 1.0), 0.1)(Model(), batch)
    states = Model().hidden(None)[labels >= 0]
    each = torch.nn.functional.cross_entropy(
        states @ Model.head_VD.T, labels[labels >= 0], label_smoothing=0.1, reduction="none"
    )
    weights = torch.tensor([0.5, 2.0, 1.0])[labels[labels >= 0]]
    torch.testing.assert_close(loss.sum, (each * weights).sum())
    balanced = class_weights(Classify(class_weights="balanced"), ["a", "b"], [30, 10])
    assert balanced == pytest.approx([40 / (2 * 30), 40 / (2 * 10)])  # scikit-learn's n / (k n_c)
    assert class_weights(Classify(class_weights={"b": 3.0}), ["a", "b"], [10, 10]) == [0.5, 1.5]


def test_figures_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    true = generator.integers(0, 3, 200)
    named = np.where(generator.random(200) < 0.7, true, generator.integers(0, 4, 200))
    counts = np.zeros((5, 5))
    np.add.at(counts, (true, named), 1)
    assert macro_f1(counts) == pytest.approx(f1_score(true, named, average="macro"))
    low, high = f1_interval(counts)
    drawn = [generator.integers(0, 200, 200) for _ in range(1000)]
    slow = np.quantile([f1_score(true[i], named[i], average="macro") for i in drawn], [0.025, 0.975])
    assert low == pytest.approx(slow[0], abs=0.03) and high == pytest.approx(slow[1], abs=0.03)


def test_killed_and_resumed_is_the_same_to_the_bit(
    classifier: Artifact, places: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        made_in(tmp_path / "base", places, stopped_after(9, patch, tmp_path))
    again = made_in(tmp_path / "base", places)
    assert (again.path / "model.safetensors").read_bytes() == (classifier.path / "model.safetensors").read_bytes()


def test_two_processes_learn_what_one_does(places: dict[str, Artifact], couple: Context, tmp_path: Path) -> None:
    """In fp32, where 24 updates leave 0.003; in bf16 a few dozen labels a step leave 0.025, by rounding alone."""
    alone = made_in(tmp_path / "alone" / "base", places, precision="fp32")
    made = made_in(tmp_path / "base", places, couple, precision="fp32")
    one, other = ([line for line in read_lines(at.path / "log.jsonl") if "loss" in line] for at in (made, alone))
    for key in ("step", "tokens", "taught", "learning_rate"):
        assert [line[key] for line in one] == [line[key] for line in other]
    assert one[0]["loss"] == pytest.approx(other[0]["loss"], rel=1e-5)
    assert one[0]["gradient_norm"] == pytest.approx(other[0]["gradient_norm"], rel=1e-4)
    assert made.record["failures"] == [] and difference(made.path, alone.path) < TOLERANCE
    ours, theirs = (read_json(at.path / "training.json")["validation"] for at in (made, alone))
    for first, second in zip(ours, theirs, strict=True):
        assert first["nats"] == pytest.approx(second["nats"], rel=5e-3)


def test_a_classifier_is_cut_over_two_processes(
    places: dict[str, Artifact],
    world: dict[str, Artifact],
    couple: Context,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From a language model, so that its body is read and its classes are new; stopped, it goes on on 2 and on 1."""
    start = train_base(tmp_path / "start", world, budget={"steps": 2})
    parents = {key: value for key, value in places.items() if key != "tokenizer"} | {"start_from": start}
    plain = {key: value for key, value in config().items() if key not in ("architecture", "tokenizer")}
    plain |= {"start_from": "start", "precision": "fp32", "sharding": "shard", "budget": {"steps": 12}}

    def made(name: str, context: Context) -> Artifact:
        return make_in(tmp_path / name / "base", ModelKind(), plain, parents, context)

    whole = made("whole", Context(home=tmp_path))
    cut = made("cut", couple)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="step 7"):
        made("again", along(stopped_after(7, patch, tmp_path), couple))
    shutil.copytree(tmp_path / "again", tmp_path / "one")
    again = made("again", couple)
    one = made("one", Context(home=tmp_path))
    assert read_json(cut.path / "start.json")["topology"]["shards"] == 2 and cut.record["failures"] == []
    assert (cut.path / "model.safetensors").read_bytes() == (again.path / "model.safetensors").read_bytes()
    assert difference(cut.path, whole.path) < TOLERANCE and difference(one.path, whole.path) < TOLERANCE
    assert load_network(cut.path, kind=Classifier).classes == ["land", "sky", "water"]
    ours, theirs = (read_json(at.path / "training.json")["validation"] for at in (cut, whole))
    assert ours[0]["nats"] == pytest.approx(theirs[0]["nats"], rel=1e-5)
    assert ours[-1]["nats"] == pytest.approx(theirs[-1]["nats"], rel=5e-3)


def test_it_goes_on_from_a_language_model_and_from_itself(
    base: Artifact, classifier: Artifact, places: dict[str, Artifact], tmp_path: Path
) -> None:
    plain = {key: value for key, value in config().items() if key not in ("architecture", "tokenizer")}
    parents = {key: value for key, value in places.items() if key != "tokenizer"}
    plain |= {"start_from": "base", "budget": {"steps": 2}, "optimizer": {"learning_rate": 1e-9}}
    plain |= {"freeze": {"names": ["model.*"]}}
    body = make_in(tmp_path / "a", ModelKind(), plain, parents | {"start_from": base}, Context(home=tmp_path))
    ours, theirs = load_network(body.path, kind=Classifier), load_network(base.path)
    for one, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(one, other)
    again = make_in(tmp_path / "b", ModelKind(), plain, parents | {"start_from": classifier}, Context(home=tmp_path))
    torch.testing.assert_close(
        load_network(again.path, kind=Classifier).score.weight,
        load_network(classifier.path, kind=Classifier).score.weight,
    )


def test_the_records_own_label_or_a_field_of_their_meta(places: dict[str, Artifact]) -> None:
    data, corpus = open_tokens(places["data.places"].path, "train"), places["labels.places"].path
    own, kind = (labels_of(corpus, "train", data, field) for field in ("label", "kind"))
    assert own == [word[0] for word in kind] and set(kind) == set(PLACES)


def test_mistakes_are_named(classifier: Artifact, places: dict[str, Artifact], base: Artifact, tmp_path: Path) -> None:
    with pytest.raises(WuxingError, match="names classes and writes no text"):
        load_network(classifier.path)
    with pytest.raises(WuxingError, match="is no classifier"):
        load_network(base.path, kind=Classifier)
    wrong = {**config(), "objective": {"classify": {"label": "sort"}}}
    with pytest.raises(WuxingError, match='no class "sort"'):
        make_in(tmp_path / "m", ModelKind(), wrong, places, Context(home=tmp_path))
    with pytest.raises(UsageError, match="optimizer.rates"):
        check_names(["model.norm.weight"], Freeze(), ["model.nrom.*"])


def test_rates_by_name(places: dict[str, Artifact]) -> None:
    from test_trainer import trainer

    from wuxing.train.config import OptimizerConfig
    from wuxing.train.update.optimizer import Optimizer

    network = trainer().network
    rates = {"model.layers.*": 0.5, "model.layers.1.*": 0.25}
    one, plain = (Optimizer(network, OptimizerConfig(rates=given), 0.01) for given in (rates, {}))

    def of(optimizer: Optimizer) -> dict[str, float]:
        names = {id(parameter): name for name, parameter in optimizer.named.items()}
        groups = [group for part in optimizer.parts for group in part.param_groups]
        return {names[id(p)]: group["lr"] for group in groups for p in group["params"]}

    for name, rate in of(one).items():
        factor = 0.25 if "layers.1." in name else 0.5 if "layers." in name else 1.0
        assert rate == pytest.approx(factor * of(plain)[name])
    assert of(one).keys() == of(plain).keys()
