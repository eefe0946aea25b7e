"""What a trained model must prove about itself before anything may be built on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wuxing.compute import team
from wuxing.core.evidence import Evidence
from wuxing.core.file import read_lines
from wuxing.core.memory import trim_memory
from wuxing.core.step import Draft
from wuxing.data.source import PackedSource
from wuxing.train.config import ModelConfig
from wuxing.train.numerics import CUT_TOLERANCE, PACK_TOLERANCE
from wuxing.train.plan.budget import Start
from wuxing.train.plan.origin import told
from wuxing.train.plan.outcome import leave_outcome
from wuxing.train.run import LOG, Run

SAMPLER_MISMATCH = 0.02
"""Mean k3 between sampler and trainer, in nats per token.  Their bf16 differs by some 1e-4; a stale or differently
rendered prompt by more than 0.1."""

COLLAPSED = 0.02
"""Share of the first steps' entropy below which replies no longer vary."""


@dataclass(frozen=True)
class Proof:
    """What needs the weights themselves: found by every process for what it keeps, while all of them are there."""

    finite: bool
    reloaded: tuple[bool, str]


def prove(run: Run) -> Proof:
    """Look at the weights, and read the last checkpoint back; of processes that share the state, on each."""
    run.checkpoints.release()
    trim_memory()  # what is read back takes the place of the copies, and of what the last step has freed
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in run.trainer.named.values())
    good, note = _reload(run)
    if not run.checkpoints.everyone:
        return Proof(finite, (good, note))
    finite_there, good_there = (not wrong for wrong in team.any_of([not finite, not good]))
    note = next((said for said in team.of_everyone("" if good else note) if said), note)
    return Proof(finite_there, (good_there, note))


def judge(draft: Draft, config: ModelConfig, start: Start, run: Run, proof: Proof) -> None:
    """Leave every check of a finished run in the draft's evidence, and the headline figures in its summary."""
    evidence, trainer = draft.evidence, run.trainer
    evidence.judge("finite", proof.finite, trainer.done, None, "steps with finite loss, gradient and weights")
    _judge_held_out(evidence, run)
    errors = leave_outcome(evidence, run, start, config.length_tokens, run.context.home, draft.file(LOG))
    _judge_data(evidence, config, run)
    evidence.judge("resumable", *proof.reloaded, None, "the last checkpoint, read back, against the weights in memory")
    cut, packed = start.checks["step_cut"], start.checks["packed_equals_separate"]
    evidence.judge("step_cut", cut <= CUT_TOLERANCE, cut, CUT_TOLERANCE, "gradient whole against cut, relative, fp32")
    evidence.judge("packed_equals_separate", packed <= PACK_TOLERANCE, packed, PACK_TOLERANCE, "states, relative, fp32")
    evidence.measure("made_with", told(run.passages), "libraries, processor, processes: else the last bits may differ")
    evidence.measure("loss_spikes", run.spikes, f"named in {LOG}")
    evidence.measure("checkpoint_pause", round(run.pause_seconds, 3), "seconds that training waited for checkpoints")
    if config.rollout is not None:
        _judge_rollouts(evidence, run)
    metric = run.validate.metric
    draft.summary.update(
        {
            metric: run.kept[metric],
            f"{metric}_start": run.history[0][metric],
            "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
            "steps": trainer.done,
            "ended": run.ended,
            "positions": trainer.positions,
            "seconds": round(run.seconds, 1),
            **errors,
        }
    )


def _judge_held_out(evidence: Evidence, run: Run) -> None:
    metric, lower = run.validate.metric, run.validate.lower_is_better
    first, last = run.history[0][metric], run.kept[metric]
    better = last < first if lower else last > first
    evidence.judge(
        "held_out_improved", better, last, f"{'<' if lower else '>'} {first}", f"{metric} of validation data"
    )


def _judge_data(evidence: Evidence, config: ModelConfig, run: Run) -> None:
    trainer = run.trainer
    seen = {
        "data": dict(config.data or {}) or {str(config.task): 1.0},
        "positions": trainer.positions,
        "taught": trainer.taught,
        "plan": trainer.source.digest[:16],
    }
    evidence.judge("data_seen", trainer.taught > 0, seen, None, "positions, labels that taught, sample plan")
    if isinstance(trainer.source, PackedSource):
        lost = {name: packing.losses for name, packing in trainer.source.packings.items()}
        rounded = {name: {key: round(value, 5) for key, value in losses.items()} for name, losses in lost.items()}
        fates = {name: packing.fates for name, packing in trainer.source.packings.items()}
        evidence.measure("packing_fates", fates, "documents by what the rows made of them")
        lines = [line for line in read_lines(run.directory / LOG) if "loader_wait_seconds" in line]
        waited, seconds = (sum(line[key] for line in lines) for key in ("loader_wait_seconds", "seconds"))
        share = round(waited / max(1e-9, seconds), 5)
        evidence.measure("loader_wait_share", share, "of the time of all steps, spent waiting for their batches")
        evidence.measure("packing_losses", rounded, "shares of padding and of truncated ids; documents without a label")


def _reload(run: Run) -> tuple[bool, str]:
    checkpoint = run.checkpoints.latest(run.context.progress.say)
    if checkpoint is None:
        return False, "there is no checkpoint"
    if checkpoint.step != run.trainer.done:
        return False, f"the last checkpoint is of step {checkpoint.step}"
    groups = checkpoint.tensors or run.checkpoints.taken_up(checkpoint, checkpoint.step)
    for group, tensors in run.trainer.tensors().items():
        for name, tensor in tensors.items():
            if not torch.equal(tensor.detach().cpu(), groups[group][name]):
                return False, f"{name} differs"
    return True, f"step {checkpoint.step}, every bit"


def _judge_rollouts(evidence: Evidence, run: Run) -> None:
    lines = [line for line in read_lines(run.directory / LOG) if "mismatch" in line]
    worst = max(line["mismatch"] for line in lines)
    evidence.judge(
        "sampler_matches", worst <= SAMPLER_MISMATCH, worst, SAMPLER_MISMATCH, "largest mean k3 of a step, nats"
    )
    equal = sum(line["equal_groups"] for line in lines) / len(lines)
    evidence.measure("equal_groups", round(equal, 4), "groups whose replies all earned the same: they teach nothing")
    first, last = lines[0]["entropy"], lines[-1]["entropy"]
    better = run.history[-1][run.validate.metric] > run.history[0][run.validate.metric]
    floor = COLLAPSED * first
    note = "nats per reply token at the end; less is a collapse unless held-out answers became better"
    evidence.judge("not_collapsed", last > floor or better, last, f"> {floor:.4g}", note)
