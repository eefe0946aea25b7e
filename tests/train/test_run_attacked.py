"""What happens to runs on real machines: each ends in the right weights, or in the line that says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "torture" / "attack_trainer.py"
CHOSEN = {
    "full_disk": "nothing was lost. Mend that, then type the same command again",
    "foreign_checkpoint": "belongs to another run than life. Take away STORE/home/model/life/",
    "two_at_once": "model/life is being made by another process (process ",
    "closed_terminal": "exit code 130, its state saved",
}
"""`make torture` makes them all."""


@pytest.fixture(scope="module")
def lines() -> dict[str, dict[str, str]]:
    command = [sys.executable, str(SCRIPT), "--json", "--only", ",".join(CHOSEN)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == len(CHOSEN), done.stdout + done.stderr
    return {line["attack"]: line for line in found}


@pytest.mark.parametrize("attack", CHOSEN)
def test_the_line_that_its_owner_reads(attack: str, lines: dict[str, dict[str, str]]) -> None:
    assert lines[attack]["wrong"] == ""
    assert CHOSEN[attack] in lines[attack]["line"]
