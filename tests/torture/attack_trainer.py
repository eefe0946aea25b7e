"""Attack a training run with what happens on real machines, and show the line that its owner reads.

    python tests/torture/attack_trainer.py [--only full_disk,two_at_once] [--json]

Every attack begins with a run that was killed half-way, does its harm, types `wuxing run` again, mends the harm if it
was refused, and types it once more: the finished weights must be those of a run that was never attacked.  A line that
is not as expected, other weights, or a traceback end with exit code 1.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import kill_trainer  # noqa: F401  imports everything that a run needs, before the first child is forked
import killer
import torch
import yaml
from fated import save_at_once
from killer import Kill, exit_code
from lives import PLAIN, SPLIT, write_data

from wuxing.commands.main import main as command
from wuxing.core.digest import digest_of_file
from wuxing.core.environment import environment
from wuxing.core.file import read_json
from wuxing.core.progress import Bar
from wuxing.train.run import Run
from wuxing.train.trainer import StepReport

STEPS = 20
NEWNS, NEWUSER, REMOUNT, READ_ONLY = 0x20000, 0x10000000, 32, 1


@dataclass
class Scene:
    """A store of its own, with a run that was killed after some steps."""

    root: Path
    home: Path
    said: list[str] = field(default_factory=list)

    @property
    def draft(self) -> Path:
        (found,) = self.home.glob("model/life/.partial-*")
        return found

    @property
    def checkpoints(self) -> list[Path]:
        return sorted(self.draft.glob("checkpoints/step-*"))

    def type(self, kill: Kill | None = None, before: Callable[[], None] = lambda: None, *more: str) -> tuple[int, str]:
        """`wuxing run`; returns its exit code and what it said."""
        log = self.root / "said.txt"
        log.write_text("")

        def work(rank: int) -> int:
            torch.set_num_threads(1)
            before()
            sys.argv = ["wuxing", "run", str(self.root / "r.yaml"), "--home", str(self.home), *more]
            try:
                command()
            except SystemExit as ended:
                return int(ended.code or 0)
            return 0

        code = exit_code(work, self.home, kill, log)
        text = log.read_text()
        assert "Traceback" not in text and "fault of Wuxing" not in text, text
        self.said += [line for line in text.splitlines() if "→" in line or "wuxing:" in line or "checkpoint" in line]
        return code, text

    def weights(self, version: int = 1) -> str:
        return digest_of_file(self.home / f"model/life/v{version}/model.safetensors")

    def made(self, name: str, version: int = 1) -> Path:
        return self.home / f"model/life/v{version}/{name}"


def full_disk(scene: Scene, straight: str) -> str:
    """No checkpoint can be written (here a limit of file sizes): three in a row, then it ends."""
    limit = (scene.checkpoints[-1] / "model.safetensors").stat().st_size // 2

    def narrow() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    before = {path.name for path in scene.checkpoints}
    code, said = scene.type(None, narrow)
    assert code == 1 and before <= {path.name for path in scene.checkpoints}, said
    assert not list(scene.draft.glob("checkpoints/.draft-*"))
    return found(r"a checkpoint could not be written \(File too large\).*training goes on", said) + finished(
        r"error: a file would be larger than is allowed here .* nothing was lost", said, scene, straight
    )


def full_tmpfs(scene: Scene, straight: str, options: str = "") -> str:
    """The store on a small disk that other files fill up."""
    small = scene.root / "small"
    shutil.move(scene.home, scene.root / "aside")
    small.mkdir()
    mount(small, "tmpfs", "size=64m")
    try:
        shutil.copytree(scene.root / "aside", small / "home")
        scene.home = small / "home"
        if options:
            mount(small, "tmpfs", options, REMOUNT)
        else:
            (small / "other").write_bytes(bytes(os.statvfs(small).f_bavail * os.statvfs(small).f_frsize - 150_000))
        code, said = scene.type()
        assert code == 1, said
        mount(small, "tmpfs", "size=64m,nr_inodes=0", REMOUNT)
        (small / "other").unlink(missing_ok=True)
        line = r"inodes are used up" if "inodes" in options else r"error: the disk is full while making model/life"
        return finished(line, said, scene, straight)
    finally:
        unmount(small)


def full_inodes(scene: Scene, straight: str) -> str:
    """The disk has bytes left, and no inode."""
    used = sum(1 for _ in scene.home.rglob("*")) + 2
    return full_tmpfs(scene, straight, f"size=64m,nr_inodes={used}")


def read_only(scene: Scene, straight: str) -> str:
    """The disk was mounted anew, for reading only."""
    small = scene.root / "small"
    shutil.move(scene.home, scene.root / "aside")
    small.mkdir()
    mount(small, "tmpfs", "size=64m")
    try:
        shutil.copytree(scene.root / "aside", small / "home")
        scene.home = small / "home"
        mount(small, "tmpfs", "", REMOUNT | READ_ONLY)
        code, said = scene.type()
        assert code == 1, said
        mount(small, "tmpfs", "", REMOUNT)
        return finished(r"error: the disk is read-only", said, scene, straight)
    finally:
        unmount(small)


def damaged_checkpoints(scene: Scene, straight: str) -> str:
    """One flipped bit in the newest, the one before emptied, the one before that without its state."""
    newest, before, third = reversed(scene.checkpoints[-3:])
    content = bytearray((newest / "optimizer.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "optimizer.safetensors").write_bytes(content)
    for path in before.iterdir():
        path.unlink()
    (third / "state.json").unlink()
    _, said = scene.type()
    for pattern in (r"\(optimizer.safetensors was changed", r"\(it is empty\)", r"\(state.json is missing\)"):
        found(pattern, said)
    assert scene.weights() == straight
    return found(r"checkpoint .* is damaged .*", said)


def no_whole_checkpoint(scene: Scene, straight: str) -> str:
    """Every checkpoint is cut short."""
    for path in scene.checkpoints:
        os.truncate(path / "model.safetensors", 1000)
    _, said = scene.type()
    assert scene.weights() == straight
    return found(r"checkpoint .* none is left, training begins anew", said)


def foreign_checkpoint(scene: Scene, straight: str) -> str:
    """A checkpoint of another run, whole, lies among its own."""
    other = Scene(scene.root, scene.root / "other")
    shutil.copytree(scene.root / "base", other.home)
    other.type(Kill("", step=STEPS - 1), save_at_once, "--set", "life.optimizer.learning_rate=0.003")
    foreign = other.checkpoints[-1]
    assert foreign.name > scene.checkpoints[-1].name
    shutil.copytree(foreign, scene.draft / "checkpoints" / foreign.name)
    code, said = scene.type()
    assert code == 1, said
    shutil.rmtree(scene.draft / "checkpoints" / foreign.name)
    line = rf"error: checkpoint {foreign.name} belongs to another run than life\. Take away .*"
    return finished(line, said, scene, straight)


def changed_data(scene: Scene, straight: str) -> str:
    """The corpus grew between kill and resume: another artifact; with the old data the old run goes on."""
    raw = scene.root / "articles.txt"
    whole = raw.read_text()
    raw.write_text(whole + "\nAnother page about a river.")
    try:
        _, said = scene.type()
        line = found(
            r"begun with other settings \(data.articles has other content than then; .* stays unfinished", said
        )
        assert scene.weights() != straight
    finally:
        raw.write_text(whole)
    return line + finished("", "", scene, straight, version=2)


def changed_recipe(scene: Scene, straight: str) -> str:
    """Another learning rate, another seed."""
    _, said = scene.type(None, lambda: None, "--set", "life.optimizer.learning_rate=0.004")
    line = found(r"begun with other settings \(optimizer.learning_rate 0.01 → 0.004\) stays unfinished", said)
    assert scene.weights() != straight
    return line + finished("", "", scene, straight, version=2)


def changed_library(scene: Scene, straight: str) -> str:
    """It was begun with other versions of torch and numpy, on another processor: it goes on, says so, and keeps it."""
    start = read_json(scene.draft / "start.json")
    start["made_with"] |= {"numpy": "1.26.4", "processor": "x86_64, AVX2"}
    (scene.draft / "start.json").write_text(json.dumps(start))
    _, said = scene.type()
    line = found(r"life: after step \d+: numpy 1.26.4 → .*, processor .* last bits may differ", said)
    (passage,) = read_json(scene.made("training.json"))["passages"]
    assert set(passage["changed"]) == {"numpy", "processor"}
    (check,) = (c for c in read_json(scene.made("evidence.json")) if c["name"] == "made_with")
    assert check["value"].startswith("after step")
    return line


def other_threads(scene: Scene, straight: str) -> str:
    """Twice the threads are at hand: it goes on with those it began with."""
    scene.type(None, lambda: torch.set_num_threads(2))
    assert scene.weights() == straight
    return "nothing to say: the weights are the same"


def clock_set_back(scene: Scene, straight: str) -> str:
    """Every file of the draft is of 2038, and the newest checkpoint the oldest."""
    for number, path in enumerate(sorted(scene.draft.rglob("*"))):
        os.utime(path, (2147000000 - number, 2147000000 - number))
    scene.type()
    assert scene.weights() == straight
    return "nothing to say: the weights are the same"


def two_at_once(scene: Scene, straight: str) -> str:
    """The same command in a second terminal."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.argv = ["wuxing", "run", str(scene.root / "r.yaml"), "--home", str(scene.home), "--json"]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
        try:
            halt_after(2)
            command()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            os._exit(status)
    os.waitpid(child, os.WUNTRACED)  # it is stopped for a while: that changes nothing either
    code, said = scene.type()
    os.kill(child, signal.SIGCONT)
    assert code == 1 and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert scene.weights() == straight
    return found(rf"error: model/life is being made by another process \(process {child}, since .*", said)


def halt_after(steps: int) -> None:
    """This process stops, as by Ctrl-Z, after so many steps."""
    tell, made = Run._tell, [0]

    def halting(self: Run, report: StepReport, bar: Bar) -> None:
        tell(self, report, bar)
        made[0] += 1
        if made[0] == steps:
            os.kill(os.getpid(), signal.SIGSTOP)

    Run._tell = halting  # type: ignore[method-assign]


def unwritable_log(scene: Scene, straight: str) -> str:
    """The log belongs to somebody else."""
    log = scene.draft / "log.jsonl"
    log.chmod(0o444)
    scene.draft.chmod(0o555)
    code, said = scene.type(None, obey_permissions)
    assert code == 1, said
    log.chmod(0o666)
    scene.draft.chmod(0o777)
    return finished(r"error: no permission for .*", said, scene, straight)


def broken_log(scene: Scene, straight: str) -> str:
    """A line in the middle of the log is nonsense."""
    log = scene.draft / "log.jsonl"
    whole = log.read_text()
    lines = whole.splitlines()
    log.write_text("\n".join([*lines[:3], '{"step": 3, "lo', *lines[3:]]) + "\n")
    code, said = scene.type()
    assert code == 1, said
    log.write_text(whole)
    return finished(r"error: line 4 of .*log.jsonl is broken", said, scene, straight)


def broken_start(scene: Scene, straight: str) -> str:
    """What the run decided at its start cannot be read."""
    start = scene.draft / "start.json"
    whole = start.read_text()
    start.write_text(whole[:100])
    code, said = scene.type()
    assert code == 1, said
    start.write_text(whole)
    return finished(r"error: .*start.json, which holds what this run decided, is damaged", said, scene, straight)


def closed_terminal(scene: Scene, straight: str) -> str:
    """The window is closed: SIGHUP, and nobody listens."""

    def in_a_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs this under nohup has it ignored

    code, _ = scene.type(Kill("", step=2, number=signal.SIGHUP), in_a_terminal)
    assert code == 130, code
    scene.type()
    assert scene.weights() == straight
    return "exit code 130, its state saved"


def closed_pipe(scene: Scene, straight: str) -> str:
    """`wuxing run ... | head`: whoever reads what it says has gone."""

    def gone() -> None:
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(reading)
        os.close(writing)

    code, _ = scene.type(None, gone)
    assert code in (0, 1), code
    scene.type()
    assert scene.weights() == straight
    return "it ends; the same command goes on"


ATTACKS = (
    full_disk, full_tmpfs, full_inodes, read_only, damaged_checkpoints, no_whole_checkpoint, foreign_checkpoint,
    changed_data, changed_recipe, changed_library, other_threads, clock_set_back, two_at_once, unwritable_log,
    broken_log, broken_start, closed_terminal, closed_pipe,
)  # fmt: skip
MOUNTS = (full_tmpfs, full_inodes, read_only)


def found(pattern: str, said: str) -> str:
    """The line that fits; AssertionError shows what was said when there is none."""
    line = next((line for line in said.splitlines() if re.search(pattern, line)), None)
    assert line is not None, f"{pattern} is not in:\n{said}"
    return line.strip()


def finished(pattern: str, said: str, scene: Scene, straight: str, version: int = 1) -> str:
    """The line that fits; afterwards the same command ends with the weights of the run that was left alone."""
    line = found(pattern, said) if pattern else ""
    code, more = scene.type()
    assert code == 0, more
    assert scene.weights(version) == straight, "other weights"
    return line


def mount(place: Path, kind: str, options: str, flags: int = 0) -> None:
    """Mount, or mount anew, in a namespace of this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(kind.encode(), str(place).encode(), kind.encode(), flags, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(place))


def unmount(place: Path) -> None:
    ctypes.CDLL(None).umount2(str(place).encode(), 2)


def obey_permissions() -> None:
    """Give up root's right to write what it may not (capabilities 1 and 2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        for place in (0, 1):
            sets[place] &= ~0b110
        libc.capset(header, sets)


def private_mounts() -> str:
    """Let this process mount without anybody else noticing; what forbids it, or nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(NEWNS | (NEWUSER if user else 0)):
        return os.strerror(ctypes.get_errno())
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None):  # private, all below
        return os.strerror(ctypes.get_errno())
    return ""


def recipe(root: Path) -> None:
    """One corpus, one tokenizer, one model; saved as often as it can be."""
    write_data(root)
    sources = [{"files": str(root / "articles.txt"), "per": "line"}]
    life = PLAIN | {"name": "life", "data": {"articles": 1.0}, "budget": {"steps": STEPS}, "keep_checkpoints": 3}
    steps = {
        "articles": {"make": "corpus", "sources": sources, "split": SPLIT},
        "vocabulary": {"make": "tokenizer", "corpus": "articles", "vocab_size": 400},
        "life": life | {"save_every_seconds": 1e-6, "average": 0.9},
    }
    (root / "r.yaml").write_text(yaml.safe_dump({"name": "attack", "seed": 7, "steps": steps}, sort_keys=False))


def attack(one: Callable[[Scene, str], str], root: Path, straight: str) -> dict[str, str]:
    """Do it to a copy of the killed run; what its owner read, or what went wrong."""
    scene = Scene(root, root / "home")
    shutil.copytree(root / "half", scene.home, symlinks=True)
    result = {"attack": one.__name__, "what": (one.__doc__ or "").strip(), "line": "", "wrong": ""}
    try:
        result["line"] = one(scene, straight).replace(str(root), "STORE")
    except (AssertionError, OSError, ValueError) as error:
        result["wrong"] = f"{type(error).__name__}: {error}" + traceback.format_exc()[-400:]
    for place in ("home", "aside", "small", "other"):
        killer.remove(root / place)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    forbidden = private_mounts()
    root = killer.scratch()
    environment()
    recipe(root)
    base = Scene(root, root / "base")
    base.type(Kill("", step=1))
    shutil.rmtree(next(base.home.glob("model/life/.partial-*")))
    shutil.copytree(base.home, root / "straight")
    shutil.copytree(base.home, root / "half")
    whole, half = Scene(root, root / "straight"), Scene(root, root / "half")
    whole.type()
    straight = whole.weights()
    half.type(Kill("", step=9), save_at_once)
    assert [path.name for path in half.checkpoints[-3:]] == [f"step-{step:08d}" for step in (6, 7, 8)]
    wrong = 0
    for one in ATTACKS:
        if options.only and one.__name__ not in options.only.split(","):
            continue
        if forbidden and one in MOUNTS:
            result = {"attack": one.__name__, "what": "", "line": "", "wrong": "", "skipped": forbidden}
        else:
            result = attack(one, root, straight)
        wrong += bool(result["wrong"])
        if options.json:
            print(json.dumps(result), flush=True)
        else:
            print(f"{result['attack']:<20} {result['wrong'] or result['line'] or result.get('skipped')}", flush=True)
    killer.remove(root)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
