from __future__ import annotations

import pytest
import torch
from support.simulated_cuda import SimulatedCuda

from policy_accel.errors import UserError
from policy_accel.training.devices import available_cores, choose_device, use_device


class Machine:
    """CUDA devices that are not there; `set` is the one that was made current."""

    def __init__(self, patch: pytest.MonkeyPatch, devices: int, current: int = 0) -> None:
        self.set = current
        patch.setattr(torch.cuda, "is_available", lambda: devices > 0)
        patch.setattr(torch.cuda, "device_count", lambda: devices)
        patch.setattr(torch.cuda, "current_device", lambda: self.set)
        patch.setattr(torch.cuda, "set_device", self._set)
        patch.delenv("LOCAL_RANK", raising=False)

    def _set(self, device: torch.device) -> None:
        """As strict as the real one, which does this first."""
        self.set = torch.cuda._utils._get_device_index(device)


@pytest.mark.parametrize(
    ("name", "rank", "index"),
    [("auto", None, 1), ("cuda", None, 1), ("cuda:0", None, 0), ("auto", "2", 2), ("cuda", "0", 0), ("cuda:1", "0", 1)],
)
def test_a_cuda_device_has_a_number_and_can_be_made_current(
    name: str, rank: str | None, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, devices=3, current=1)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    device = choose_device(name)
    assert device == torch.device("cuda", index)
    precision = torch.get_float32_matmul_precision()
    use_device(device, threads=0, matmul_precision=precision)
    assert machine.set == index


@pytest.mark.parametrize(
    ("name", "rank", "devices", "sentence"),
    [
        ("cuda", None, 0, r"training\.device 'cuda' is not here \(0 CUDA devices\); use auto or cpu"),
        ("cuda:2", None, 2, r"'cuda:2' is not here \(2 CUDA devices\)"),
        ("auto", "2", 2, r"'cuda' is not here \(2 CUDA devices\)"),
        ("mps", None, 1, r"'mps' is not supported; use auto, cpu, cuda or cuda:N"),
        ("gpu", None, 1, r"'gpu' is not a device"),
    ],
)
def test_a_device_that_is_not_here_is_refused(
    name: str, rank: str | None, devices: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(monkeypatch, devices)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(UserError, match=sentence):
        choose_device(name)


@pytest.mark.parametrize("devices", [0, 1])
def test_the_cpu_is_chosen_by_name_or_where_there_is_nothing_else(
    devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(monkeypatch, devices)
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if devices else "cpu")


def test_the_setting_is_named_where_the_device_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, 0)
    with pytest.raises(UserError, match=r"--device 'cuda' is not here"):
        choose_device("cuda", "--device")


@pytest.mark.parametrize(("here", "cores"), [("", 8), ("1", 8), ("3", 2), ("16", 1)])
def test_processes_of_torchrun_share_the_cores(monkeypatch: pytest.MonkeyPatch, here: str, cores: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    assert available_cores() == cores


def test_one_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with (
        SimulatedCuda(),
        pytest.raises(UserError, match="would put the 2 processes of this machine on one"),
    ):
        choose_device("cuda:0")
