"""One update, from the indices of a batch to the averaged weights.

    indices -> task.batch -> Batch -> objective.begin -> Noised -> model -> loss -> gradient -> AdamW -> EMA

Nothing in it waits for the device, unless the task's data lie on the disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion import Batch, Noised, predicted_sample, squared_errors, weighted_squared_error
from policy_accel.diffusion.deferred import Deferred
from policy_accel.errors import naming
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.ema import EMA, EMAConfig
from policy_accel.training.optimizer import OptimizerConfig, build_optimizer, check_momentum_decay, step_values
from policy_accel.training.randomness import DataOrder, Generators, validation_generators
from policy_accel.training.task import Task


def predict(model: Denoiser, batch: Batch, noised: Noised) -> Tensor:
    """The model's prediction for every row of `noised`, [R, *S].

    The condition is encoded once for each clean sample, however many rows it has.
    """
    condition = model.encode(batch.condition)
    if condition is not None and noised.repeats > 1:
        condition = condition.repeat_interleave(noised.repeats, dim=0)
    return model(noised.model_input, noised.t, condition)


def denoising_loss(model: Denoiser, batch: Batch, noised: Noised) -> Tensor:
    """Weighted squared error of the model's prediction on one noised batch, a float32 scalar."""
    prediction = predict(model, batch, noised)
    return weighted_squared_error(prediction, noised.target, weight=noised.weight, mask=noised.counted)


def denoising_loss_and_errors(model: Denoiser, batch: Batch, noised: Noised) -> tuple[Tensor, Tensor]:
    """The same, with the unweighted error of each row [R], for distributions of timesteps that learn from it."""
    prediction = predict(model, batch, noised)
    loss = weighted_squared_error(prediction, noised.target, weight=noised.weight, mask=noised.counted)
    return loss, squared_errors(prediction.detach(), noised.target, noised.counted)


@dataclass(frozen=True)
class _Begun:
    """A batch whose noise is being chosen."""

    step: int
    batch: Batch
    noised: Deferred[Noised]


class Feed:
    """Gathers, noises and hands out the batch of each step.

    Where choosing the noise takes time on the host, that of the next batch is chosen while this one trains. Its random
    numbers are drawn in the same order as without that, and `state` is that of before the batch that has not been
    handed out, so a run that is resumed draws the same numbers again.

    Args:
        task: data and objective, on the device.
        order: which samples make up the batch of a step.
        generators: of timesteps, noise and batches.
        steps: length of the run.
        average: the EMA model, for noise that is assigned around its prediction.
    """

    def __init__(self, task: Task, order: DataOrder, generators: Generators, *, steps: int, average: Denoiser) -> None:
        self.task, self.order, self.generators, self.steps, self.average = task, order, generators, steps, average
        self.ahead = task.objective.noise.ahead and not task.objective.times.learns
        self._next: _Begun | None = None
        self._before_next: tuple[dict[str, Tensor], dict[str, Any]] | None = None

    def __call__(self, step: int) -> tuple[Batch, Noised]:
        """The batch of `step` and what it is trained on; starts on the next one."""
        begun = self._next or self._begin(step)
        assert begun.step == step
        self._next = None
        with naming("acceleration.noise"):
            noised = begun.noised.result()
        if self.ahead and step + 1 < self.steps:
            self._before_next = self.generators.draws(), self.task.objective.noise.state_dict()
            self._next = self._begin(step + 1)
        return begun.batch, noised

    def _begin(self, step: int) -> _Begun:
        objective, generators = self.task.objective, self.generators
        batch = self.task.batch(self.order.batch(step), generators.batch)
        if objective.noise.wants_prediction(step):
            batch = replace(batch, center=self._predicted_from_noise(batch))
        with naming("acceleration.noise"):
            noised = objective.begin(batch, generators.time, generators.noise, step=step, progress=step / self.steps)
        return _Begun(step, batch, noised)

    @torch.no_grad()
    def _predicted_from_noise(self, batch: Batch) -> Tensor:
        """The EMA model's sample at the noisiest time: nearly the mean of the data given the condition."""
        objective = self.task.objective
        noise = torch.randn(batch.x0.shape, device=batch.x0.device, generator=self.generators.noise)
        noisiest = objective.noisiest
        x_t = noisiest.sigma * noise
        model_input = noisiest.input_scale * x_t
        if batch.known is not None:
            clean = objective.data_scale * batch.x0
            x_t, model_input = (torch.where(batch.known, clean, part) for part in (x_t, model_input))
        time = torch.full((x_t.shape[0],), noisiest.time, device=x_t.device, dtype=torch.int64)
        prediction = self.average(model_input, time, self.average.encode(batch.condition))
        return predicted_sample(prediction, x_t, noisiest, objective.target) / objective.data_scale

    def state(self) -> dict[str, Any]:
        """State of the generators and of the choice of noise, as of the next batch to be handed out.

        Only timesteps, noise and batches are drawn ahead: dropout draws from torch's own generators, which go on where
        they are.
        """
        draws, noise = None, self.task.objective.noise.state_dict()
        if self._next is not None and self._before_next is not None:
            draws, noise = self._before_next
        return {"generators": self.generators.state_dict(draws), "noise": noise}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self._next = None
        self.generators.load_state_dict(state["generators"])
        if state.get("noise"):
            self.task.objective.noise.load_state_dict(state["noise"])


class Update:
    """The state that training moves (model, optimiser, EMA, generators) and the step that moves it.

    Args:
        task: already on the device of `generators`.
        order: which samples make up the batch of a step.
        optimizer: optimiser settings.
        ema: averaging settings.
        steps: length of the whole run, for the learning-rate schedule.
        precision: "fp32" or "bf16" (autocast; weights, loss and coefficients stay float32).
        compiled: compile loss and gradient with torch.compile.
    """

    def __init__(
        self,
        task: Task,
        order: DataOrder,
        optimizer: OptimizerConfig,
        ema: EMAConfig,
        *,
        steps: int,
        generators: Generators,
        precision: str = "fp32",
        compiled: bool = False,
    ) -> None:
        self.task = task
        self.config = optimizer
        self.steps = steps
        self.optimizer = build_optimizer(optimizer, task.model)
        check_momentum_decay(optimizer, steps)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.ema = EMA(task.model, ema)
        self.precision = precision
        self.device = generators.device
        self.feed = Feed(task, order, generators, steps=steps, average=self.ema.model)
        self.times = task.objective.times
        loss: Any = denoising_loss_and_errors if self.times.learns else denoising_loss
        self.loss = torch.compile(loss) if compiled else loss

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bf16 autocast when asked for; else nothing."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Make the update with number `step` (from 0).

        Returns the loss and, when clipping, the gradient norm: scalars on the device.
        """
        lr, beta = step_values(self.config, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"], group["betas"] = lr, (beta, group["betas"][1])
        batch, noised = self.feed(step)
        with self.autocast():
            loss = self.loss(self.task.model, batch, noised)
        if self.times.learns:
            loss, errors = loss
            self.times.update(noised.t, errors)
        loss.backward()
        norm = None
        if self.config.clip_grad_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_grad_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(batch.x0.shape[0])
        return loss.detach(), norm

    @torch.no_grad()
    def validation_loss(self, batches: Iterable[Batch], seed: int) -> Tensor:
        """Mean loss of the EMA model, in eval mode, over `batches`: a scalar on the device.

        Timesteps are uniform, noise is independent, and both are drawn from `seed`: two calls differ by the weights
        alone, whatever accelerates the training.
        """
        time, noise = validation_generators(seed, self.device)
        objective = self.task.objective.plain()
        total, samples = torch.zeros((), device=self.device), 0
        for batch in batches:
            noised = objective.draw(batch, time, noise)
            with self.autocast():
                total += denoising_loss(self.ema.model, batch, noised) * batch.x0.shape[0]
            samples += batch.x0.shape[0]
        return total / max(1, samples)

    def is_finite(self) -> bool:
        """Whether every weight is a finite number; waits for the device."""
        return bool(torch.stack([parameter.isfinite().all() for parameter in self.parameters]).all())

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Tensors of a checkpoint, by file name: model, optimizer, ema, one for each further average (ema_0.05), and
        times where the distribution of timesteps learns."""
        moments = {
            f"{index}.{name}": value
            for index, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        averages = {name: model.state_dict() for name, model in self.ema.models().items()}
        tensors = {"model": self.task.model.state_dict(), **averages, "optimizer": moments}
        times = self.times.state_dict()
        return {**tensors, "times": times} if times else tensors

    def state(self) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        return {"ema_updates": self.ema.updates, "ema_samples": self.ema.samples, **self.feed.state()}

    def restore(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Continue from what `tensors` and `state` gave."""
        self.task.model.load_state_dict(tensors["model"])
        for name, model in self.ema.models().items():
            model.load_state_dict(tensors[name])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors["optimizer"].items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.ema.updates, self.ema.samples = int(state["ema_updates"]), int(state.get("ema_samples", 0))
        if "times" in tensors:
            with naming("acceleration.timesteps"):
                self.times.load_state_dict(tensors["times"])
        self.feed.restore(state)
