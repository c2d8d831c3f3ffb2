"""What an update hands to the parts it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from policy_accel.acceleration.assigned_noise import AssignedNoise
from policy_accel.acceleration.momentum_decay import DemonDecay, decay_at
from policy_accel.diffusion.timesteps import UniformTimes
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.adamw import AdamW
from policy_accel.training.ema import EMAConfig, profile_exponent
from policy_accel.training.optimizer import OptimizerConfig
from policy_accel.training.randomness import DataOrder, Generators, named_generator
from policy_accel.training.update import Update

Run = Callable[..., Trained]


class Progress(UniformTimes):
    """Uniform times that remember the progress they were drawn at."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: float = 0.0) -> Tensor:
        seen.append(progress)
        return super().draw(shape, generator, progress)


seen: list[float] = []


def test_timesteps_are_drawn_at_the_progress_of_the_run(toy_task: Any, config: TrainingConfig, run: Run) -> None:
    seen.clear()
    config.validate_every = 0
    task = toy_task()
    task.objective = replace(task.objective, times=Progress(100))
    run(task, config)
    assert seen == [step / 12 for step in range(12)]


def test_every_update_has_the_momentum_of_its_step(
    toy_task: Any, config: TrainingConfig, run: Run, monkeypatch: Any
) -> None:
    config.optimizer.momentum_decay = DemonDecay(start_step=2)
    betas: list[Any] = []
    step = AdamW.step

    def note(self: AdamW, lr: Any, beta: Any, left_out: Any) -> None:
        betas.append(beta)
        step(self, lr, beta, left_out)

    monkeypatch.setattr(AdamW, "step", note)
    run(toy_task(), config)
    assert betas == [decay_at(k, 12, 0.95, start_step=2)[0] if k >= 2 else 0.95 for k in range(12)]


def test_the_denoiser_predicts_from_the_noise_of_the_last_time(toy_task: Any, config: TrainingConfig, run: Run) -> None:
    task = toy_task()
    noise = AssignedNoise(metric="dot", center="denoiser")
    task.objective = replace(task.objective, target="sample", noise=noise)
    given: list[Tensor] = []
    original = type(task.model).forward

    def watch(self: Any, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        if not self.training:
            given.append(x.clone())
        return original(self, x, t, condition)

    config.steps, config.validate_every = 1, 0
    try:
        type(task.model).forward = watch
        run(task, config)
    finally:
        type(task.model).forward = original
    last = task.objective.process.level(99)
    expected = last.input_scale * last.sigma * torch.randn(8, 3, generator=named_generator(7, "noise"))
    torch.testing.assert_close(given[0], expected)


def test_every_average_follows_by_a_weight_of_its_own(toy_task: Any) -> None:
    """The warmed-up average and two profiles, against their formulas on the weights after each update."""
    task, steps, lengths = toy_task(), 6, (0.05, 0.2)
    update = Update(
        task,
        DataOrder(task.samples, 8, 3, torch.device("cpu")),
        OptimizerConfig(lr=1e-2, warmup_steps=0),
        EMAConfig(lengths=list(lengths)),
        steps=steps,
        generators=Generators(3, torch.device("cpu")),
    )
    live = task.model.layers[4].weight
    expected = {name: live.detach().clone() for name in ("ema", "ema_0.05", "ema_0.2")}
    for step in range(steps):
        update(step)
        decays = {"ema": 0.0 if step < 2 else 1 - (1 + (step - 1) / 1.0) ** -0.75}
        for length in lengths:
            decays[f"ema_{length}"] = (1 - 1 / (step + 1)) ** (profile_exponent(length) + 1)
        for name, decay in decays.items():
            expected[name] = decay * expected[name] + (1 - decay) * live.detach()
    for name, model in update.ema.models().items():
        torch.testing.assert_close(model.layers[4].weight, expected[name])  # type: ignore[union-attr,index]
    assert len({float(value.sum()) for value in expected.values()}) == 3
