"""Several processes for one model: the lead runs the recipe and hands out jobs, the others follow.

`wuxing run --processes 2` starts the others on this host; under torchrun they are there already.  All of them must see
the store's files under the same path.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wuxing.compute.device import pick_device
from wuxing.compute.team import Team, from_environment, start_followers
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import Interrupted, WuxingError
from wuxing.core.step import Draft
from wuxing.train.config import ModelConfig


def lead_of(context: Context) -> Team | None:
    """The processes that this one leads: started when first needed; None when it works alone."""
    if context.team is None:
        context.team = from_environment()
    if context.team is None and context.processes > 1:
        context.team = start_followers(context.processes, ["-m", "wuxing.train.together"])
    return context.team


def own_device(name: str) -> torch.device:
    """Of several processes on one host, each takes the GPU of its number."""
    device = pick_device(name)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if device.type == "cuda" else device


def job_of(
    config: ModelConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context
) -> dict[str, dict[str, Any]]:
    """What another process needs to do its share of a model, as JSON."""
    return {
        "config": config.model_dump(mode="json", exclude_unset=True),
        "parents": {role: {"path": str(a.path.resolve()), "record": a.record} for role, a in parents.items()},
        "draft": {
            "path": str(draft.path.resolve()),
            "kind": draft.kind,
            "name": draft.name,
            "fingerprint": draft.fingerprint,
            "seed": draft.seed,
        },
        "context": {"home": str(context.home.resolve()), "device": context.device, "workers": context.workers},
    }


def follow(processes: Team) -> None:
    """Do this process's share of each job until the lead says that there is nothing more."""
    from wuxing.train.make import follow_model

    while not (job := processes.take()).get("end"):
        context = Context(**{**job["context"], "home": Path(job["context"]["home"])})
        parents = {role: Artifact(Path(said["path"]), said["record"]) for role, said in job["parents"].items()}
        draft = Draft(**{**job["draft"], "path": Path(job["draft"]["path"])})
        try:
            with context.stop.listening():
                follow_model(ModelConfig.model_validate(job["config"]), parents, draft, context, processes)
        except Interrupted:
            continue  # the lead has saved, and says so
        except Exception as error:
            processes.fail(error)
            raise


def main() -> None:
    """A process that follows; its errors are the lead's to tell, unless the lead is gone."""
    processes = from_environment()
    assert processes is not None, "started without RANK and WORLD_SIZE"
    try:
        follow(processes)
    except WuxingError as error:
        if os.environ.get("WUXING_DEBUG"):
            raise
        print(f"wuxing: rank {processes.rank}: {error.what}. {error.remedy or ''}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
