"""Noised batches for the training core, one ahead where choosing the noise takes time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from policy_accel.diffusion import Batch, DiscreteProcess, Noised, predicted_sample
from policy_accel.diffusion.processes import Level
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.randomness import Generators, named_generator
from policy_accel.training.task import Task


class Order(Protocol):
    """Which samples make up the batch of a step."""

    def batch(self, step: int) -> Tensor:
        """Indices [B] int64."""


class Feed:
    """Gathers, noises and hands out the batch of each step.

    While a batch trains, the noise of the next one is assigned in a thread of its own. Its random numbers are drawn
    in the same order as without that, and `state` is that of before the batch that has not been handed out, so a
    run that is resumed draws the same numbers again.

    Args:
        task: data and objective, on the device.
        order: indices by step.
        generators: of times, noise and batches.
        steps: length of the run.
        average: the EMA model, for noise that is assigned around its prediction.
    """

    def __init__(self, task: Task, order: Order, generators: Generators, *, steps: int, average: Denoiser) -> None:
        self.task, self.order, self.generators, self.steps, self.average = task, order, generators, steps, average
        objective = task.objective
        process = objective.process
        self.noisiest: Level | None = None
        if getattr(objective.noise, "center", "none") == "denoiser" and isinstance(process, DiscreteProcess):
            self.noisiest = process.to("cpu").level(process.timesteps - 1)
        self.ahead = hasattr(objective.noise, "solver") and self.noisiest is None and not objective.learns
        self._next: tuple[int, Batch, Callable[[], Noised]] | None = None
        self._before_next: tuple[dict[str, Tensor], dict[str, Any]] | None = None

    def __call__(self, step: int) -> tuple[Batch, Noised]:
        """The batch of `step` and what it is trained on; starts on the next one."""
        at, batch, finish = self._next or self._begin(step)
        assert at == step
        self._next = None
        noised = finish()
        if self.ahead and step + 1 < self.steps:
            self._before_next = self.generators.draws(), self._noise_state()
            self._next = self._begin(step + 1)
        return batch, noised

    def _begin(self, step: int) -> tuple[int, Batch, Callable[[], Noised]]:
        batch = self.task.batch(self.order.batch(step), self.generators.batch)
        if self.noisiest is not None and self.task.objective.noise.start.reached(step):  # type: ignore[attr-defined]
            batch = replace(batch, center=self._predicted_from_noise(batch, self.noisiest))
        finish = self.task.objective.begin(
            batch, self.generators.time, self.generators.noise, step=step, progress=step / self.steps
        )
        return step, batch, finish

    @torch.no_grad()
    def _predicted_from_noise(self, batch: Batch, level: Level) -> Tensor:
        """The EMA model's sample at the noisiest time: nearly the mean of the data given the condition."""
        objective = self.task.objective
        noise = torch.randn(batch.x0.shape, device=batch.x0.device, generator=self.generators.noise)
        x_t = level.sigma * noise
        model_input = level.input_scale * x_t
        if batch.known is not None:
            clean = objective.data_scale * batch.x0
            x_t, model_input = (torch.where(batch.known, clean, part) for part in (x_t, model_input))
        time = torch.full((x_t.shape[0],), level.time, device=x_t.device, dtype=torch.int64)
        prediction = self.average(model_input, time, self.average.encode(batch.condition))
        return predicted_sample(prediction, x_t, level, objective.target) / objective.data_scale

    def _noise_state(self) -> dict[str, Any]:
        choice = self.task.objective.noise
        return choice.state_dict() if hasattr(choice, "state_dict") else {}

    def state(self) -> dict[str, Any]:
        """State of the generators and of the choice of noise, as of the next batch to be handed out.

        Only times, noise and batches are drawn ahead: dropout draws from torch's own generators, which go on where they
        are.
        """
        draws, noise = (None, self._noise_state()) if self._next is None else self._before_next or (None, {})
        return {"generators": self.generators.state_dict(draws), "noise": noise}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self._next = None
        self.generators.load_state_dict(state["generators"])
        if state.get("noise"):
            self.task.objective.noise.load_state_dict(state["noise"])  # type: ignore[attr-defined]


def validation_generators(seed: int, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Generators of times and noise for a validation pass: the same draws at every call."""
    return tuple(named_generator(seed, f"validation {name}", device=device) for name in ("time", "noise"))  # type: ignore[return-value]
