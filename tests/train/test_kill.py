"""Killed at random and at chosen instants, typed again: every byte is that of a run that was never stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "torture" / "kill_trainer.py"


def test_killed_equals_never_killed() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "6", "--lives", "rewind,grpo"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 kills: no differences" in done.stdout
