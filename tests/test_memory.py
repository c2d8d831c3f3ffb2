from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from policy_accel import memory
from policy_accel.errors import UserError
from policy_accel.memory import UNKNOWN, check_fits, free_host_memory, free_memory

MIB = 2**20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def proc(root: Path, membership: str, available: int = 8000 * MIB) -> Path:
    meminfo = f"MemTotal:       16384000 kB\nMemFree:          204800 kB\nMemAvailable:   {available // 1024} kB\n"
    return write(root / "proc", {"meminfo": meminfo, "self/cgroup": membership})


def test_cache_of_files_is_free(tmp_path: Path) -> None:
    """Linux calls 8000 MiB available, of which 200 are free now."""
    assert free_host_memory(proc(tmp_path, "0::/\n"), tmp_path / "none") == 8000 * MIB


def group(limit: str, use: int, cache: int = 0) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{use}\n",
        "memory.stat": f"anon 5\nfile {cache}\ninactive_file {cache - cache // 4}\nactive_file {cache // 4}\n",
    }


def placed(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": content for name, content in files.items()}


@pytest.mark.parametrize(
    ("own", "around", "expected"),
    [
        (group(str(2000 * MIB), 500 * MIB), group("max", 900 * MIB), 1500 * MIB),
        (group(str(2000 * MIB), 1900 * MIB, 700 * MIB), group("max", 900 * MIB), 800 * MIB),
        (group("max", 500 * MIB), group(str(3000 * MIB), 2000 * MIB), 1000 * MIB),
        (group("max", 500 * MIB), group("max", 500 * MIB), 8000 * MIB),
        (group(str(90_000 * MIB), 0), group("max", 0), 8000 * MIB),
        (group(str(100 * MIB), 110 * MIB), group("max", 0), 0),
    ],
    ids=["own limit", "cache is given up", "limit around", "no limit", "limit above the machine", "over the limit"],
)
def test_limit_of_a_container(tmp_path: Path, own: dict[str, str], around: dict[str, str], expected: int) -> None:
    cgroups = write(tmp_path / "cgroup", placed("job/step", own) | placed("job", around))
    assert free_host_memory(proc(tmp_path, "0::/job/step\n"), cgroups) == expected


@pytest.mark.parametrize("place", ["docker/ab12", "."], ids=["mounted whole", "only its own is mounted"])
def test_limit_of_version_1(tmp_path: Path, place: str) -> None:
    files = {
        "memory.limit_in_bytes": f"{1000 * MIB}\n",
        "memory.usage_in_bytes": f"{700 * MIB}\n",
        "memory.stat": f"cache 1\ntotal_inactive_file {200 * MIB}\ntotal_active_file {50 * MIB}\n",
    }
    cgroups = write(tmp_path / "cgroup", placed(f"memory/{place}", files))
    memberships = "5:devices:/x\n4:memory:/docker/ab12\n0::/\n"
    assert free_host_memory(proc(tmp_path, memberships), cgroups) == 550 * MIB


def test_no_limit_of_version_1(tmp_path: Path) -> None:
    files = {"memory.limit_in_bytes": "9223372036854771712\n", "memory.usage_in_bytes": "5\n"}
    cgroups = write(tmp_path / "cgroup", placed("memory", files))
    assert free_host_memory(proc(tmp_path, "4:cpu,memory:/\n"), cgroups) == 8000 * MIB


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"SC_AVPHYS_PAGES": 1000, "SC_PHYS_PAGES": 9000, "SC_PAGE_SIZE": 4096}, 1000 * 4096),
        ({"SC_PHYS_PAGES": 9000, "SC_PAGE_SIZE": 16384}, 4500 * 16384),
        ({"SC_AVPHYS_PAGES": -1, "SC_PHYS_PAGES": -1, "SC_PAGE_SIZE": 4096}, UNKNOWN),
        (None, UNKNOWN),
    ],
    ids=["free", "macOS tells all", "does not know", "no such call"],
)
def test_systems_without_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, int] | None, expected: int
) -> None:
    if answers is None:
        monkeypatch.delattr(os, "sysconf")
        monkeypatch.delattr(os, "sysconf_names")
    else:
        monkeypatch.setattr(os, "sysconf_names", answers)
        monkeypatch.setattr(os, "sysconf", answers.__getitem__)
    assert free_host_memory(tmp_path, tmp_path) == expected


def test_this_machine() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free_memory(torch.device("cpu")) <= total


def test_what_does_not_fit_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_memory", lambda: 300 * MIB)
    check_fits(300 * MIB, "a.zip: one")
    with pytest.raises(UserError, match=r"^a\.zip: one takes 5\.0 GB of memory and 0\.3 GB are free; give a"):
        check_fits(5 * 10**9, "a.zip: one")
    with pytest.raises(UserError, match=r"^a\.gz: it has 1,000 bytes and unpacks to 104,857,600, more than a hundred"):
        check_fits(100 * MIB, "a.gz: it", stored=1000)
    check_fits(100 * MIB, "a.gz: it", stored=MIB)
