from __future__ import annotations

from pathlib import Path

import pytest

from policy_accel.doctor import host as module
from policy_accel.doctor.findings import NOTE, OK, Finding
from policy_accel.doctor.host import host


def found(cgroups: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in host(cgroups)}


def test_limits_of_a_container_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("8000000000\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    findings = found(tmp_path)
    assert findings["processor"].said.endswith("cores, limited to the time of 1.5, OMP_NUM_THREADS=3")
    assert findings["memory"].said.endswith("GB free, limited to 8.0 GB")


def test_without_limits_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert "limited" not in " ".join(finding.said for finding in found(tmp_path).values())


def test_little_memory_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_host_memory", lambda: 3_900_000_000)
    assert found(tmp_path)["memory"] == Finding("Machine", "memory", NOTE, "3.9 GB free, which is little")
    monkeypatch.setattr(module, "free_host_memory", lambda: 4_100_000_000)
    assert found(tmp_path)["memory"].state == OK


def test_a_cache_folder_that_is_not_there_yet_has_the_disk_of_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "cache"))
    cache = found(tmp_path)["cache folder"]
    assert cache.said.endswith(f"GB free: {tmp_path / 'new' / 'cache'}")
