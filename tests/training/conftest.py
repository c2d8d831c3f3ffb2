from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.simulated_cuda import SimulatedCuda
from torch import Tensor, nn

from policy_accel.diffusion import Objective, vp_process
from policy_accel.models import Denoiser
from policy_accel.training import Batch, Task, Trained, TrainingConfig, train
from policy_accel.training.task import NOTHING, Draws


class ToyDenoiser(Denoiser):
    """A small network with dropout, so that torch's own generator matters, and a buffer that moves."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Mish(), nn.Dropout(0.1), nn.Linear(16, 3))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layers(torch.cat([x, t.float()[:, None] / 100], dim=1))


class ToyTask(Task):
    """Three numbers a sample on a line; the score is minus the distance of the EMA weights from nought."""

    def __init__(
        self, score: Callable[[Denoiser], dict[str, Any] | None] | None = None, *, jitter: float = 0.0
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.data = torch.randn(50, 1, generator=generator) * torch.tensor([1.0, -0.5, 0.2])
        self.samples, self.validation_samples = 40, 10
        self.fingerprint = "toy"
        self.groups: Tensor | None = None
        self.group_run = 1
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model: Denoiser = ToyDenoiser()
        self.objective = Objective(vp_process(timesteps=100), "epsilon")
        self.score = score
        self.batches: list[list[int]] = []
        self.training_modes: list[bool] = []
        self.evaluated: list[int] = []
        self.jitter = jitter

    def to(self, device: torch.device) -> None:
        self.model.to(device)
        self.objective = self.objective.to(device)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        return {"moved": torch.randn(count, 3, generator=generator)} if self.jitter else NOTHING

    def batch(self, indices: Tensor, drawn: Draws) -> Batch:
        self.batches.append(indices.tolist())
        x0 = self.data[indices]
        return Batch(x0 + self.jitter * drawn["moved"] if self.jitter else x0)

    def validation_batch(self, indices: Tensor) -> Batch:
        return Batch(self.data[40 + indices])

    def evaluate(self, model: Denoiser, report: Callable[[str], None], *, step: int) -> dict[str, Any] | None:
        self.training_modes.append(model.training)
        self.evaluated.append(step)
        return self.score(model) if self.score else None


class DeviceTask(ToyTask):
    """The toy task where the data lie on the device, and no list of the batches is kept."""

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.data = self.data.to(device)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        return {"moved": torch.randn(count, 3, device=generator.device, generator=generator)}

    def batch(self, indices: Tensor, drawn: Draws) -> Batch:
        return Batch(self.data[indices] + 0.1 * drawn["moved"])


@pytest.fixture
def toy_task() -> type[ToyTask]:
    return ToyTask


def config_of(device: str = "cpu") -> TrainingConfig:
    """Twelve updates in float32 with everything due now and then."""
    config = TrainingConfig(steps=12, batch_size=8, device=device, precision="fp32", validate_every=4)
    config.optimizer.lr, config.optimizer.warmup_steps = 1e-2, 2
    config.checkpoint.every, config.logging.every = 3, 2
    return config


@pytest.fixture
def config() -> TrainingConfig:
    return config_of()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Trained]:
    def run(task: ToyTask, config: TrainingConfig, name: str = "run", **options: Any) -> Trained:
        options = {"seed": 7, "run_config": {"training": {"steps": config.steps}}, **options}
        return train(task, config, run_dir=tmp_path / name, **options)

    return run


@pytest.fixture
def quick_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy_accel.training.graphs.WARM_UP", 1)


@pytest.fixture
def cuda() -> Iterator[SimulatedCuda]:
    with SimulatedCuda() as device:
        yield device


def device_task_of(noise: Any = None, times: Any = None) -> DeviceTask:
    """The toy task for any device, with a choice of noise and times."""
    task = DeviceTask()
    given = {name: part for name, part in (("noise", noise), ("times", times)) if part is not None}
    task.objective = replace(task.objective, **given)
    task.model.layers[3].p = 0.0  # torch's own generator is no part of a comparison with the CPU
    return task


@pytest.fixture
def device_task() -> Callable[..., DeviceTask]:
    return device_task_of
