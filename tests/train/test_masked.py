"""Masked language modelling: which tokens are hidden, what is learnt from them, and that nothing moves the masks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_run import base_config, base_parents, make_in, sentences, signed
from test_model_kind import stopped_after
from test_together import TOLERANCE, difference, samples, several

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import Interrupted, UsageError, WuxingError
from wuxing.core.file import read_json
from wuxing.data.batch import IGNORED, Batch
from wuxing.data.masking import Masking
from wuxing.data.packing import pack
from wuxing.data.source import PackedSource, in_order
from wuxing.data.tokens import open_tokens
from wuxing.data.tokens_kind import TokensKind
from wuxing.model.encoder import Encoder
from wuxing.model.files import load_network
from wuxing.objective.masked import Masked
from wuxing.text.tokenizer import MASK, Tokenizer
from wuxing.text.train import train_tokenizer
from wuxing.train.model_kind import ModelKind


@pytest.fixture(scope="module")
def hidden(world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The small world in the ids of a tokenizer that has a mask token."""
    root = tmp_path_factory.mktemp("hidden")
    (root / "vocabulary").mkdir()
    train_tokenizer(sentences(0, 300), 400, mask=True).save(root / "vocabulary")
    made = {"vocabulary": signed(root / "vocabulary", "tokenizer", "vocabulary")}
    for name in ("articles", "dialogues"):
        corpus = Path(world[name].path).parent / name
        parents = {"tokenizer": made["vocabulary"], "data": signed(corpus, "corpus", name)}
        config = {"tokenizer": "vocabulary", "data": name}
        made[name] = make_in(root / f"{name}.vocabulary", TokensKind(), config, parents, Context(home=root))
    return made


def config(**changes: Any) -> dict[str, Any]:
    return base_config(objective={"masked": {"share": 0.2}}, **changes)


def made_in(directory: Path, hidden: dict[str, Artifact], context: Context | None = None, **changes: Any) -> Artifact:
    return make_in(directory, ModelKind(), config(**changes), base_parents(hidden), context or Context(home=directory))


@pytest.fixture(scope="module")
def encoder(hidden: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return made_in(tmp_path_factory.mktemp("encoder") / "base", hidden)


def masking(tokenizer: Tokenizer, seed: str = "7", **changes: float) -> Masking:
    shares = {"share": 0.15, "replaced": 0.8, "random": 0.1} | changes
    return Masking(seed, tokenizer.mask_id(), tokenizer.vocab_size, tokenizer.special_ids, **shares)


def source_of(hidden: dict[str, Artifact], **settings: Any) -> PackedSource:
    packings = {name: pack(open_tokens(hidden[name].path, "train"), 64) for name in ("articles", "dialogues")}
    change = masking(Tokenizer.load(hidden["vocabulary"].path))
    return PackedSource(packings, {"articles": 0.5, "dialogues": 0.5}, 7, 8, change=change, **settings)


def test_labels_are_the_hidden_tokens_and_only_text_that_is_taught_is_hidden(hidden: dict[str, Artifact]) -> None:
    tokenizer = Tokenizer.load(hidden["vocabulary"].path)
    for name in ("articles", "dialogues"):
        data = open_tokens(hidden[name].path, "train")
        packing = pack(data, 64)
        text = 0  # every token that may be chosen, by a slow walk: taught, no special token, not cut off
        for start, size, talk in zip(data.start.tolist(), data.tokens.tolist(), data.dialogue.tolist(), strict=True):
            ids, taught = data.labels(start, start + (min(size, 64) if talk else size))
            text += sum(t and i not in tokenizer.special_ids for i, t in zip(ids.tolist(), taught, strict=True))
        plain = next(in_order(packing, packing.rows))
        batch = masking(tokenizer, share=0.9, replaced=1.0, random=0.0)(plain)
        chosen = batch.labels_BT != IGNORED
        assert torch.equal(batch.labels_BT[chosen], plain.tokens_BT[chosen])
        assert (batch.tokens_BT[chosen] == tokenizer.mask_id()).all()
        assert torch.equal(batch.tokens_BT[~chosen], plain.tokens_BT[~chosen])
        assert not set(batch.labels_BT[chosen].tolist()) & tokenizer.special_ids
        assert not (chosen & (plain.documents_BT < 0)).any()
        everything = masking(tokenizer, share=0.999999, replaced=1.0, random=0.0)(plain)
        assert int((everything.labels_BT != IGNORED).sum()) == text


def test_shares_are_as_asked_for(hidden: dict[str, Artifact]) -> None:
    tokenizer = Tokenizer.load(hidden["vocabulary"].path)
    rows = torch.from_numpy(
        np.random.default_rng(1).choice(sorted(set(range(tokenizer.vocab_size)) - tokenizer.special_ids), (300, 200))
    )
    plain = Batch(rows, rows.clone(), rows, torch.zeros_like(rows, dtype=torch.int32), sample_ids=list(range(300)))
    batch = masking(tokenizer)(plain)
    chosen = batch.labels_BT != IGNORED
    assert (chosen.sum(1) == 30).all()
    shown, truth = batch.tokens_BT[chosen], plain.tokens_BT[chosen]
    masked, kept = (shown == tokenizer.mask_id()).float().mean(), (shown == truth).float().mean()
    # 9,000 draws: a deviation of 0.4 % of 80 and of 0.3 % of 10; a random token is the same one time in 346
    assert float(masked) == pytest.approx(0.8, abs=0.017) and float(kept) == pytest.approx(0.1, abs=0.013)
    others = shown[(shown != truth) & (shown != tokenizer.mask_id())]
    assert len(set(others.tolist())) > 300 and not set(others.tolist()) & tokenizer.special_ids
    one = Batch(rows[:1, :2], rows[:1, :2], rows[:1, :2], plain.documents_BT[:1, :2], sample_ids=[0])
    assert int((masking(tokenizer, share=0.01)(one).labels_BT != IGNORED).sum()) == 1
    ends = torch.full((1, 5), tokenizer.end_of_text_id)
    empty = masking(tokenizer)(Batch(ends, ends, ends, plain.documents_BT[:1, :5], sample_ids=[0]))
    assert (empty.labels_BT == IGNORED).all()


def test_masks_belong_to_places_whatever_the_processes_pieces_and_stops(hidden: dict[str, Artifact]) -> None:
    whole = [next(source) for source in [source_of(hidden)] for _ in range(90)]
    epoch = source_of(hidden).epoch_rows
    for ranks in (2, 3):
        parts = [source_of(hidden, rank=rank, ranks=ranks, piece_rows=2) for rank in range(ranks)]
        for step in whole[:5]:
            rows = {
                s: row
                for part in parts
                for piece in next(part)
                for s, row in zip(piece.sample_ids, piece.tokens_BT, strict=True)
            }
            for sample, row in zip(step[0].sample_ids, step[0].tokens_BT, strict=True):
                assert torch.equal(rows[sample], row)
    later = source_of(hidden)
    later.load_state_dict({"position": 8 * 40, "plan": later.digest})
    assert torch.equal(next(later)[0].tokens_BT, whole[40][0].tokens_BT)
    plan, seen = source_of(hidden).plan, {}
    assert epoch < 8 * 90
    for step in whole:
        for place, labels in zip(step[0].sample_ids, step[0].labels_BT, strict=True):
            seen.setdefault((plan[place].data, plan[place].row), []).append(labels != IGNORED)
    again = [masks for masks in seen.values() if len(masks) > 1 and masks[0].sum() > 4]  # of 60: not equal by chance
    assert again and all(not torch.equal(masks[0], masks[1]) for masks in again)  # each epoch has its own


def test_the_loss_is_that_of_torch_over_hidden_places_alone(encoder: Artifact, hidden: dict[str, Artifact]) -> None:
    network, batch = load_network(encoder.path, kind=Encoder), next(source_of(hidden))[0]
    loss = Masked(smoothing=0.1)(network, batch)
    logits = network(batch.tokens_BT, batch.positions_BT, batch.documents_BT)
    truth = F.cross_entropy(logits.flatten(0, 1), batch.labels_BT.flatten(), reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(loss.sum, truth, rtol=1e-4, atol=1e-2)
    assert int(Masked().count(batch)) == int((batch.labels_BT != IGNORED).sum())


def test_it_learns_and_leaves_its_evidence(encoder: Artifact, hidden: dict[str, Artifact]) -> None:
    assert encoder.record["failures"] == []
    first, *_, last = read_json(encoder.path / "training.json")["validation"]
    assert last["masked_bits_per_byte"] < 0.8 * first["masked_bits_per_byte"]
    # the held-out figure again, slowly: each row alone, in fp32
    network, tokenizer = load_network(encoder.path, kind=Encoder), Tokenizer.load(encoder.path)
    assert network.mask_id == tokenizer.token_id(MASK)
    nats, size = 0.0, 0
    for name in ("articles", "dialogues"):
        rows = pack(open_tokens(hidden[name].path, "validation"), 64, True)
        held = Masking("validation", network.mask_id, tokenizer.vocab_size, tokenizer.special_ids, 0.15, 1.0, 0.0)
        for number, plain in enumerate(in_order(rows, 1)):
            if number == 1024 // 64:
                break
            batch = held(plain)
            logprobs = network(batch.tokens_BT, batch.positions_BT, batch.documents_BT).log_softmax(-1)
            for place in (batch.labels_BT[0] != IGNORED).nonzero().flatten().tolist():
                label = int(batch.labels_BT[0, place])
                nats -= float(logprobs[0, place, label])
                size += len(tokenizer.token_bytes[label])
    assert last["masked_bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=0.01)  # it was measured in bf16


def test_killed_and_resumed_is_the_same_to_the_bit(
    encoder: Artifact, hidden: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        made_in(tmp_path / "base", hidden, stopped_after(9, patch, tmp_path))
    again = made_in(tmp_path / "base", hidden)
    assert (again.path / "model.safetensors").read_bytes() == (encoder.path / "model.safetensors").read_bytes()


def test_two_processes_learn_what_one_does(encoder: Artifact, hidden: dict[str, Artifact], tmp_path: Path) -> None:
    """With the network cut over them."""
    with several(Context(home=tmp_path), 2) as context:
        made = made_in(tmp_path / "base", hidden, context, sharding="shard")
    assert load_network(made.path, kind=Encoder).mask_id == load_network(encoder.path, kind=Encoder).mask_id
    assert difference(made.path, encoder.path) < TOLERANCE and samples(made.path) == samples(encoder.path)


def test_it_goes_on_from_a_language_model_and_from_itself(
    base: Artifact, encoder: Artifact, hidden: dict[str, Artifact], world: dict[str, Artifact], tmp_path: Path
) -> None:
    plain = {key: value for key, value in config().items() if key not in ("architecture", "tokenizer")}
    plain |= {"start_from": "base", "budget": {"steps": 2}, "optimizer": {"learning_rate": 1e-9}}
    parents = {key: value for key, value in base_parents(hidden).items() if key != "tokenizer"}
    again = make_in(tmp_path / "a", ModelKind(), plain, parents | {"start_from": encoder}, Context(home=tmp_path))
    for one, other in zip(*(load_network(at.path, kind=Encoder).parameters() for at in (again, encoder)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    writer = {**plain, "objective": "next_token"}
    with pytest.raises(WuxingError, match="an encoder, which sees both ways"):
        make_in(tmp_path / "b", ModelKind(), writer, parents | {"start_from": encoder}, Context(home=tmp_path))
    others = {key: value for key, value in base_parents(world).items() if key != "tokenizer"}
    with pytest.raises(UsageError, match="no mask token") as refused:
        make_in(tmp_path / "c", ModelKind(), plain, others | {"start_from": base}, Context(home=tmp_path))
    assert "mask_token: true" in str(refused.value.remedy)
    wrong = {**plain, "objective": {"masked": {"token": "<|im_end|>"}}}
    with pytest.raises(UsageError, match="no special token that could stand"):
        make_in(tmp_path / "d", ModelKind(), wrong, others | {"start_from": base}, Context(home=tmp_path))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"objective": {"masked": {"replaced": 0.8, "random": 0.3}}}, "together 1 at most"),
        ({"architecture": {"size": "1m", "attention": "causal"}}, "attention causal and objective masked"),
        (
            {"architecture": {"size": "1m", "attention": "bidirectional"}, "objective": "next_token"},
            "would see what it is to predict",
        ),
        ({"validation": {"tasks": ["arithmetic"]}}, "validation.tasks and objective masked contradict"),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        ModelKind.Config.model_validate({"make": "model", **config(), **changes})
