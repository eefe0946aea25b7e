"""A small real release (tokenizer and network trained here) and servers of it in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import torch.nn.functional as F

from wuxing.core.artifact import Artifact
from wuxing.core.digest import digest_of_file, digest_of_files
from wuxing.core.file import write_json
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.files import save_network
from wuxing.model.network import Network
from wuxing.serve.limit import Limits
from wuxing.text.tokenizer import Tokenizer
from wuxing.text.train import train_tokenizer

DIALOGUES = [
    ("Hello", "Hello! How can I help you today?"),
    ("What is 7 + 5?", "7 + 5 = 12"),
    ("Who are you?", "I am a very small model, made in a test."),
    ("你好", "你好！很高兴见到你。今天想聊什么？"),
    ("Count", " ".join(["one two three four five six seven eight nine ten"] * 6)),
    ("Smile", 'Here is one: 😀 and a line\nbreak, and <b>bold</b> & "quotes".'),
]
"""What the model learns by heart."""
ENDLESS = ("Sing", " ".join(["la"] * 90))
"""What it is never taught to end: an answer as long as it is allowed to be."""


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A release whose model knows DIALOGUES by heart."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("release")
    texts = [text for pair in [*DIALOGUES, ENDLESS] for text in pair] * 4
    tokenizer = train_tokenizer(texts, 420)
    network = _learn(tokenizer)
    save_network(network, path / "model")
    tokenizer.save(path / "model")
    return sign_release(path, tokenizer)


def _learn(tokenizer: Tokenizer) -> Network:
    config = resolve(
        Architecture(size="250k", max_positions=2048),
        tokenizer.vocab_size,
        tokenizer.end_of_text_id,
        tokenizer.end_of_turn_id,
    )
    network = Network(config)
    network.initialise(3)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.0)
    rows = [
        tokenizer.encode_dialogue([{"role": "user", "content": q}, {"role": "assistant", "content": a}])
        for q, a in DIALOGUES
    ]
    ids, taught = tokenizer.encode_dialogue(
        [{"role": "user", "content": ENDLESS[0]}, {"role": "assistant", "content": ENDLESS[1]}]
    )
    end = ids.index(tokenizer.end_of_turn_id, len(ids) - 3)
    rows.append((ids[:end], taught[:end]))
    width = max(len(ids) for ids, _ in rows)
    tokens_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
    labels_BT = torch.tensor(
        [
            [i if t else -100 for i, t in zip(ids, taught, strict=True)] + [-100] * (width - len(ids))
            for ids, taught in rows
        ]
    )
    loss = torch.tensor(9.0)
    for _ in range(300):
        if loss.item() < 0.008:
            break
        logits_BTV = network(tokens_BT)
        loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02, f"the test's model did not learn its dialogues: loss {loss.item():.3f}"
    return network


def sign_release(path: Path, tokenizer: Tokenizer) -> Artifact:
    """Write the small files of a release and its record."""
    write_json(path / "template.json", {"digest": tokenizer.template_digest})
    write_json(path / "reference.json", {"model": "solver", "signals": {}})
    write_json(path / "manifest.json", [])
    found = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "record.json")
    files = {str(p.relative_to(path)): {"sha256": digest_of_file(p), "bytes": p.stat().st_size} for p in found}
    record = {
        "kind": "release",
        "name": "tiny",
        "version": 3,
        "fingerprint": "0" * 64,
        "content": digest_of_files({name: entry["sha256"] for name, entry in files.items()}),
        "config": {},
        "parents": {},
        "files": files,
        "failures": [],
    }
    write_json(path / "record.json", record)
    return Artifact(path, record)


SCRIPT = """
import json, sys
from pathlib import Path
from wuxing.core.artifact import Artifact
from wuxing.core.error import WuxingError
from wuxing.core.file import read_json
from wuxing.serve.limit import Limits
from wuxing.serve.server import serve
path, home, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
options["limits"] = Limits(**options.get("limits", {}))
try:
    serve(Artifact(path, read_json(path / "record.json")), home, say=lambda line: print(line, flush=True), **options)
except WuxingError as error:
    print(f"error: {error}", flush=True)
    sys.exit(error.exit_code)
"""


@dataclass
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    home: Path
    said: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    key: str = ""
    url: str = ""
    page: str = ""

    def start(self) -> None:
        threading.Thread(target=self._read, args=(self.process.stderr, self.log), daemon=True).start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.strip())
            if "answers at" in line:
                self.url = line.split("answers at ")[1].split("/v1")[0]
            if line.startswith("API key"):
                self.key = line.split(": ")[1].strip()
            if line.startswith("Chat page"):
                self.page = line.split(": ", 1)[1].strip()
                return
        raise AssertionError(f"the server did not start: {self.said} {self.log}")

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        lines.extend(line.strip() for line in stream)

    def client(self, **options: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def metric(self, name: str) -> float:
        """The value of one line of /metrics; 0 when it is not there yet."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@pytest.fixture(scope="session")
def launch(release: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """`launch(home=None, wait=True, path=None, **options of serve)` -> a running Server; all end with the session."""
    servers: list[Server] = []

    def start(home: Path | None = None, wait: bool = True, path: Path | None = None, **options: Any) -> Server:
        import json

        home = home or tmp_path_factory.mktemp("home")
        given = {"port": 0, **options}
        if "limits" in given:
            Limits(**given["limits"])
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(path or release.path), str(home), json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        server = Server(process, home)
        servers.append(server)
        if wait:
            server.start()
        return server

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="session")
def server(launch: Callable[..., Server]) -> Server:
    """One server that the tests of ordinary traffic share."""
    return launch()
