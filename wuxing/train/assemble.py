"""The parts of a run, built from a config and its parents.  Building twice gives equal parts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wuxing.compute import team
from wuxing.compute.mesh import Topology
from wuxing.core.artifact import Artifact
from wuxing.core.error import RefusedError, WuxingError
from wuxing.core.file import read_json
from wuxing.data.batch import Batch, BatchSource
from wuxing.data.masking import Masking
from wuxing.data.packing import Packing, pack
from wuxing.data.source import PackedSource
from wuxing.data.tokens import DESCRIPTION, open_tokens
from wuxing.generate.engine import Engine
from wuxing.model.architecture import resolve
from wuxing.model.classifier import Classifier, classifier_config, classifier_from, new_classifier
from wuxing.model.encoder import Encoder, encoder_config, encoder_from
from wuxing.model.files import load_network, read_config, require_role, role_of
from wuxing.model.float8 import refuse_without_float8
from wuxing.model.network import Network
from wuxing.objective.objective import Objective
from wuxing.task.task import load_task
from wuxing.text.tokenizer import Tokenizer
from wuxing.train.classifier import ClassAccuracy, Labels, read_labels
from wuxing.train.config import ModelConfig, of_text
from wuxing.train.order import ladders, refuse_torn
from wuxing.train.plan.memory import PIECE_POSITIONS
from wuxing.train.rollout import Rollouts
from wuxing.train.shard.build import cut_for_run
from wuxing.train.update.mixture import Mixer
from wuxing.train.validate import TASK_ROWS, BitsPerByte, MaskedBits, TaskAccuracy, TextValidator, Validator, with_tasks

if TYPE_CHECKING:
    from wuxing.train.shard.cut import Shards

WHOLE = Topology()
STEPS_AHEAD = 2
"""Steps whose batches are made before they are asked for."""


@dataclass
class Parts:
    """What a run is made of."""

    network: Network
    tokenizer: Tokenizer
    source: BatchSource
    objective: Objective
    validate: Validator
    step_positions: int
    """Positions of one optimizer step (with a task: at most)."""
    epoch_steps: float
    packings: dict[str, Packing]
    """The training rows of each data set; empty with a task."""
    piece_rows: int
    length: int
    shards: Shards | None = None
    """Where the network is cut over processes: this one's part."""
    text: BitsPerByte | None = None
    """The measurement of held-out text, by data set; None with a task."""

    def first_batch(self) -> Batch:
        """A few rows of the first step, or of right replies to a task: for the self-checks."""
        if isinstance(self.source, PackedSource):
            return self.source.batch(list(range(min(4, self.source.step_rows))))
        assert isinstance(self.source, Rollouts)
        return self.source.taught_batch(4)


def assemble(
    config: ModelConfig,
    parents: Mapping[str, Artifact],
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    rollouts: Path | None,
    topology: Topology = WHOLE,
) -> Parts:
    """Build a run.  `rollouts`: where replies are kept, None for a trial."""
    tokenizer = load_tokenizer(parents)
    labels = read_labels(config, parents) if config.objective.classify is not None else None
    cut = (config, parents, tokenizer, labels, seed, device, precision, topology)
    shards = _cut(*cut) if topology.shards > 1 else None
    if shards is not None:
        network = shards.network
    elif labels is not None:
        network = _classifier(config, parents, tokenizer, list(labels.classes), seed).to(device)
    else:
        network = _network(config, parents, tokenizer, seed).to(device)
    network.model.recompute = bool(config.recompute)
    if config.precision == "float8":
        refuse_without_float8(device)
        network.use_float8()
    if config.length_tokens > network.max_positions:
        raise WuxingError(
            f"length_tokens is {config.length_tokens}, the model takes {network.max_positions} positions",
            "Lower length_tokens",
        )
    piece_rows = max(1, (config.piece_tokens or PIECE_POSITIONS) // config.length_tokens)
    if config.task is not None:
        reference: Network | None = None
        if config.objective.grpo is not None and config.objective.grpo.kl:
            reference = _cut(*cut).network if shards is not None else copy.deepcopy(network)
            reference = reference.requires_grad_(False)
        some = (tokenizer, seed, precision, rollouts, piece_rows)
        return _reinforced(config, parents, network, shards, reference, *some)
    assert config.batch_tokens is not None and config.data is not None
    packings: dict[str, Packing] = dict(labels.train) if labels else _packings(config, parents, tokenizer)
    step_rows = config.batch_tokens // config.length_tokens
    source = PackedSource(packings, config.data, seed, step_rows, piece_rows, team.rank(), team.ranks())
    source.same_pieces = config.adds_exactly
    source.ahead, source.pin = STEPS_AHEAD, device.type == "cuda"
    source.ladders = ladders(config.curriculum, packings)
    source.change = _masking(config, parents, tokenizer, seed)
    length, tokens = config.length_tokens, config.validation.tokens
    text: BitsPerByte | None = None
    if labels is not None and config.objective.classify is not None:
        validator: TextValidator = ClassAccuracy(labels.validation, list(labels.classes), length, tokens, precision)
        objective: Objective = labels.loss(config.objective.classify)
    else:
        validator = text = BitsPerByte(_held_out(config, parents, tokenizer), tokenizer, length, tokens, precision)
        if config.objective.masked is not None:
            validator = text = MaskedBits.of(text, mask_id(config, parents, tokenizer))
        objective = of_text(config.objective)
    tasks = {name: load_task(parents[f"validation.{name}"].path) for name in config.validation.tasks}
    validate = with_tasks(validator, list(config.data), config.validation, tasks, tokenizer, network.max_positions)
    positions, epoch = step_rows * config.length_tokens, source.epoch_rows / step_rows
    of_data = (positions, epoch, packings, piece_rows, length)
    return Parts(network, tokenizer, source, objective, validate, *of_data, shards=shards, text=text)


def _cut(
    config: ModelConfig,
    parents: Mapping[str, Artifact],
    tokenizer: Tokenizer,
    labels: Labels | None,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    topology: Topology,
) -> Shards:
    """A network of this run cut over the processes, with its first values.

    Raises RefusedError for the one thing that a state which is cut cannot do.
    """
    if config.adds_exactly and config.optimizer.kind == "adafactor":
        raise RefusedError(
            "adafactor adds up squares over rows and columns, which in a state that is cut over processes depends on "
            "their number: a mixture that follows its losses would then not see the same samples everywhere",
            "Take another optimizer.kind, sharding: replicate, or exact_sums: false (samples may then differ)",
        )
    shape = shape_of(config, parents, tokenizer)
    if labels is not None:
        shape = classifier_config(shape, list(labels.classes))
    start = None if config.architecture is not None else parents["start_from"].path
    return cut_for_run(shape, start, seed, device, precision, topology)


def _reinforced(
    config: ModelConfig,
    parents: Mapping[str, Artifact],
    network: Network,
    shards: Shards | None,
    reference: Network | None,
    tokenizer: Tokenizer,
    seed: int,
    precision: torch.dtype,
    rollouts: Path | None,
    piece_rows: int,
) -> Parts:
    assert config.rollout is not None and config.objective.grpo is not None
    task, rollout = load_task(parents["task"].path), config.rollout
    rows = rollout.rows or rollout.replies(team.ranks())
    source = Rollouts(
        engine=Engine(network, max_rows=rows, max_tokens=config.length_tokens),
        task=task,
        tokenizer=tokenizer,
        config=rollout,
        seed=seed,
        length=config.length_tokens,
        piece_rows=piece_rows,
        log=rollouts,
        reference=reference,
        precision=precision,
        rank=team.rank(),
        ranks=team.ranks(),
    )
    examples = task.examples("validation")[: config.validation.prompts]
    if not examples:
        raise RefusedError(
            f"{parents['task'].id} has no validation examples, so nothing would show whether training helps",
            "Give it examples: {validation: 200}",
        )
    validate = TaskAccuracy(task, examples, tokenizer, rollout.reply_tokens, min(TASK_ROWS, rows))
    epoch = len(source.examples) / rollout.prompts
    objective, length = config.objective.grpo, config.length_tokens
    made = (network, tokenizer, source, objective, validate)
    return Parts(*made, config.step_positions, epoch, {}, piece_rows, length, shards=shards)


def mixer_of(config: ModelConfig, parents: Mapping[str, Artifact], parts: Parts) -> Mixer | None:
    """What shifts the shares of the data sets; None where they are fixed."""
    rule = config.mixture
    if rule is None:
        return None
    assert parts.text is not None and config.data is not None
    missing = [name for name in config.data if name not in parts.text.packings]
    if missing:
        raise RefusedError(
            f"{missing[0]} has no validation rows, so its share cannot follow its loss",
            "Give it split: {validation: 0.02}, or take mixture out",
        )
    text = replace(parts.text, tokens=rule.tokens)

    def by_data(network: Network) -> dict[str, float]:
        figures = text(network)
        return {name: figures[f"{text.metric}/{name}"] for name in text.packings}

    def refer() -> dict[str, float]:
        artifact = parents["mixture.reference"]
        if Tokenizer.load(artifact.path).digest != parts.tokenizer.digest:
            raise WuxingError(f"{artifact.id} has another tokenizer", "Train mixture.reference with the same one")
        kind = Encoder if config.objective.masked is not None else Network
        return by_data(load_network(artifact.path, kind=kind).to(parts.network.device))

    return Mixer(rule, config.data, by_data, refer if rule.reference else None)


def load_tokenizer(parents: Mapping[str, Artifact]) -> Tokenizer:
    """The model's tokenizer: its own parent, or that of the model it starts from."""
    return Tokenizer.load(parents["tokenizer" if "tokenizer" in parents else "start_from"].path)


def shape_of(config: ModelConfig, parents: Mapping[str, Artifact], tokenizer: Tokenizer) -> dict[str, Any]:
    """The values of the network's config.json, known before anything is allocated."""
    masked = config.objective.masked is not None
    if config.architecture is None:
        start = parents["start_from"].path
        if config.objective.classify is None and not (masked and role_of(start) == Encoder.role):
            require_role(start, Network)
        shape = read_config(start)
    else:
        ends = (tokenizer.end_of_text_id, tokenizer.end_of_turn_id)
        shape = resolve(config.architecture, tokenizer.vocab_size, *ends)
    return encoder_config(shape, mask_id(config, parents, tokenizer)) if masked else shape


def mask_id(config: ModelConfig, parents: Mapping[str, Artifact], tokenizer: Tokenizer) -> int:
    """What stands for a masked token: as the objective says, as the encoder that it starts from learnt it, or the
    tokenizer's own.  Raises UsageError where there is none."""
    assert config.objective.masked is not None
    start = read_config(parents["start_from"].path) if "start_from" in parents else {}
    if config.objective.masked.token is None and start.get("mask_token_id") is not None:
        return int(start["mask_token_id"])
    return tokenizer.mask_id(config.objective.masked.token)


def _masking(config: ModelConfig, parents: Mapping[str, Artifact], tokenizer: Tokenizer, seed: int) -> Masking | None:
    masked = config.objective.masked
    if masked is None:
        return None
    ids = (mask_id(config, parents, tokenizer), tokenizer.vocab_size, tokenizer.special_ids)
    return Masking(f"masks/{seed}", *ids, masked.share, masked.replaced, masked.random)


def _network(config: ModelConfig, parents: Mapping[str, Artifact], tokenizer: Tokenizer, seed: int) -> Network:
    shape, masked = shape_of(config, parents, tokenizer), config.objective.masked is not None
    if config.architecture is not None:
        return (Encoder if masked else Network)(shape).initialise(seed)
    start = parents["start_from"].path
    return encoder_from(start, shape) if masked else load_network(start)


def _classifier(
    config: ModelConfig, parents: Mapping[str, Artifact], tokenizer: Tokenizer, classes: list[str], seed: int
) -> Classifier:
    if config.architecture is None:
        return classifier_from(parents["start_from"].path, classes, seed)
    return new_classifier(shape_of(config, parents, tokenizer), classes, seed)


def _packings(config: ModelConfig, parents: Mapping[str, Artifact], tokenizer: Tokenizer) -> dict[str, Packing]:
    packings = {name: _packing(config, parents[f"data.{name}"], "train", tokenizer) for name in config.data or {}}
    refuse_torn(config.length_ramp, packings)
    return packings


def _held_out(config: ModelConfig, parents: Mapping[str, Artifact], tokenizer: Tokenizer) -> dict[str, Packing]:
    names = list(config.data or {})
    held_out = {name: _packing(config, parents[f"data.{name}"], "validation", tokenizer, whole=True) for name in names}
    held_out = {name: packing for name, packing in held_out.items() if packing.rows}
    if not held_out:
        raise RefusedError(
            f"none of {', '.join(names)} has validation rows, so nothing would show whether training helps",
            "Give one of them split: {validation: 0.02}",
        )
    return held_out


def _packing(
    config: ModelConfig, tokens: Artifact, split: str, tokenizer: Tokenizer, whole: bool | None = None
) -> Packing:
    made_with = read_json(tokens.file(DESCRIPTION))["tokenizer"]
    if made_with != tokenizer.digest:
        raise WuxingError(f"{tokens.id} was made with another tokenizer than this model's", "Make it anew")
    data, length = open_tokens(tokens.path, split), config.length_tokens
    if whole is not None:
        return pack(data, length, whole)
    return pack(data, length, config.whole_documents, config.document_mask)
