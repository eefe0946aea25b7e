"""Several processes for one model: the lead runs the recipe and hands out jobs, the others follow.

`wuxing run --processes 2` starts the others on this host; under torchrun they are there already.  All of them must see
the store's files under the same path.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from wuxing.compute.device import pick_device
from wuxing.compute.fleet import is_lost
from wuxing.compute.place import LOST, end_with_parent
from wuxing.compute.team import Team, from_environment
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import Interrupted, WuxingError
from wuxing.core.file import temporary, write_text
from wuxing.core.step import Draft
from wuxing.train.config import ModelConfig

SEEN_SECONDS = 10.0
"""A file that one host has written must be there for another after so long: network file systems take a moment."""
SAME_RELEASES = ("torch", "safetensors", "wuxing")
"""All processes must have the same release of these: others round in other ways, or keep other files."""


def lead_of(context: Context) -> Team | None:
    """The processes that this one leads, which torchrun or a fleet started; None when it works alone."""
    if context.team is None:
        context.team = from_environment()
        context.lost = context.lost or (context.team.lost if context.team is not None else "")
    return context.team


def own_device(name: str) -> torch.device:
    """Of several processes on one host, each takes the GPU of its number; Ray shows each process only its own."""
    device = pick_device(name)
    if device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


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


@contextmanager
def marked(path: Path) -> Iterator[dict[str, Any]]:
    """Within: a file in the draft by which other processes see that they have the same files; what to look for."""
    mark = temporary(path / "mark")
    content = f"{os.getpid()} {time.time_ns()}"
    write_text(mark, content)
    try:
        yield {"path": str(mark.resolve()), "content": content, "releases": releases()}
    finally:
        mark.unlink(missing_ok=True)


def releases() -> dict[str, str]:
    """What is installed here and must be the same everywhere."""
    return {name: importlib.metadata.version(name) for name in SAME_RELEASES}


def wrong_here(mark: Mapping[str, Any]) -> str:
    """Why this process cannot take part in what another one began; empty when it can."""
    path, until = Path(mark["path"]), time.monotonic() + SEEN_SECONDS
    while True:
        if path.is_file() and path.read_text() == mark["content"]:
            break
        if time.monotonic() > until:
            where = path.parent
            return f"it does not see the store's files at {where}: all hosts must share them under the same path"
        time.sleep(0.1)
    for name, version in releases().items():
        if version != mark["releases"][name]:
            return f"it has {name} {version} and rank 0 has {mark['releases'][name]}: install the same"
    return ""


def hand_out(processes: Team, job: dict[str, Any]) -> None:
    """The lead: give a job to the others and wait until all of them can begin."""
    with marked(Path(job["draft"]["path"])) as mark:
        processes.give({**job, "mark": mark})
        processes.wait_ready()


def taken(job: Mapping[str, Any]) -> tuple[ModelConfig, dict[str, Artifact], Draft, Context]:
    """A job as what `make` gets."""
    context = Context(**{**job["context"], "home": Path(job["context"]["home"])})
    parents = {role: Artifact(Path(said["path"]), said["record"]) for role, said in job["parents"].items()}
    draft = Draft(**{**job["draft"], "path": Path(job["draft"]["path"])})
    return ModelConfig.model_validate(job["config"]), parents, draft, context


def follow(processes: Team) -> None:
    """Do this process's share of each job until the lead says that there is nothing more."""
    from wuxing.train.make import follow_model
    from wuxing.train.save.replay import repeat

    while not (job := processes.take()).get("end"):
        processes.ready(wrong := wrong_here(job["mark"]))
        if wrong:
            raise WuxingError(wrong)
        config, parents, draft, context = taken(job)
        try:
            with context.stop.listening():
                if "until" in job:
                    repeat(config, parents, draft, context, job["until"], processes)
                else:
                    follow_model(config, parents, draft, context, processes)
        except Interrupted:
            continue  # the lead has saved, and says so
        except Exception as error:
            processes.fail(error)
            raise


def main() -> None:
    """A process that follows; its errors are the lead's to tell, unless the lead is gone."""
    end_with_parent()
    processes = from_environment()
    assert processes is not None, "started without RANK and WORLD_SIZE"
    try:
        follow(processes)
    except Exception as error:
        lost = is_lost(error)
        if os.environ.get("WUXING_DEBUG") or not (lost or isinstance(error, WuxingError)):
            raise
        said = f"{error.what}. {error.remedy or ''}" if isinstance(error, WuxingError) else str(error)
        print(f"wuxing: rank {processes.rank}: {said}", file=sys.stderr)
        sys.exit(LOST if lost else 1)


if __name__ == "__main__":
    main()
