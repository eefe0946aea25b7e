"""The verb `track`: which runs are mirrored, for how long, and what is remembered of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wuxing.core.store import Store
    from wuxing.train.watch.mirror import Mirror

LOOK_SECONDS = 2.0


def mirror_all(
    store: Store,
    names: Sequence[str],
    to: str,
    into: str | None,
    project: str,
    online: bool = False,
    live: bool = False,
    new: bool = False,
) -> dict[str, int]:
    """Send what is new of these runs; with `live` until all of them have ended, or a signal comes.

    `new`: runs that have ended before are left alone.  Returns how many lines were sent of each.
    """
    from wuxing.core.error import WuxingError
    from wuxing.train.watch.tracker import make_tracker

    make_tracker(to, into, project, online)  # a wrong word is said before anything waits
    mirrors: dict[str, Mirror] = {}
    sent = dict.fromkeys(names, 0)
    over: set[str] = set()
    before = {artifact.fingerprint for name in names for artifact in store.versions("model", name)} if new else set()
    with _asked_to_end() as asked:
        while True:
            ending = bool(asked)  # before the last look, so that nothing written until then is missed
            for name in sent:
                if name not in mirrors and (directory := _begun(store, name, before)) is not None:
                    tracker = make_tracker(to, into, project, online)
                    mirrors[name] = _mirror(store, directory, name, tracker, f"{to} {into} {project}")
                if name in mirrors and name not in over:
                    done = is_over(store, mirrors[name])
                    sent[name] += mirrors[name].follow()
                    over |= {name} if done else set()
            if not live or ending or len(over) == len(sent):
                break
            time.sleep(LOOK_SECONDS)
    for name, mirror in mirrors.items():
        mirror.end(name in over)
    if not live and (missing := [name for name in names if name not in mirrors]):
        raise WuxingError(f"nothing was trained here as {missing[0]}", "Start it: wuxing run RECIPE, or wait: --live")
    return sent


def _begun(store: Store, name: str, before: set[str]) -> Path | None:
    """Where the newest run of a name lies, once it has a log; None until then."""
    fresh = [artifact.path for artifact in store.versions("model", name) if artifact.fingerprint not in before]
    begun = [path for path in [*fresh, *store.drafts("model", name)] if (path / "log.jsonl").exists()]
    return begun[-1] if begun else None


def is_over(store: Store, mirror: Mirror) -> bool:
    """Whether the run has written its last line; a signed artifact lies in another directory than its draft."""
    name, identity = mirror.subject.name, mirror.subject.identity
    if (mirror.directory / "record.json").exists():
        return True
    signed = [one for one in store.versions("model", name) if one.fingerprint.startswith(identity)]
    if signed:
        mirror.move(signed[-1].path)
    return bool(signed)


def _mirror(store: Store, directory: Path, name: str, tracker: Any, target: str) -> Mirror:
    from wuxing.core.digest import digest_of
    from wuxing.core.file import read_json
    from wuxing.train.watch.mirror import Mirror, Subject

    signed = directory / "record.json"
    identity = read_json(signed)["fingerprint"][:16] if signed.exists() else directory.name.removeprefix(".partial-")
    state = store.home / "cache" / "track" / f"{digest_of([target, name, identity])[:16]}.json"
    return Mirror(directory, Subject(name, identity), tracker, state)


@contextmanager
def _asked_to_end() -> Iterator[list[int]]:
    """Within: signals that ask this process to end only leave a note."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def tracking(home: Path, names: Sequence[str], asked: str | None) -> Iterator[None]:
    """Within: another process mirrors these models.  `asked`: `tensorboard`, or `tensorboard:DIRECTORY`."""
    if not asked or not names:
        yield
        return
    to, _, into = asked.partition(":")
    command = [
        sys.executable,
        "-m",
        "wuxing",
        "track",
        *names,
        "--to",
        to,
        "--live",
        "--new",
        "--home",
        str(home),
        "--json",
    ]
    child = subprocess.Popen([*command, *(["--into", into] if into else [])], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.terminate()
        child.wait()
