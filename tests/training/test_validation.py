"""The validation loss of the log against one that is computed from the checkpoint with the published formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from policy_accel.acceleration.assigned_noise import AssignedNoise
from policy_accel.acceleration.nearest_noise import NearestChoice
from policy_accel.acceleration.timestep_distributions import LossSecondMoment
from policy_accel.diffusion import Batch, Objective, Repetition, karhunen_loeve_process
from policy_accel.run_files import read_metrics
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.randomness import named_generator

Run = Callable[..., Trained]
SEED, BATCH, STEPS = 7, 8, 12


def cosine_alpha_bar() -> Tensor:
    """Products of the schedule of Nichol & Dhariwal 2021 at 100 times, betas at most 0.999."""
    ends = torch.cos((torch.arange(101, dtype=torch.float64) / 100 + 0.008) / 1.008 * math.pi / 2).square()
    return (1 - (1 - ends[1:] / ends[:-1]).clamp(max=0.999)).cumprod(0)


def expected_loss(
    task: Any, run_dir: Path, *, counted: Tensor | None = None, scale: float = 1.0, step: int = STEPS
) -> float:
    """Squared error of the averaged network on epsilon, batch by batch: each batch counts by its samples."""
    network = type(task)().model
    network.load_state_dict(load_checkpoint(run_dir / "checkpoints" / f"{step:08d}").tensors["ema"])
    network.eval()
    times, noises = (named_generator(SEED, f"validation {name}") for name in ("time", "noise"))
    alpha_bar, total = cosine_alpha_bar(), 0.0
    for first in range(0, 10, BATCH):
        x0 = scale * task.data[40 + first : 40 + min(first + BATCH, 10)]
        t, noise = torch.randint(100, (len(x0),), generator=times), torch.randn(x0.shape, generator=noises)
        at = alpha_bar[t][:, None]
        with torch.no_grad():
            error = (network((at.sqrt() * x0 + (1 - at).sqrt() * noise).float(), t) - noise) ** 2
        if counted is not None:
            error = error[counted[first : first + BATCH].expand_as(error)]
        total += float(error.double().mean()) * len(x0)
    return total / 10


def logged(run_dir: Path) -> dict[int, float]:
    rows = read_metrics(run_dir / "metrics.jsonl")
    return {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}


METHODS: dict[str, Callable[[Objective], Objective]] = {
    "baseline": lambda o: o,
    "weights": lambda o: replace(o, weights=torch.linspace(0, 5, 100, dtype=torch.float64)),
    "cap": lambda o: replace(o, cap_warmup=50),
    "second moment": lambda o: replace(o, times=LossSecondMoment(100, history=1)),
    "assignment": lambda o: replace(o, noise=AssignedNoise(metric="dot")),
    "nearest": lambda o: replace(o, noise=NearestChoice(4, "l2")),
    "path": lambda o: replace(
        o,
        process=karhunen_loeve_process(o.process, 3),  # type: ignore[arg-type]
        repetition=Repetition(times_per_sample=3),
    ),
    "fresh": lambda o: replace(o, repetition=Repetition(times_per_sample=2, coupling="fresh")),
}


@pytest.mark.parametrize("name", list(METHODS))
def test_the_validation_loss_is_the_plain_one_whatever_accelerates_the_training(
    name: str, toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    task = toy_task()
    task.objective = METHODS[name](task.objective)
    run(task, config, seed=SEED)
    losses = logged(tmp_path / "run")
    assert list(losses) == [4, 8, 12]
    assert losses[STEPS] == pytest.approx(expected_loss(task, tmp_path / "run"), rel=1e-5)


def test_the_scale_of_the_data_counts_in_validation_too(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    task = toy_task()
    task.objective = replace(task.objective, data_scale=3.0)
    run(task, config, seed=SEED)
    assert logged(tmp_path / "run")[STEPS] == pytest.approx(expected_loss(task, tmp_path / "run", scale=3.0), rel=1e-5)


def test_masked_entries_do_not_count_in_validation(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    task, counted = toy_task(), torch.arange(10)[:, None] % 3 != 1
    task.validation_batch = lambda indices: Batch(task.data[40 + indices], counted=counted[indices])
    run(task, config, seed=SEED)
    expected = expected_loss(task, tmp_path / "run", counted=counted)
    assert logged(tmp_path / "run")[STEPS] == pytest.approx(expected, rel=1e-5)


def test_every_validation_sample_is_seen_once_and_in_order(toy_task: Any, config: TrainingConfig, run: Run) -> None:
    task = toy_task()
    asked: list[list[int]] = []
    original = task.validation_batch
    task.validation_batch = lambda indices: asked.append(indices.tolist()) or original(indices)
    run(task, config)
    assert asked == 3 * [list(range(8)), [8, 9]]


def test_a_task_without_validation_samples_logs_no_such_loss(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    task = toy_task()
    task.validation_samples = 0
    assert run(task, config).finished
    assert logged(tmp_path / "run") == {}
