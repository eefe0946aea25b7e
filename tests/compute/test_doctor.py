"""The doctor: it finds what is there, names what is missing with its remedy, and measures once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from wuxing.compute import doctor, measure, memory, need
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


def test_limits_of_a_container_are_named_with_their_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text("0\n")
    monkeypatch.setattr(need, "_THP", tmp_path / "enabled")
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "none")
    monkeypatch.setattr(memory, "_CONTROL", tmp_path)
    monkeypatch.setattr(need, "OPEN_FILES", 10**9)
    found = _named(list(need.limits()))
    assert found["large pages"].remedy == f"echo madvise | sudo tee {tmp_path / 'enabled'}"
    assert (found["memory limit"].ok, found["memory limit"].value) == (None, "1.07 GB by the control group")
    assert (found["open files"].remedy or "").startswith("ulimit -n ")
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    assert _named(list(need.limits()))["large pages"].ok is True


def test_missing_extras_name_the_command_that_adds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(need, "EXTRAS", {"ray": ("no-such-library", "no --on ray")})
    (finding,) = need.extras()
    assert (finding.ok, finding.value, finding.remedy) == (None, "missing: no --on ray", "pip install 'wuxing[ray]'")


def test_it_works_with_nothing_on_the_path(tmp_path: Path) -> None:
    import json
    import subprocess
    import sys

    command = [sys.executable, "-m", "wuxing", "doctor", "--json", "--home", str(tmp_path)]
    done = subprocess.run(
        command, env={"PATH": "", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120
    )
    found = {item["name"]: item for item in json.loads(done.stdout)}
    assert found["compiler"]["ok"] is None and found["compiler"]["remedy"]
    assert set(next(iter(found.values()))) == {"name", "value", "ok", "remedy"}
    assert done.returncode in (0, 1) and not done.stderr


def test_figures_come_by_type_with_their_date_and_old_files_still_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WUXING_CACHE", raising=False)
    monkeypatch.setattr(measure, "is_busy", lambda: False)
    monkeypatch.setattr(measure, "PROBE_SECONDS", 0.02)
    speed = measure.measured_speed(tmp_path, tmp_path)
    assert {"fp32", "bf16", "fp16"} <= set(speed.rates) and all(rate > 0 for rate in speed.rates.values())
    assert speed.measured.startswith("20") and (speed.disk_read_megabytes or 0) > 0 and (speed.sync_seconds or 0) > 0
    old = {"fp32_gflops": 1.0, "bf16_gflops": None, "memory_gigabytes": 2.0, "disk_megabytes": None}
    measure.write_json(measure.path_of(tmp_path), old)
    assert measure.remembered_speed(tmp_path) == measure.Speed(1.0, None, 2.0, None)
    assert measure.measured_speed(tmp_path, tmp_path, again=True).fp32_gflops != 1.0
