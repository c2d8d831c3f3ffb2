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
from policy_accel.diffusion import (
    Batch,
    Objective,
    Repetition,
    karhunen_loeve_process,
    momentum_process,
    vp_process,
)
from policy_accel.diffusion.continuous import FlowProcess, SigmaProcess
from policy_accel.diffusion.shortcut import ShortcutProcess
from policy_accel.diffusion.two_step import TwoStepProcess
from policy_accel.run_files import noise_levels, read_metrics
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.randomness import named_generator
from policy_accel.training.validation import Validation, at_levels

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


def levels(run_dir: Path) -> dict[int, dict[float, float]]:
    rows = read_metrics(run_dir / "metrics.jsonl")
    return {row["step"]: dict(noise_levels(row)) for row in rows if "noise_levels" in row}


@pytest.mark.parametrize("name", ["baseline", "weights", "second moment", "nearest", "path"])
@pytest.mark.parametrize("held_out", [True, False])
def test_the_loss_of_each_level_is_that_of_the_formula(
    held_out: bool, name: str, toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    """Of the middles of 16 equal parts of the 100 times, sample by sample, each with noise of its own at each level."""
    config.evaluate_every = 6
    task = toy_task(lambda model: {"score": 0.0})
    task.objective = METHODS[name](task.objective)
    task.validation_samples *= held_out
    run(task, config, seed=SEED)
    assert list(levels(tmp_path / "run")) == [6, 12]
    for step, found in levels(tmp_path / "run").items():
        network = type(task)().model
        network.load_state_dict(load_checkpoint(tmp_path / "run" / "checkpoints" / f"{step:08d}").tensors["ema"])
        network.eval()
        log_snr = (cosine_alpha_bar() / (1 - cosine_alpha_bar())).log()
        t = torch.tensor([int((log_snr - at).abs().argmin()) for at in found])
        assert t.tolist() == pytest.approx([100 / 16 * (part + 0.5) for part in reversed(range(16))], abs=1.1)
        at, noises = cosine_alpha_bar()[t][:, None], named_generator(SEED, "validation noise")
        total = torch.zeros(16)
        for x0 in task.data[40:] if held_out else task.data[:40]:
            noise = torch.randn(16, 3, generator=noises)
            with torch.no_grad():
                total += (network((at.sqrt() * x0 + (1 - at).sqrt() * noise).float(), t) - noise).square().mean(1)
        assert list(found.values()) == pytest.approx((total / (10 if held_out else 40)).tolist(), rel=1e-4)


def test_a_level_counts_as_the_process_weighs_it(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    """MIP's two: nothing is seen of the sample, weight 1 / 0.9^2; it is seen beside 0.1 noise, weight 1 / 0.1^2."""
    task = toy_task()
    task.objective = Objective(TwoStepProcess(), "sample")
    run(task, config, seed=SEED)
    network = type(task)().model
    network.load_state_dict(load_checkpoint(tmp_path / "run" / "checkpoints" / "last").tensors["ema"])
    network.eval()
    noises, expected = named_generator(SEED, "validation noise"), torch.zeros(2)
    drawn = torch.cat([torch.randn(part, 2, 3, generator=noises) for part in (4, 4, 2)])[:, 1]
    for x0, noise in zip(task.data[40:], drawn, strict=True):
        told = torch.tensor([1000.0, 100.0])
        with torch.no_grad():
            error = (network(torch.stack([torch.zeros(3), x0 + 0.1 * noise]), told) - x0).square().mean(1)
        expected += error * torch.tensor([1 / 0.81, 100.0]) / 10
    found = levels(tmp_path / "run")[STEPS]
    assert list(found) == pytest.approx([-20, 2 * math.log(10)], abs=0.01)
    assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-4)


PROCESSES = {
    "edm": (SigmaProcess("edm"), "edm", 16),
    "ve": (SigmaProcess("ve"), "negative_epsilon", 16),
    "flow": (FlowProcess(), "flow", 16),
    "path": (karhunen_loeve_process(vp_process(timesteps=100), 3), "v", 16),
    "momentum": (momentum_process(vp_process(timesteps=100)), "sample", 16),
    "few": (vp_process(timesteps=5), "epsilon", 5),
    "mip": (TwoStepProcess(), "sample", 2),
    "shortcut": (ShortcutProcess(32), "flow", 16),
}


@pytest.mark.parametrize("name", list(PROCESSES))
def test_levels_lie_evenly_in_the_distribution_of_every_process(name: str) -> None:
    process, target, count = PROCESSES[name]
    objective, log_snr = at_levels(Objective(process, target))
    assert len(log_snr) == count
    assert log_snr == sorted(set(log_snr))
    assert log_snr[0] >= -20
    x0 = torch.zeros(3, 4)
    noised = objective.draw(Batch(x0), *(torch.Generator().manual_seed(seed) for seed in (0, 1)))
    assert noised.x_t.shape == (3 * count, 4)
    rows = noised.t.view(3, count, -1)
    assert bool((rows == rows[:1]).all())
    drawn = objective.process.log_snr_at(objective.plain().times.draw((4000,), torch.Generator().manual_seed(3)))
    shares = [float((drawn < at).double().mean()) for at in log_snr]
    if count == 16:
        assert shares == pytest.approx([(part + 0.5) / 16 for part in range(16)], abs=0.04)


def test_levels_leave_the_training_alone(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a level whose loss is not finite is left out, which JSON has no number for."""
    for every in (0, 2):
        config.evaluate_every = every
        if every:
            monkeypatch.setattr(Validation, "losses_by_level", lambda self: torch.tensor([math.inf, *range(15)]))
        run(toy_task(lambda model: {"score": 0.0}, jitter=0.1), config, f"every {every}")
    folders = [tmp_path / f"every {every}" / "checkpoints" / "last" for every in (0, 2)]
    first, second = (load_checkpoint(folder).tensors["model"] for folder in folders)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert list(levels(tmp_path / "every 2")[12].values()) == list(range(15))
    assert "Infinity" not in (tmp_path / "every 2" / "metrics.jsonl").read_text()


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
    levels = [[i] for i in range(10)]  # at the one evaluation, after the last update
    assert asked == [*(3 * [list(range(8)), [8, 9]]), *levels]


def test_a_task_without_validation_samples_logs_no_such_loss(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    task = toy_task()
    task.validation_samples = 0
    assert run(task, config).finished
    assert logged(tmp_path / "run") == {}
