"""The doctor: it finds what is there, names what is missing with its remedy, and measures once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from wuxing.compute import doctor, measure
from wuxing.compute.device import cpu_flags, pick_device, pick_precision
from wuxing.compute.doctor import Finding, examine
from wuxing.core.error import UsageError


def _named(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_this_machine_is_described(tmp_path: Path) -> None:
    found = _named(examine(tmp_path / "home"))
    assert found["torch"].value == torch.__version__
    assert found["python"].ok and found["disk"].ok and str(tmp_path) in found["disk"].value
    assert all(finding.remedy for finding in found.values() if finding.ok is False)
    rates = {name: float(found[name].value.split()[0].replace(",", "")) for name in found if "product fp32" in name}
    assert all(1 < rate < 1e6 for rate in rates.values()) and rates
    assert not list(tmp_path.rglob(".wuxing-disk-*"))


def test_measurements_are_remembered_unless_the_machine_was_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WUXING_CACHE", raising=False)
    monkeypatch.setattr(measure, "is_busy", lambda: True)
    measure.measured_speed(tmp_path, tmp_path)
    assert not list(tmp_path.rglob("machine-*.json"))
    monkeypatch.setattr(measure, "is_busy", lambda: False)
    first = measure.measured_speed(tmp_path, tmp_path)
    assert len(list(tmp_path.rglob("machine-*.json"))) == 1
    assert measure.measured_speed(tmp_path, tmp_path) == first


def test_what_is_missing_comes_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", ("torch", "no-such-library"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "MIN_DISK_BYTES", 2**70)
    monkeypatch.setattr(doctor, "MIN_MEMORY_BYTES", 2**70)
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    found = _named(examine(tmp_path))
    assert (found["no-such-library"].ok, found["no-such-library"].remedy) == (False, "pip install wuxing")
    assert found["compiler"].ok is None and "build-essential" in (found["compiler"].remedy or "xcode")
    assert found["disk"].ok is False and "WUXING_HOME" in (found["disk"].remedy or "")
    assert found["memory"].ok is False
    assert found["cores"].ok is None and "OMP_NUM_THREADS=" in (found["cores"].remedy or "")


def test_a_control_group_that_grants_fewer_cores_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(doctor, "_QUOTA", tmp_path / "cpu.max")
    finding = doctor._cores()
    assert "grants 0.5" in finding.value and "OMP_NUM_THREADS=1" in (finding.remedy or "")


def test_devices_that_are_not_there_are_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    for name, message in {"cuda:99": "is not there", "tpu9": "is no device", "meta": "is not supported"}.items():
        with pytest.raises(UsageError, match=message):
            pick_device(name)


def test_bf16_is_picked_only_where_it_is_native() -> None:
    native = bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})
    assert pick_precision("cpu") == (torch.bfloat16 if native else torch.float32)
