"""Checkpoints: whole or absent, checked before they are believed, kept as asked; failures reach the caller."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from wuxing.train.save import checkpoint
from wuxing.train.save.checkpoint import Checkpoints, damage
from wuxing.train.save.snapshot import write_tensors


def save(checkpoints: Checkpoints, step: int, best: bool = False) -> None:
    tensors = {
        "model": {"w": torch.full((64, 64), float(step))},
        "optimizer": {"w|m": torch.full((64,), step / 2), "random": torch.get_rng_state()},
    }
    checkpoints.save(step, tensors, {"done": step, "best_step": checkpoints._best}, best)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_it_keeps_the_last_ones_and_the_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 7):
        save(checkpoints, step, best=step == 2)
    checkpoints.wait()
    assert names(tmp_path) == ["step-00000002", "step-00000005", "step-00000006"]
    again = Checkpoints(tmp_path, keep=2)
    newest = again.latest(lambda line: None)
    assert newest is not None and newest.step == 6 and float(newest.tensors["model"]["w"][0, 0]) == 6
    save(again, 7)
    again.wait()
    assert names(tmp_path) == ["step-00000002", "step-00000006", "step-00000007"]


def test_saving_copies_so_that_training_may_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and lists change before the writer, on a slow disk, has even begun."""
    weights, measured, changed = torch.zeros(512, 512), [1.5], threading.Event()

    def slow(*arguments: Any) -> Any:
        assert changed.wait(60)
        return write_tensors(*arguments)

    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model": {"w": weights}, "optimizer": {}}, {"done": 1, "measured": measured})
    weights += 1
    measured.append(0.5)
    changed.set()
    checkpoints.wait()
    found = checkpoints.latest(lambda line: None)
    assert found is not None and float(found.tensors["model"]["w"].abs().max()) == 0
    assert found.state["measured"] == [1.5]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "digest.json"])
def test_any_damage_is_found_and_the_one_before_is_used(
    tmp_path: Path, harm: Callable[[Path], None], file: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    save(checkpoints, 2)
    checkpoints.wait()
    harm(tmp_path / "step-00000002" / file)
    said: list[str] = []
    found = Checkpoints(tmp_path).latest(said.append)
    assert found is not None and found.step == 1
    assert len(said) == 1 and "step-00000002 is damaged" in said[0]
    assert names(tmp_path) == ["step-00000001"]


def test_the_last_good_one_is_found_behind_any_number_of_damaged_ones(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3, held=frozenset({2}))
    for step in range(1, 9):
        save(checkpoints, step, best=step == 3)
    checkpoints.wait()
    assert names(tmp_path) == [f"step-{step:08d}" for step in (2, 3, 6, 7, 8)]
    for left, harm in ((8, cut), (7, flip), (6, Path.unlink)):
        harm(tmp_path / f"step-{left:08d}" / "model.safetensors")
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / "step-copy of 8").mkdir()
    said: list[str] = []
    found = Checkpoints(tmp_path).latest(said.append)
    assert found is not None and found.step == 3 and float(found.tensors["model"]["w"][0, 0]) == 3
    assert [line.split()[1] for line in said] == [f"step-{step:08d}" for step in (9, 8, 7, 6)]
    assert "it is empty" in said[0] and all("going on from the one before" in line for line in said)
    for step in (2, 3):
        cut(tmp_path / f"step-{step:08d}" / "state.json")
    said.clear()
    assert Checkpoints(tmp_path).latest(said.append) is None and said[-1].endswith("none is left, training begins anew")


def damaging(monkeypatch: pytest.MonkeyPatch, at: range) -> None:
    """From now on the disk gives back another bit than was written, in the saves of these numbers."""
    from wuxing.train.save import checkpoint as module

    write, made = module.write_tensors, [0]

    def damaged(path: Path, group: dict[str, torch.Tensor]) -> str:
        digest = write(path, group)
        if path.stem == "optimizer":
            made[0] += 1
            if made[0] in at:
                flip(path)
        return digest

    monkeypatch.setattr(module, "write_tensors", damaged)


def test_a_disk_that_damages_is_noticed_before_anything_good_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    checkpoints = Checkpoints(tmp_path, keep=1, say=said.append)
    save(checkpoints, 1, best=True)
    checkpoints.wait()
    damaging(monkeypatch, range(1, 3))
    tensors = {"model": {"w": torch.ones(4)}, "optimizer": {"m": torch.ones(4)}}
    for step in (2, 3, 4):
        checkpoints.save(step, tensors, {"done": step, "best_step": 1}, best=step == 2, must=False)
    checkpoints.wait()
    assert len(said) == 2 and all("training goes on" in line and "was changed after" in line for line in said)
    assert names(tmp_path) == ["step-00000001", "step-00000004"]  # the best stayed: the better one was never whole


def test_a_save_that_must_be_and_the_third_in_a_row_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaging(monkeypatch, range(1, 99))
    tensors = {"model": {"w": torch.ones(4)}, "optimizer": {"m": torch.ones(4)}}
    for musts, failing in (([True], 1), ([False] * 3, 3), ([False, True], 2)):
        checkpoints = Checkpoints(tmp_path / str(musts))
        for number, must in enumerate(musts, 1):
            checkpoints.save(number, tensors, {"done": number}, must=must)
            if number < failing:
                checkpoints.wait()
        with pytest.raises(OSError, match="read back from the disk, optimizer.safetensors was changed"):
            checkpoints.wait()


def test_a_kill_between_two_names_loses_nothing(tmp_path: Path) -> None:
    """A checkpoint of a step is replaced (after a rewind): killed between taking the old name away and giving it."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 5)
    checkpoints.wait()
    (tmp_path / "step-00000005").rename(tmp_path / ".old-step-00000005")
    (tmp_path / ".draft-00000005").mkdir()
    found = Checkpoints(tmp_path).latest(pytest.fail)
    assert found is not None and found.step == 5 and names(tmp_path) == ["step-00000005"]
    save(checkpoints, 5)
    checkpoints.wait()
    (tmp_path / ".old-step-00000005").mkdir()
    assert Checkpoints(tmp_path).load(5).step == 5
    found = Checkpoints(tmp_path).latest(pytest.fail)
    assert found is not None and names(tmp_path) == ["step-00000005"]


def test_half_written_ones_never_count(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 3)
    checkpoints.wait()
    for name in (".draft-00000004", ".gone-step-00000002"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    found = Checkpoints(tmp_path).latest(pytest.fail)
    assert found is not None and found.step == 3 and names(tmp_path) == ["step-00000003"]
    assert damage(tmp_path / "step-00000003") == ""


@pytest.mark.parametrize("kept", [(), (2,)])
def test_a_kill_while_all_are_taken_away_leaves_none_that_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: tuple[int, ...]
) -> None:
    unlink, deleted = os.unlink, 0
    checkpoints = Checkpoints(tmp_path, keep=3)

    def cut_short(*arguments: Any, **settings: Any) -> None:
        nonlocal deleted
        deleted += 1
        if deleted % 3 == 0:  # each attempt gets a little further
            raise KeyboardInterrupt
        unlink(*arguments, **settings)

    for step in (1, 2, 3):
        save(checkpoints, step)
    checkpoints.wait()
    kills = 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", cut_short)
        while True:
            try:
                Checkpoints(tmp_path).remove_all(kept)
                break
            except KeyboardInterrupt:
                kills += 1
            assert [damage(path) for path in tmp_path.glob("step-*") if damage(path)] == []
    assert kills > 2 and [path.name for path in tmp_path.glob("*")] == [f"step-{step:08d}" for step in kept]


def test_a_disk_that_refuses_reaches_the_caller(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints")
    save(checkpoints, 1)
    with pytest.raises(OSError):
        checkpoints.wait()
    checkpoints.wait()


def test_the_files_are_those_of_a_synchronous_save_and_of_the_library(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    odd = {
        "half": torch.randn(3, 5).to(torch.bfloat16),
        "scalar": torch.tensor(7.5),
        "none": torch.empty(0, 4),
        "turned": torch.randn(4, 6).T,
        "bits": torch.tensor([True, False]),
        "double": torch.randn(2, dtype=torch.float64),
        "名": torch.arange(5),
    }
    tensors = {"model": odd, "optimizer": {"random": torch.get_rng_state()}}
    for name, asynchronous in (("a", True), ("b", False)):
        checkpoints = Checkpoints(tmp_path / name, asynchronous=asynchronous)
        checkpoints.save(3, tensors, {"done": 3})
        checkpoints.wait()
    files = [{p.name: p.read_bytes() for p in (tmp_path / name / "step-00000003").iterdir()} for name in "ab"]
    assert files[0] == files[1]
    save_file({name: tensor.contiguous() for name, tensor in odd.items()}, tmp_path / "theirs.safetensors")
    ours = load_file(tmp_path / "a" / "step-00000003" / "model.safetensors")
    theirs = load_file(tmp_path / "theirs.safetensors")
    assert ours.keys() == theirs.keys() == odd.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor)


def test_buffers_are_used_again_and_follow_new_shapes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9)
    shapes = [(4, 4), (4, 4), (2, 8), (3,)]
    checkpoints.prepare({"model": {"w": torch.empty(4, 4)}, "optimizer": {}})
    addresses = []
    for step, shape in enumerate(shapes, 1):
        groups = {"model": {"w": torch.full(shape, float(step))}, "optimizer": {f"m{step}": torch.ones(step)}}
        checkpoints.save(step, groups, {"done": step})
        addresses.append(checkpoints._snapshot.groups["model"]["w"].data_ptr())
    checkpoints.wait()
    assert addresses[0] == addresses[1]
    for step, shape in enumerate(shapes, 1):
        found = checkpoints.load(step)
        assert torch.equal(found.tensors["model"]["w"], torch.full(shape, float(step)))
        assert found.tensors["optimizer"].keys() == {f"m{step}"}


def test_an_error_of_the_writer_surfaces_at_the_next_step(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    checkpoints.wait()
    checkpoints.directory = tmp_path / "file"
    checkpoints.directory.write_text("in the way")
    save(checkpoints, 2)
    while checkpoints.busy:
        time.sleep(0.001)
    with pytest.raises(OSError):
        checkpoints.check()
    checkpoints.check()


def test_a_kill_while_it_writes_loses_one_save_at_most(tmp_path: Path) -> None:
    """SIGKILL while checkpoint n is written: what is found is whole, and of step n or n - 1."""
    code = """
import sys, torch
from pathlib import Path
from wuxing.train.save.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
for step in range(1, 10_000):
    w = {f"w{n}": torch.full((500_000,), float(step)) for n in range(4)}
    checkpoints.save(step, {"model": w, "optimizer": {"m": torch.full((9,), float(step))}}, {"done": step})
    print(step, flush=True)
"""
    random = Random(4)
    for attempt in range(5):
        directory = tmp_path / str(attempt)
        child = subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        begun = 0
        for _ in range(random.randint(2, 6)):
            begun = int(child.stdout.readline())
        time.sleep(random.uniform(0, 0.03))
        child.kill()
        rest = child.communicate()[0].split()
        found = Checkpoints(directory).latest(pytest.fail)
        assert found is not None and begun - 1 <= found.step <= begun + len(rest) + 1
        for group in found.tensors.values():
            assert all(bool((tensor == found.step).all()) for tensor in group.values())
