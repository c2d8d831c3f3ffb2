"""In which numbers a run computes, and that it says so."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.images.track import IMAGES
from policy_accel.machine import processor
from policy_accel.training import TrainingConfig
from policy_accel.training.devices import use_device
from policy_accel.training.precision import autocast, precision_on

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What torch keeps for the whole process is put back."""
    backend, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    for name in ("allow_tf32", "benchmark"):
        monkeypatch.setattr(backend, name, getattr(backend, name))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch.set_float32_matmul_precision(matmul)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("choice", ["fp32", "bf16", "fp16"])
def test_what_is_asked_for_is_taken(choice: str) -> None:
    assert precision_on(CPU, choice) == precision_on(CUDA, choice) == choice


@pytest.mark.parametrize(("has_bf16", "chosen"), [(True, "bf16"), (False, "fp16")])
def test_auto_takes_what_the_card_computes_in(has_bf16: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, bool]] = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or has_bf16)
    assert TrainingConfig().precision_on(CUDA) == chosen
    assert asked == [{"including_emulation": False}]
    assert TrainingConfig().precision_on(CPU) == "fp32"


@pytest.mark.parametrize(
    ("device", "choice", "matmul", "tf32"),
    [
        (CPU, "auto", "highest", False),
        (CUDA, "auto", "high", True),
        (CUDA, "highest", "highest", False),
        (CPU, "medium", "medium", True),
    ],
)
def test_float32_products(device: torch.device, choice: str, matmul: str, tf32: bool) -> None:
    with SimulatedCuda():
        use_device(device, threads=0, matmul_precision=choice)
    assert torch.get_float32_matmul_precision() == matmul
    assert torch.backends.cudnn.allow_tf32 is tf32


@pytest.mark.parametrize("deterministic", [False, True])
def test_kernels_on_cuda_are_the_fastest_or_the_same_each_time(deterministic: bool, cuda: SimulatedCuda) -> None:
    use_device(CUDA, threads=0, matmul_precision="auto", deterministic=deterministic)
    assert torch.backends.cudnn.benchmark is not deterministic
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if deterministic else None)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_products_within_autocast(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == dtype


def test_a_run_says_and_records_what_was_chosen(
    device_task: Callable[..., Any],
    config: TrainingConfig,
    run: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def recorded(name: str) -> tuple[str, str]:
        state = json.loads((tmp_path / name / "checkpoints" / "last" / "state.json").read_text())
        assert state["torch"] == torch.__version__
        assert state["policy-accel"] == importlib.metadata.version("policy-accel")
        assert state["device"] == ("simulated" if name == "cuda" else processor())
        return state["precision"], state["matmul_precision"]

    config.steps, config.precision = 3, "auto"
    run(device_task(), config, "cpu")
    assert "CPU threads, in fp32 (float32 products: highest)" in capsys.readouterr().err
    assert recorded("cpu") == ("fp32", "highest")
    config.device = "cuda"
    with SimulatedCuda():
        run(device_task(), config, "cuda")
    assert "CPU threads, in bf16 (float32 products: high)" in capsys.readouterr().err
    assert recorded("cuda") == ("bf16", "high")


@pytest.mark.parametrize(
    ("recipe", "precision", "matmul"),
    [("ddpm_cifar10", "fp32", "highest"), ("fdm_ve_cifar10", "fp32", "highest"), ("images_small", "auto", "auto")],
)
def test_recipes_that_reproduce_a_publication_keep_its_numbers(recipe: str, precision: str, matmul: str) -> None:
    training = IMAGES.config([f"recipe={recipe}"]).training
    assert (training.precision, training.matmul_precision) == (precision, matmul)
