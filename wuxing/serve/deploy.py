"""The evidence of a deployment: what is about to be served is what was released.

Written to `<home>/deployments/<release name>/<time>/`: `evidence.json` with the checks, `deployment.json` with what,
where and when.  A failed check refuses to serve.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.artifact import Artifact
from wuxing.core.digest import digest_of_file
from wuxing.core.error import RefusedError, UsageError
from wuxing.core.evidence import Evidence
from wuxing.core.exchange import now
from wuxing.core.file import read_json, write_json
from wuxing.release.prompt import CHATS
from wuxing.serve.answer import Answer
from wuxing.serve.error import ApiError

if TYPE_CHECKING:
    from wuxing.serve.service import Service
    from wuxing.serve.worker import Inbox

PROBE_TOKENS = 24
TIE_LOGITS = {"float32": 1e-3, "bfloat16": 0.125, "float16": 0.02}
"""Two tokens whose logits lie closer than this are a tie: the rounding of the precision may order them either way.
Four units in the last place of a logit of magnitude 8 for the half precisions; for float32 far above its rounding."""
REQUIRED = ("files_intact", "template", "served_equals_released", "health", "keys_on")


def check_files(release: Artifact, evidence: Evidence) -> None:
    """`files_intact` and `template`, before anything of the release is loaded."""
    if release.kind != "release":
        raise UsageError(f"{release.id} is no release", "Serve a release, for example first-model@production")
    if release.failures:
        raise RefusedError(
            f"{release.id} lacks evidence: {release.failures[0]}", "Make the release again, or accept it with a reason"
        )
    damaged = [name for name in _needed(release) if not _intact(release, name)]
    evidence.judge("files_intact", not damaged, damaged or "all", "all", "digests of the files that are served")
    if damaged:
        return
    from wuxing.text.tokenizer import Tokenizer

    served = Tokenizer.load(release.path / "model").template_digest
    released = str(read_json(release.file("template.json"))["digest"])
    evidence.judge("template", served == released, served, released, "digest of the chat template")


def check_service(service: Service, evidence: Evidence) -> None:
    """`served_equals_released`, `health` and `keys_on` of a service that is ready to answer."""
    probes = [service.tokenizer.encode_chat(chat) for chat in CHATS]
    room = service.context_tokens - PROBE_TOKENS
    probes = [probe for probe in probes if len(probe) <= room] or [probes[0][-room:]]
    served = asyncio.run(_serve(service, probes))
    different = [
        difference
        for probe, reply in zip(probes, served, strict=True)
        if (difference := _compare(service, probe, reply))
    ]
    note = "greedy answers through the serving engine against one plain forward pass per token of the released weights"
    evidence.judge("served_equals_released", not different, different or f"{len(probes)} probes", "equal", note)
    evidence.judge("health", service.status == "ok", service.status, "ok")
    evidence.measure("keys_on", service.keys is not None)


def write_evidence(release: Artifact, home: Path, evidence: Evidence, place: dict[str, Any]) -> Path:
    """Leave the evidence; RefusedError with every failed check when there is one."""
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    directory = home / "deployments" / release.name / time
    write_json(directory / "evidence.json", evidence.to_json())
    failures = evidence.failures(REQUIRED)
    what = {"release": release.id, "content": release.content, "time": now(), "failures": failures, **place}
    write_json(directory / "deployment.json", what)
    failed = [check for check in evidence.checks if check.verdict == "failed"]
    if failed:
        lines = "; ".join(evidence.failures())
        raise RefusedError(f"{release.id} is not served: {lines}", _REMEDIES.get(failed[0].name))
    return directory


_REMEDIES = {
    "files_intact": "Restore the files, or make the release again",
    "template": "The chat template is not the one that was released: restore it, or make a new release with it",
    "served_equals_released": "The machine computes other answers than the release: try --device cpu, and report it",
}


def _needed(release: Artifact) -> list[str]:
    return [name for name in release.record["files"] if name.startswith("model/") or name == "template.json"]


def _intact(release: Artifact, name: str) -> bool:
    path = release.path / name
    return path.is_file() and digest_of_file(path) == release.record["files"][name]["sha256"]


async def _serve(service: Service, probes: list[list[int]]) -> list[list[int]]:
    """Greedy tokens of all probes at once, as clients would get them."""
    from wuxing.generate.engine import Request

    inbox: Inbox = asyncio.Queue()
    requests = [
        Request(f"probe-{n}", probe, PROBE_TOKENS, temperature=0.0, stop_tokens=service.stop_tokens)
        for n, probe in enumerate(probes)
    ]
    service.worker.submit(requests, inbox)
    answers = [Answer(service.tokenizer, [], service.stop_tokens) for _ in probes]
    replies: list[list[int]] = [[] for _ in probes]
    left = len(probes)
    while left:
        index, event = await inbox.get()
        if isinstance(event, ApiError):
            raise RefusedError(f"{service.release.id} does not answer: {event.message}", "See the server's log")
        replies[index].append(event.token)
        left -= answers[index].push(event).finish is not None
    return replies


def _compare(service: Service, probe: list[int], reply: list[int]) -> str:
    """Empty when `reply` is the model's own greedy answer; else where the two part."""
    import torch

    network = service.network
    tie = TIE_LOGITS[service.precision]
    device = next(network.parameters()).device
    with torch.inference_mode():
        logits_TV = network(torch.tensor([probe + reply], device=device))[0].float()
    if reply[-1] not in service.stop_tokens and len(reply) != PROBE_TOKENS:
        return f"the answer ends after {len(reply)} tokens without a stop token"
    for place, token in enumerate(reply):
        logits_V = logits_TV[len(probe) + place - 1]
        if float(logits_V.max() - logits_V[token]) > tie:
            return f"token {place} of the answer is {token}, the model's own is {int(logits_V.argmax())}"
    return ""
