"""What is refused before a port answers: changed templates, damaged files, other answers, open doors, taken ports."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import torch
from conftest_serve import Server, sign_release

from wuxing.core.artifact import Artifact
from wuxing.core.error import RefusedError, UsageError
from wuxing.core.evidence import Evidence
from wuxing.core.file import read_json, write_json
from wuxing.serve.deploy import REQUIRED, check_files, check_service, write_evidence
from wuxing.serve.server import bind, is_loopback, serve
from wuxing.serve.service import open_service
from wuxing.text.tokenizer import Tokenizer


@pytest.fixture
def copy(release: Artifact, tmp_path: Path) -> Artifact:
    """A release of one's own, to be damaged."""
    shutil.copytree(release.path, tmp_path / "copy")
    return Artifact(tmp_path / "copy", json.loads(json.dumps(release.record)))


def refusal(release: Artifact, home: Path) -> str:
    """What `serve` says, in this process: it must not come as far as answering."""
    said: list[str] = []
    with pytest.raises(RefusedError) as refused:
        serve(release, home, port=0, say=said.append)
    assert said == []
    (directory,) = (home / "deployments" / release.name).iterdir()
    deployment = read_json(directory / "deployment.json")
    assert deployment["failures"] and deployment["release"] == release.id
    return str(refused.value)


def test_the_evidence_of_a_good_deployment(server: Server, release: Artifact) -> None:
    directory = sorted((server.home / "deployments" / "tiny").iterdir())[0]
    evidence = Evidence.load(directory / "evidence.json")
    assert [check.name for check in evidence.checks] == list(REQUIRED) and not evidence.failures(REQUIRED)
    assert evidence.value("template") == read_json(release.path / "template.json")["digest"]
    assert evidence.value("keys_on") is True and evidence.value("served_equals_released") == "4 probes"
    assert read_json(directory / "deployment.json")["failures"] == []


def test_another_chat_template_is_refused(copy: Artifact, tmp_path: Path) -> None:
    """The seeded fault: the template was changed after the release was signed, digests and all."""
    path = copy.path / "model" / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "asistant"))
    released = read_json(copy.path / "template.json")
    tokenizer = Tokenizer.load(copy.path / "model")
    signed = sign_release(copy.path, tokenizer)  # a forger signs everything anew ...
    write_json(copy.path / "template.json", released)  # ... but the release's own template
    signed.record["files"]["template.json"] = copy.record["files"]["template.json"]
    line = refusal(signed, tmp_path / "home")
    assert "release/tiny@v3 is not served: template is" in line
    assert "The chat template is not the one that was released" in line


@pytest.mark.parametrize("name", ["model/model.safetensors", "model/tokenizer.json", "model/chat_template.jinja"])
def test_one_flipped_byte_is_refused(copy: Artifact, tmp_path: Path, name: str) -> None:
    path = copy.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    line = refusal(copy, tmp_path / "home")
    assert f"files_intact is ['{name}'], asked for all" in line and "Restore the files" in line


def test_an_engine_that_answers_otherwise_is_refused(release: Artifact, tmp_path: Path) -> None:
    """The seeded fault: one tensor is perturbed between what was released and what the engine computes with."""
    service = open_service(release, tmp_path)
    try:
        evidence = Evidence()
        check_files(release, evidence)
        with torch.no_grad():
            weight = dict(service.network.named_parameters())["model.layers.0.mlp.down_proj.weight"]
            kept = weight.clone()
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
            _warm(service)
            weight.copy_(kept)
        check_service(service, evidence)
        with pytest.raises(RefusedError, match="served_equals_released is .* the model's own is"):
            write_evidence(release, tmp_path, evidence, {})
    finally:
        service.close()


def _warm(service: object) -> None:
    """Let the engine pack the perturbed weights: it was promised that they stay as they are."""
    import asyncio

    from wuxing.generate.engine import Request
    from wuxing.serve.service import Service

    assert isinstance(service, Service)

    async def one() -> None:
        inbox: asyncio.Queue[object] = asyncio.Queue()
        service.worker.submit([Request("warm", [5, 6, 7], 1)], inbox)  # type: ignore[arg-type]
        await inbox.get()

    asyncio.run(one())


def test_failed_evidence_and_other_kinds_are_refused(copy: Artifact, tmp_path: Path) -> None:
    copy.record["failures"] = ["parity is 0.5"]
    with pytest.raises(RefusedError, match="lacks evidence: parity is 0.5"):
        serve(copy, tmp_path, port=0)
    copy.record["kind"] = "model"
    with pytest.raises(UsageError, match="model/tiny@v3 is no release"):
        serve(copy, tmp_path, port=0)


def test_no_keys_is_for_this_machine_only(release: Artifact, tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(UsageError, match=f"{host} can be reached by others, so keys are needed"):
            serve(release, tmp_path, host=host, keys=False)
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))


def test_a_taken_port_is_one_clear_line(release: Artifact, tmp_path: Path, server: Server) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is taken .* choose another: --port {port + 1}"):
        serve(release, tmp_path, port=port)
    with pytest.raises(UsageError, match="is no address of this machine|cannot be used"):
        bind("203.0.113.7", 8000)
    with pytest.raises(UsageError, match="is no address of this machine"):
        bind("no such host", 8000)


def test_tls(launch: Callable[..., Server], release: Artifact, tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    with pytest.raises(UsageError, match="TLS needs both"):
        serve(release, tmp_path, port=0, certificate=certificate)
    with pytest.raises(UsageError, match="are no pair for TLS"):
        serve(release, tmp_path, port=0, certificate=certificate, private_key=certificate)
    own = launch(certificate=str(certificate), private_key=str(key))
    assert own.url.startswith("https://")
    with own.client(verify=ssl.create_default_context(cafile=certificate)) as client:
        assert client.get("/v1/models").status_code == 200
        entered = client.get(own.page)
        assert entered.status_code == 303 and "secure" in entered.headers["set-cookie"].lower()
    with pytest.raises(httpx.TransportError):
        httpx.get(own.url.replace("https", "http") + "/healthz", trust_env=False)


def _certificate(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*words.split(), *files], check=True, capture_output=True)
    return certificate, key
