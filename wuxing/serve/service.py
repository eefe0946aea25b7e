"""Everything that a running server holds, put together once from a release."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wuxing.core.artifact import Artifact
from wuxing.core.exchange import ExchangeLog
from wuxing.serve.key import KeyRing
from wuxing.serve.limit import Limits, Rate
from wuxing.serve.metrics import Metrics
from wuxing.serve.session import Sessions
from wuxing.serve.worker import Worker
from wuxing.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from wuxing.generate.engine import Engine
    from wuxing.model.network import Network


@dataclass
class Service:
    """The state behind the app.  Built by `open_service`, ended by `close`."""

    release: Artifact
    home: Path
    limits: Limits
    tokenizer: Tokenizer
    network: Network
    worker: Worker
    metrics: Metrics
    keys: KeyRing | None
    """None: no keys are asked for (loopback only)."""
    context_tokens: int
    """Longest prompt and answer together."""
    log: ExchangeLog
    rate: Rate
    precision: str
    """In which the engine computes: float32, bfloat16, …"""
    secure: bool = False
    """Whether clients come by TLS, so that cookies may ask for it."""
    sessions: Sessions = field(default_factory=Sessions)
    started: float = field(default_factory=time.monotonic)
    draining: bool = False
    exchange_failure: str = ""
    """Why the newest exchange could not be written; empty while all is well."""

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        return (self.tokenizer.end_of_turn_id, self.tokenizer.end_of_text_id)

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may call the model."""
        name, version = self.release.name, self.release.version
        return (name, f"{name}@v{version}", self.release.id)

    @property
    def status(self) -> str:
        """`ok`, `draining`, or `failing` when the engine is gone."""
        if self.draining:
            return "draining"
        return "ok" if self.worker.alive else "failing"

    def close(self) -> None:
        self.draining = True
        self.worker.stop()


def open_service(
    release: Artifact,
    home: Path,
    keys: bool = True,
    limits: Limits | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Service:
    """Load the release's model and start its engine.  Verification is `deploy.verify_release` and `deploy.deploy`."""
    from wuxing.compute.device import pick_device
    from wuxing.generate.engine import Engine
    from wuxing.model.files import load_network

    limits = limits or Limits()
    directory = release.path / "model"
    network = load_network(directory, device=pick_device(device))
    tokenizer = Tokenizer.load(directory)
    context_tokens = network.max_positions

    def build() -> Engine:
        return Engine(network, limits.rows, context_tokens, precision, frozen=True)

    worker = Worker(build, limits.rows, limits.waiting)
    worker.start()
    return Service(
        release,
        home,
        limits,
        tokenizer,
        network,
        worker,
        Metrics(release.id, worker),
        KeyRing(home) if keys else None,
        context_tokens,
        ExchangeLog(home, release.name),
        Rate(limits.requests_per_minute),
        str(worker.dtype).removeprefix("torch."),
    )
