"""The alert rules: promtool's own unit tests, and every metric they read is one that a server has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "wuxing" / "monitor" / "rules.yaml"


def test_promtool() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.fail("promtool is missing: sh tests/install_system.sh .venv/bin")
    done = subprocess.run(
        [promtool, "test", "rules", "rules_test.yaml"], cwd=Path(__file__).parent, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()


def test_every_metric_of_the_rules_is_in_the_code_of_the_server() -> None:
    source = (ROOT / "wuxing" / "serve" / "metrics.py").read_text()
    made = set(re.findall(r'"(wuxing_[a-z_]+)"', source))
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    read = {name for rule in rules for name in re.findall(r"wuxing_[a-z_]+", rule["expr"])}
    assert read and {re.sub(r"_(total|bucket)$", "", name) for name in read} <= made
    assert all({"summary", "action"} <= rule["annotations"].keys() for rule in rules)
