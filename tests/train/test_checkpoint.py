"""Checkpoints: whole or absent, checked before they are believed, kept as asked; failures reach the caller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wuxing.train.checkpoint import Checkpoints, damage


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


def test_saving_copies_so_that_training_may_go_on(tmp_path: Path) -> None:
    weights = torch.zeros(512, 512)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model": {"w": weights}, "optimizer": {}}, {"done": 1})
    weights += 1
    checkpoints.wait()
    found = checkpoints.latest(lambda line: None)
    assert found is not None and float(found.tensors["model"]["w"].abs().max()) == 0


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


def test_a_disk_that_refuses_reaches_the_caller(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints")
    save(checkpoints, 1)
    with pytest.raises(OSError):
        checkpoints.wait()
    checkpoints.wait()
