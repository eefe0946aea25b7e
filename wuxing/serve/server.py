"""`serve`: one release behind an OpenAI-compatible HTTP server, from verification to a drained stop."""

from __future__ import annotations

import errno
import ipaddress
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.evidence import Evidence
from wuxing.serve.app import build_app
from wuxing.serve.deploy import check_files, check_service, write_evidence
from wuxing.serve.key import ensure_key
from wuxing.serve.limit import Limits
from wuxing.serve.log import log, start_logging
from wuxing.serve.service import Service, open_service

CONNECTIONS = 1024
HEADER_BYTES = 32 * 1024
IDLE_SECONDS = 30


def serve(
    release: Artifact,
    home: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: bool = True,
    limits: Limits | None = None,
    device: str = "auto",
    certificate: Path | None = None,
    private_key: Path | None = None,
    precision: str = "auto",
    say: Callable[[str], None] = partial(print, flush=True),
) -> None:
    """Verify `release`, serve it until SIGINT or SIGTERM, drain, and return.

    `keys=False` is for loopback only; `port=0` takes a free one; `precision` is bf16, fp32 or auto; `certificate` and
    `private_key` (PEM) turn TLS on.
    Raises UsageError for a taken port or a wrong certificate, RefusedError when the evidence of the deployment fails.
    """
    limits = limits or Limits()
    if not keys and not is_loopback(host):
        raise UsageError(
            f"{host} can be reached by others, so keys are needed", "Leave --no-keys out, or use 127.0.0.1"
        )
    _check_certificate(certificate, private_key)
    listener = bind(host, port)
    start_logging()
    evidence = Evidence()
    place = {"host": host, "port": listener.getsockname()[1], "pid": os.getpid(), "tls": certificate is not None}
    try:
        check_files(release, evidence)
        if evidence.failures():
            write_evidence(release, home, evidence, place)
        service = open_service(release, home, keys, limits, device, precision)
        try:
            service.secure = certificate is not None
            check_service(service, evidence)
            directory = write_evidence(release, home, evidence, place)
            _announce(service, host, place["port"], say)
            log("serving", release=release.id, evidence=str(directory), keys=keys, **place)
            with _quiet_signals():
                _Server(_config(service, limits, certificate, private_key), service).run(sockets=[listener])
        finally:
            service.close()
            log("stopped", release=release.id)
    finally:
        listener.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; UsageError when the port is taken or the address is not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, OverflowError) as error:
        raise UsageError(
            f"{host}:{port} is no address of this machine ({error})", "Use 127.0.0.1 or 0.0.0.0"
        ) from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} of {host} is taken by another program", f"Stop it, or choose another: --port {port + 1}"
            ) from error
        raise UsageError(f"{host}:{port} cannot be used ({error.strerror})", "Choose another host or port") from error
    return listener


def _check_certificate(certificate: Path | None, private_key: Path | None) -> None:
    if certificate is None and private_key is None:
        return
    if certificate is None or private_key is None:
        raise UsageError("TLS needs both a certificate and its private key", "Give --certificate and --private-key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key)
    except OSError as error:
        raise UsageError(
            f"{certificate} and {private_key} are no pair for TLS ({error})", "Give two PEM files"
        ) from error


def _announce(service: Service, host: str, port: int, say: Callable[[str], None]) -> None:
    """What the person at the terminal needs; the only place where a key or a ticket is ever shown."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"{'https' if service.secure else 'http'}://{shown}:{port}"
    say(f"{service.release.id} answers at {address}/v1 (OpenAI-compatible)")
    if service.keys is None:
        say("No keys are asked for: every program on this machine may use it")
        say(f"Chat page: {address}/")
        return
    key = ensure_key(service.home)
    if key:
        say(f"API key, shown only now: {key}")
    say(f"Chat page, opens once: {address}/?ticket={service.sessions.ticket()}")


def _config(service: Service, limits: Limits, certificate: Path | None, private_key: Path | None) -> uvicorn.Config:
    class Protocol(_PatientProtocol):
        seconds = limits.body_seconds

    return uvicorn.Config(
        build_app(service),
        http=Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=int(limits.drain_seconds),
        h11_max_incomplete_event_size=HEADER_BYTES,
        ssl_certfile=certificate,
        ssl_keyfile=private_key,
    )


class _PatientProtocol(H11Protocol):
    """uvicorn's HTTP, which hangs up on a client that connects and does not send a request in time."""

    seconds = 20.0

    def connection_made(self, transport: object) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.loop.call_later(self.seconds, self._hang_up)

    def _hang_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.abort()


class _Server(uvicorn.Server):
    """uvicorn's server, whose health says `draining` from the first signal on."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.service.draining = True
        log("draining", signal=signal.Signals(sig).name)
        super().handle_exit(sig, frame)


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """uvicorn raises the signal that stopped it once more when it is done; here it has already had its effect."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
