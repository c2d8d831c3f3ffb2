from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from policy_accel.doctor import torch_build as module
from policy_accel.doctor.findings import NOTE, OK
from policy_accel.doctor.torch_build import no_gpu, torch_build


def built(cuda: str | None) -> SimpleNamespace:
    return SimpleNamespace(__version__="2.9.1+cpu", version=SimpleNamespace(cuda=cuda, hip=None))


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    (tmp_path / "nvidia0").touch()
    return tmp_path


def test_the_build_and_its_threads_are_said() -> None:
    first = next(torch_build())
    assert (first.name, first.state) == ("torch", OK)
    assert first.said.startswith(f"{torch.__version__}, built for ")
    assert first.said.endswith(f"{torch.get_num_threads()} CPU threads")


def test_without_a_gpu_nothing_is_wrong(devices: Path) -> None:
    (devices / "nvidia0").unlink()
    assert no_gpu(built("12.8"), ["no driver"], devices).state == OK


def test_a_cpu_build_beside_a_gpu_is_noted_with_the_version_to_install(devices: Path) -> None:
    found = no_gpu(built(None), [], devices)
    assert found.state == NOTE
    assert "built without CUDA" in found.said
    assert "pip install --force-reinstall torch==2.9.1 " in found.remedy


@pytest.mark.parametrize("value", ["", "-1"])
def test_a_hidden_gpu_is_noted(devices: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    found = no_gpu(built("12.8"), [], devices)
    assert found.remedy == "unset CUDA_VISIBLE_DEVICES"


def test_a_driver_that_does_not_fit_is_noted_with_what_torch_says(
    devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = no_gpu(built("13.2"), ["The NVIDIA driver is too old."], devices)
    assert found.said.endswith("torch (CUDA 13.2) cannot use it: The NVIDIA driver is too old.")
    assert "nvidia-smi" in found.remedy
