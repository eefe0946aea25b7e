"""SIGKILL at random instants, also during saves: the final weights are those of a run that was never stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "torture" / "kill_trainer.py"


@pytest.mark.parametrize("kind", ["base", "solver"])
def test_killed_equals_never_killed(kind: str) -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "4", "--kind", kind]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills" in done.stdout and "0 bytes differ" in done.stdout
