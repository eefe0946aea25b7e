"""Making a release: export, prove equal to what was trained, judge by the gate, describe."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.evidence import Evidence
from wuxing.core.file import read_json, read_lines, write_json, write_text
from wuxing.core.step import Draft
from wuxing.model.files import load_network
from wuxing.release.card import model_card
from wuxing.release.gate import evaluated_name, judge
from wuxing.release.gguf_file import write_gguf
from wuxing.release.lineage import UNKNOWN, ancestors, data_sources
from wuxing.release.parity import (
    Reader,
    Trained,
    different_answers,
    different_gguf_tensors,
    different_ids,
    different_renderings,
    different_tensors,
    llama_logits,
    transformers_logits,
)
from wuxing.release.reader import REMEDY, LlamaReader, TransformersReader, has_llama
from wuxing.release.release_kind import ReleaseKind, ReleaseStep
from wuxing.text.tokenizer import Tokenizer

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
GGUF_BOUNDS = {"f32": 5e-4, "f16": 0.1, "bf16": 0.5}
PROMPTS_OF_EVALUATION = 4
"""Held-out problems of each task that join the conversations on which formats are compared."""


def make_release(config: ReleaseStep, model: Artifact, evaluation: Artifact, draft: Draft, context: Context) -> None:
    """Write the files of the release and judge them."""
    name, results = evaluated_name(evaluation, model), read_json(evaluation.file("results.json"))
    if config.gate:
        judge(config.gate, results, name)
    with context.progress.bar("release", 5) as bar:

        def done(what: str) -> None:
            context.stop.leave("a release starts over, its exports are quickly made again")
            bar.advance()
            bar.note(what)

        trained = load_trained(model, held_out_prompts(evaluation, name))
        export(config, model, trained, draft.path, draft.name)
        done("exported")
        parity = prove(config, trained, draft, context.workers, done)
    _judge_directory(draft, trained.tokenizer)
    sources = data_sources(model, context.home)
    _judge_licenses(config, [source.to_json() for source in sources], draft.evidence)
    if config.gate:
        verdict = judge(config.gate, results, name)
        asked = f"gain of at least {config.gate.minimum_gain:g} with an interval above 0"
        draft.evidence.judge("gate", verdict.passed, verdict.to_json(), asked, verdict.note)
    else:
        draft.evidence.measure("gate", "none was asked for; nothing is promoted")
    card = model_card(
        draft.name,
        config.license,
        trained.network.config,
        results,
        name,
        sources,
        ancestors(model, context.home),
        parity,
    )
    write_text(draft.file("model/README.md"), card)
    write_json(draft.file("parity.json"), parity)
    write_json(draft.file("reference.json"), {name: read_json(evaluation.file("reference.json"))[name]})
    write_json(draft.file("template.json"), {"digest": trained.tokenizer.template_digest})
    _write_manifest(draft)
    _summarise(config, draft, parity, model, results["models"][name]["metrics"])


def load_trained(model: Artifact, chats: list[Any]) -> Trained:
    """The parent model, in fp32, with the fixed and the held-out conversations."""
    trained = Trained(load_network(model.path), Tokenizer.load(model.path))
    return Trained(trained.network, trained.tokenizer, [*trained.chats, *chats]) if chats else trained


def held_out_prompts(evaluation: Artifact, name: str) -> list[Any]:
    """A few prompts of each task of the evaluation."""
    found: list[Any] = []
    for path in sorted((evaluation.path / "samples").glob(f"{name}--*.jsonl")):
        rows = [row for row in read_lines(path)[:PROMPTS_OF_EVALUATION] if isinstance(row.get("prompt"), list)]
        found += [row["prompt"] for row in rows]
    return found


def export(config: ReleaseStep, model: Artifact, trained: Trained, directory: Path, name: str) -> None:
    """Write `model/`, and `model.gguf` where it is asked for."""
    (directory / "model").mkdir(parents=True, exist_ok=True)
    for file in MODEL_FILES:
        shutil.copyfile(model.file(file), directory / "model" / file)
    if "gguf" in config.formats:
        write_gguf(trained.network, trained.tokenizer, directory / "model.gguf", name, config.gguf_precision)


def prove(
    config: ReleaseStep,
    trained: Trained,
    draft: Draft,
    threads: int = 1,
    done: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Measure every format against the trained model and judge it; returns what `parity.json` holds."""
    answers = trained.answers()
    bound = config.parity.transformers
    theirs = TransformersReader(draft.path / "model")
    done("transformers has loaded it")
    formats = {theirs.name: _common(trained, theirs, answers, bound)}
    formats[theirs.name]["logits"] = transformers_logits(trained, theirs, bound).to_json() | {"bound": bound}
    expected = {name: parameter.detach().cpu() for name, parameter in trained.network.named_parameters()}
    formats[theirs.name]["tensors"] = different_tensors(expected, draft.path / "model")
    done("transformers agrees" if not _problems(formats, "logits", config) else "transformers differs")
    missing = []
    if "gguf" in config.formats:
        path, precision = draft.path / "model.gguf", config.gguf_precision
        if has_llama():
            bound = config.parity.gguf or GGUF_BOUNDS[precision]
            with LlamaReader(path, threads) as reader:
                formats[reader.name] = _common(trained, reader, answers, bound)
                formats[reader.name]["logits"] = llama_logits(trained, reader, bound).to_json() | {"bound": bound}
            formats[reader.name]["tensors"] = different_gguf_tensors(trained.network, path, precision)
        else:
            missing.append("llama.cpp")
    done("compared")
    _judge_parity(config, formats, missing, draft.evidence)
    return {"formats": formats, "missing": missing, "gguf_precision": config.gguf_precision}


def _common(trained: Trained, reader: Reader, answers: list[list[int]], bound: float) -> dict[str, Any]:
    return {
        "texts": len(trained.texts),
        "ids": different_ids(trained, reader),
        "conversations": len(trained.chats),
        "template": different_renderings(trained, reader),
        "prompts": len(answers),
        "answers": different_answers(trained, answers, reader, bound),
    }


def _judge_parity(config: ReleaseStep, formats: dict[str, Any], missing: list[str], evidence: Evidence) -> None:
    unread = f"xllamacpp, which reads GGUF files, is not installed. {REMEDY}" if missing else ""
    evidence.judge("readers", not missing, sorted(formats), sorted([*formats, *missing]), unread)
    notes = {
        "ids": "held-out texts whose token ids differ from ours",
        "template": "conversations that are rendered otherwise",
        "tensors": "tensors that are not the trained ones",
        "answers": "greedy answers that differ beyond a tie",
    }
    for what, note in notes.items():
        problems = _problems(formats, what, config)
        evidence.judge(f"parity_{what}", not problems, problems or "equal", "equal", note)
    figures = {name: found["logits"] for name, found in formats.items()}
    asked = f"within the bound, top-1 agreement at least {config.parity.top1_agreement}"
    passed = not _problems(formats, "logits", config)
    evidence.judge("parity_logits", passed, figures, asked, "against the trained model, by position")


def _problems(formats: dict[str, Any], what: str, config: ReleaseStep) -> dict[str, Any]:
    """Reader → what differs, for those where something does."""
    if what != "logits":
        return {name: found[what][:3] for name, found in formats.items() if found[what]}
    return {
        name: found["logits"]
        for name, found in formats.items()
        if not (
            found["logits"]["max_difference"] <= found["logits"]["bound"]
            and found["logits"]["top1_agreement"] >= config.parity.top1_agreement
        )
    }


def _judge_directory(draft: Draft, tokenizer: Tokenizer) -> None:
    directory = draft.path / "model"
    names = sorted(path.name for path in directory.iterdir())
    foreign = [name for name in names if name not in (*MODEL_FILES, "README.md")]
    configs = [read_json(directory / name) for name in ("config.json", "tokenizer_config.json")]
    foreign += [key for config in configs for key in ("auto_map", "trust_remote_code") if key in config]
    note = "safetensors and JSON only, nothing that asks for code"
    draft.evidence.judge("loads_without_code", not foreign, foreign or names, "no other files or keys", note)
    released = Tokenizer.load(directory).template_digest
    trained = tokenizer.template_digest
    draft.evidence.judge("template", released == trained, released, trained, "digest of the chat template")


def _judge_licenses(config: ReleaseStep, sources: list[dict[str, str]], evidence: Evidence) -> None:
    note = "licences of the data the model learned from"
    unknown = sorted({source["artifact"] for source in sources if source["license"] == UNKNOWN})
    if unknown:
        note += f"; unknown for {', '.join(unknown)}"
    if config.allowed_licenses is None:
        evidence.measure("licenses", sources, note)
        return
    allowed = {license.lower() for license in config.allowed_licenses}
    refused = [source for source in sources if source["license"].lower() not in allowed]
    evidence.judge("licenses", not refused, refused or sources, list(config.allowed_licenses), note)


def _write_manifest(draft: Draft) -> None:
    files = sorted(p for p in draft.path.rglob("*") if p.is_file() and p.name not in ("manifest.json", "parity.json"))
    listed = [
        {"path": str(p.relative_to(draft.path)), "sha256": digest_of_file(p), "bytes": p.stat().st_size} for p in files
    ]
    write_json(draft.file("manifest.json"), listed)


def _summarise(
    config: ReleaseStep, draft: Draft, parity: dict[str, Any], model: Artifact, metrics: dict[str, Any]
) -> None:
    draft.summary["model"] = model.id
    draft.summary["formats"] = ", ".join(config.formats)
    for name, found in parity["formats"].items():
        draft.summary[f"logit difference to {name}"] = found["logits"]["max_difference"]
    for metric, figure in metrics.items():
        draft.summary[metric] = round(figure["value"], 4)
    wanted = config.gate.alias if config.gate else None
    if wanted and not draft.evidence.failures(ReleaseKind.required):
        draft.summary["promote"] = {"alias": wanted}
