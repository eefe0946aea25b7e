"""From a model's config and parents to its signed files: setting up, training, evidence."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from wuxing.compute import team
from wuxing.compute.device import chosen_precision, pick_device, threads_set
from wuxing.compute.memory import MemoryPlan
from wuxing.compute.mesh import Topology
from wuxing.compute.team import Team, own_threads
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.evidence import Check
from wuxing.core.file import read_json, write_json
from wuxing.core.memory import trim_memory
from wuxing.core.step import Draft
from wuxing.data.plan import Stage
from wuxing.data.source import PackedSource
from wuxing.model.architecture import describe
from wuxing.model.network import Network
from wuxing.task.task import load_task
from wuxing.text.tokenizer import Tokenizer
from wuxing.train.assemble import WHOLE, Parts, assemble, load_tokenizer, mixer_of, shape_of
from wuxing.train.config import ModelConfig
from wuxing.train.evidence import Proof, judge, prove
from wuxing.train.fleet import has_fleet, train_on_fleet
from wuxing.train.numerics import cut_difference, pack_difference
from wuxing.train.order import phases
from wuxing.train.plan.budget import Start, Trial, foreseen, resolve_steps, span_seconds, try_out
from wuxing.train.plan.compile import is_compiled
from wuxing.train.plan.fit import Fit, fit_to_memory
from wuxing.train.plan.memory import Watch, plan_run
from wuxing.train.plan.origin import made_with, passage, told
from wuxing.train.plan.ramp import resolve, spans_of
from wuxing.train.rollout import lengths_of
from wuxing.train.run import ROLLOUTS, Run
from wuxing.train.save.checkpoint import Checkpoints
from wuxing.train.shard.build import described, exact_sum, topology_of
from wuxing.train.together import hand_out, job_of, lead_of, own_device
from wuxing.train.trainer import Trainer
from wuxing.train.update.average import Average
from wuxing.train.update.dropout import Dropout
from wuxing.train.update.freeze import check_names
from wuxing.train.update.law import learning_rate, settled

FINISHED = "finished.json"


@dataclass
class Setting:
    """What stays the same through one `make`."""

    config: ModelConfig
    parents: Mapping[str, Artifact]
    draft: Draft
    context: Context
    device: torch.device
    began: float
    topology: Topology = WHOLE

    @property
    def seed(self) -> int:
        """The model's own, else the recipe's."""
        return self.draft.seed if self.config.seed is None else self.config.seed

    def plan(self) -> tuple[MemoryPlan, Mapping[str, Any]]:
        """What a process needs that holds the whole state, and the shape of the network."""
        shape = shape_of(self.config, self.parents, load_tokenizer(self.parents))
        return plan_run(self.config, shape, chosen_precision(self.config.precision, self.device)), shape


def make_model(config: ModelConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Train, or go on training, and write the artifact; with several processes, as their lead."""
    if _finished_before(draft, config):
        return
    if has_fleet(context):
        train_on_fleet(config, parents, draft, context)
        assert _finished_before(draft, config), "rank 0 ended well without a finished model"
        return
    processes = lead_of(context)
    if processes is None:
        with threads_set(_threads_of(draft, context)):
            _write(*_train(config, parents, draft, context, pick_device(context.device)))
        return
    hand_out(processes, job_of(config, parents, draft, context))
    device = own_device(context.device)
    with processes.working(device), threads_set(team.from_lead(lambda: _threads_of(draft, context, processes))):
        _write(*_train(config, parents, draft, context, device))


def follow_model(
    config: ModelConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context, processes: Team
) -> None:
    """This process's share of a model that another one leads."""
    device = own_device(context.device)
    with processes.working(device), threads_set(team.from_lead(lambda: _threads_of(draft, context, processes))):
        _train(config, parents, draft, context, device)


def _threads_of(draft: Draft, context: Context, processes: Team | None = None) -> int:
    """Threads of each process; with several, the lead decides for all: they decide the bits."""
    if earlier := Start.read(draft.path):
        return earlier.threads
    if said := own_threads():
        return said
    return max(1, min(context.workers, torch.get_num_threads()) // (processes.local_ranks if processes else 1))


def _train(
    config: ModelConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context, device: torch.device
) -> tuple[Setting, Start, Run, Proof | None]:
    setting = Setting(config, parents, draft, context, device, time.monotonic())
    torch.manual_seed(setting.seed)
    watch = Watch()
    known = team.from_lead(lambda: asdict(known) if (known := Start.read(draft.path)) else {})
    local_ranks = context.team.local_ranks if context.team is not None else 1
    setting.topology = topology_of(config, setting.plan, device, known.get("topology", {}), local_ranks)
    start = Start(**known) if known else decide(setting, torch.get_num_threads())
    start = _with_topology(start, setting)
    trim_memory()  # what the decisions have used: training would lie around its holes
    run = begin(setting, start, watch)
    torch.manual_seed(setting.seed)  # whatever was drawn for the decisions and the network
    if run.resume() and (fresh := passage(start.made_with, run.passages, run.trainer.done, made_with(device))):
        run.passages = [*run.passages, *fresh]
        end = "the last bits may differ from a run that was never stopped"
        setting.context.progress.say(f"{run.name}: {told(fresh)}: {end}")
    try:
        run.finish()
    finally:
        run.checkpoints.settle()
    return setting, start, run, prove(run) if run.saves else None


def _with_topology(start: Start, setting: Setting) -> Start:
    """The start with the topology of now: kept, or another one because the recipe or the processes are others."""
    known = described(setting.config, setting.topology) if setting.topology.ranks > 1 else {}
    if known == start.topology:
        return start
    if start.topology:
        before, now = Topology(start.topology["replicas"], start.topology["shards"]), setting.topology
        say = setting.context.progress.say
        say(f"{setting.draft.name}: begun with its state {before.described}, it goes on {now.described}")
    start = replace(start, topology=known)
    if team.rank() == 0:
        start.write(setting.draft.path)
    return start


def decide(setting: Setting, threads: int) -> Start:
    """Everything on which the bits depend, from a trial whose weights are thrown away."""
    config, draft = setting.config, setting.draft
    precision = chosen_precision(config.precision, setting.device)
    say = setting.context.progress.say
    tokenizer = load_tokenizer(setting.parents)
    shape = shape_of(config, setting.parents, tokenizer)
    say(f"{draft.name}: {describe(shape)}")
    fit = _fit(setting, shape, tokenizer)
    config = setting.config = fit.applied(config)
    # the checks are made in fp32, and the type in which blocks are gathered is a part of a network that is cut
    cut = setting.topology.shards > 1
    parts = _assemble(setting, torch.float32 if cut else precision, None)
    rate = config.optimizer.learning_rate or learning_rate(config, _width(parts.network), parts.step_positions)
    say(f"{draft.name}: learning rate {rate:g}" + ("" if config.optimizer.learning_rate else " (derived)"))
    check_names([name for name, _ in parts.network.named_parameters()], config.freeze, config.optimizer.rates)
    checks = _check_numerics(parts)
    if cut:
        parts = _assemble(setting, precision, None)
    spread = (parts.step_positions, parts.epoch_steps)
    compiled = is_compiled(config, shape, *spread, precision, setting.device, setting.context)
    if compiled:
        parts.network.model.compile()
    trial: Trial | None = None
    if config.budget.minutes is not None:
        trial = try_out(_trainer(setting, parts, rate, 10**6, precision), parts.validate, 60 * config.budget.minutes)
    spans = spans_of(config)
    seconds = span_seconds(_trainer(setting, parts, rate, 10**6, precision), spans, trial)
    spent = time.monotonic() - setting.began
    measurements = config.measurements
    every = config.validation.every_steps
    steps = resolve_steps(config.budget, parts.step_positions, parts.epoch_steps, trial, measurements, spent, every)
    measurements += steps // every if every else 0
    planned = trial.step_seconds * steps + measurements * trial.validation_seconds if trial else 0.0
    sizes = (spans, config.length_tokens, parts.epoch_steps * spans[-1].rows)
    steps, stages = resolve(config.budget, steps, *sizes, seconds)
    start = Start(
        steps=steps,
        threads=threads,
        device=setting.device.type,
        precision=str(precision).removeprefix("torch."),
        compiled=compiled,
        step_seconds=trial.step_seconds if trial else 0.0,
        validation_seconds=trial.validation_seconds if trial else 0.0,
        planned_seconds=planned,
        **fit.decided,
        checks=checks,
        **foreseen(config, shape, steps),
        data=list(config.data or {}),
        made_with=made_with(setting.device),
        stages=[[stage.start, stage.rows, stage.parts] for stage in stages],
    )
    start = Start(**team.from_lead(lambda: asdict(start)))
    if team.rank() == 0:
        start.write(draft.path)
    where = f"{threads} threads" + (f" of each of {team.ranks()} processes" if team.ranks() > 1 else "")
    first = f"{stages[0].rows * config.length_tokens:,} to " if stages else ""
    size = f"{first}{parts.step_positions:,} positions"
    say(f"{draft.name}: {start.steps:,} steps of {size}, {start.precision} on {where}")
    return start


def _fit(setting: Setting, shape: Mapping[str, Any], tokenizer: Tokenizer) -> Fit:
    """How a step is cut to fit into memory."""
    config, device = setting.config, setting.device
    lengths = lengths_of(load_task(setting.parents["task"].path), tokenizer) if config.task else None
    where = (device, setting.topology.shards, setting.context.home, setting.context.progress.say)
    return fit_to_memory(config, shape, chosen_precision(config.precision, device), *where, lengths)


def _check_numerics(parts: Parts) -> dict[str, float]:
    batch = parts.first_batch()
    checks = {
        "step_cut": cut_difference(parts.network, parts.objective, batch, parts.shards),
        "packed_equals_separate": pack_difference(parts.network, batch),
    }
    if not all(math.isfinite(value) for value in checks.values()):
        raise WuxingError("the first batch already gives values that are not finite", "Look at the model in start_from")
    return checks


def begin(setting: Setting, start: Start, watch: Watch) -> Run:
    """The run that a start decided, before its first step."""
    config = setting.config = start.applied(setting.config)
    draft = setting.draft
    precision = getattr(torch, start.precision)
    parts = _assemble(setting, precision, draft.file(ROLLOUTS) if config.task else None)
    if isinstance(parts.source, PackedSource):
        parts.source.stages = [Stage(*stage) for stage in start.stages]
        parts.source.phases = phases(config.phases, start.steps, parts.source.stages, parts.source.step_rows)
    if start.compiled:
        parts.network.model.compile()
    rate = config.optimizer.learning_rate or learning_rate(config, _width(parts.network), parts.step_positions)
    return Run(
        trainer=_trainer(setting, parts, rate, start.steps, precision),
        validate=parts.validate,
        checkpoints=_checkpoints(setting, parts),
        directory=draft.path,
        context=setting.context,
        name=draft.name,
        identity=draft.fingerprint,
        learning_rate=rate,
        validation=config.validation,
        stop=config.stop,
        keep=config.keep,
        kept_steps=config.kept_steps(start.steps),
        save_every_seconds=config.save_every_seconds,
        memory=watch,
        mixer=mixer_of(config, setting.parents, parts),
    )


def _checkpoints(setting: Setting, parts: Parts) -> Checkpoints:
    directory, keep = setting.draft.path / "checkpoints", setting.config.keep_checkpoints
    say = setting.context.progress.say
    if parts.shards is None:
        return Checkpoints(directory, keep, say=say)
    from wuxing.train.save.share import SharedCheckpoints  # torch.distributed.checkpoint takes a second to import

    return SharedCheckpoints(directory, keep, say=say, shards=parts.shards)


def _assemble(setting: Setting, precision: torch.dtype, rollouts: Any) -> Parts:
    seed, device = setting.seed, setting.device
    return assemble(setting.config, setting.parents, seed, device, precision, rollouts, setting.topology)


def _trainer(setting: Setting, parts: Parts, rate: float, steps: int, precision: torch.dtype) -> Trainer:
    from wuxing.train.update.optimizer import Optimizer

    config = setting.config
    optimizer = Optimizer(parts.network, settled(config), rate, parts.shards, config.adds_exactly)
    return Trainer(
        network=parts.network,
        source=parts.source,
        objective=parts.objective,
        optimizer=optimizer,
        schedule=config.schedule,
        steps=steps,
        precision=precision,
        clip=config.optimizer.clip,
        dropout=Dropout(config.dropout, setting.seed) if config.dropout else None,
        freeze=config.freeze,
        guard=config.guard,
        average=Average(config.average) if config.average is not None else None,
        shards=parts.shards,
        exact=exact_sum(parts.shards) if config.adds_exactly else None,
    )


def _width(network: Network) -> int:
    return int(network.config["hidden_size"])


def _write(setting: Setting, start: Start, run: Run, proof: Proof | None) -> None:
    """Files, evidence, and last of all the note that lets a killed attempt skip all this; then checkpoints may go."""
    from wuxing.model.files import save_network

    draft = setting.draft
    assert proof is not None, "the lead takes part in saving"
    if setting.topology.shards > 1:
        from wuxing.train.save.share import save_judged

        save_judged(run.checkpoints.path(run.kept["step"]), run.trainer.network, draft.path)
    else:
        with run.chosen() as network:
            save_network(network, draft.path)
    load_tokenizer(setting.parents).save(draft.path)
    write_json(draft.file("training.json"), _training(setting, start, run))
    judge(draft, setting.config, start, run, proof)
    note = {
        "model": digest_of_file(draft.path / "model.safetensors"),
        "evidence": draft.evidence.to_json(),
        "summary": draft.summary,
    }
    write_json(draft.file(FINISHED), note)
    run.checkpoints.remove_all(run.kept_steps)


def _training(setting: Setting, start: Start, run: Run) -> dict[str, Any]:
    """`training.json`: everything that decided the weights, nothing that a repetition would change."""
    config, trainer = setting.config, run.trainer
    return {
        "objective": config.objective.model_dump(mode="json", exclude_none=True),
        "budget": config.budget.model_dump(mode="json", exclude_none=True),
        "steps": trainer.done,
        "positions": trainer.positions,
        "taught": trainer.taught,
        "plan": trainer.source.digest,
        "seed": setting.seed,
        "learning_rate": run.learning_rate,
        "length_tokens": config.length_tokens,
        "precision": start.precision,
        "device": start.device,
        "threads": start.threads,
        "compiled": start.compiled,
        "made_with": start.made_with,
        "passages": run.passages,
        "validation": run.history,
        "best_step": run.best_step,
        "kept_step": run.kept["step"],
        "ended": run.ended,
        "rewinds": run.rewinds,
        "adjustments": run.knobs.applied,
        "skipped_updates": trainer.skips,
        "lineage": {"start_from": _start(setting.parents), "data": list(_lineage(setting))},
    }


def _start(parents: Mapping[str, Artifact]) -> dict[str, str] | None:
    start = parents.get("start_from")
    return {"id": start.id, "content": start.content} if start else None


def _lineage(setting: Setting) -> Iterator[dict[str, Any]]:
    """The data that this model and those before it saw."""
    start = setting.parents.get("start_from")
    if start is not None and "training.json" in start.record["files"]:
        yield from read_json(start.file("training.json"))["lineage"]["data"]
    for name, share in (setting.config.data or {}).items():
        tokens = setting.parents[f"data.{name}"]
        seen = read_json(tokens.file("tokens.json"))["data"]
        yield {**seen, "split": "train", "share": share, "by": setting.draft.name}
    if setting.config.task is not None:
        task = setting.parents["task"]
        yield {"id": task.id, "content": task.content, "split": "train", "share": 1.0, "by": setting.draft.name}


def _finished_before(draft: Draft, config: ModelConfig) -> bool:
    """Whether an earlier attempt was killed between its last file and the signature."""
    path, model = draft.path / FINISHED, draft.path / "model.safetensors"
    if not path.exists() or not model.exists():
        return False
    note = read_json(path)
    if digest_of_file(model) != note["model"]:
        return False
    draft.evidence.checks = [Check(**check) for check in note["evidence"]]
    draft.summary.update(note["summary"])
    start = Start.read(draft.path)
    Checkpoints(draft.path / "checkpoints").remove_all(config.kept_steps(start.steps) if start else ())
    return True
