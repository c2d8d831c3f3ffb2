"""One optimiser step: batch, noise, loss, gradient, AdamW, EMA.

Nothing in it waits for the device, unless the task's data lie on the disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from policy_accel.errors import naming
from policy_accel.training.ema import EMA, EMAConfig
from policy_accel.training.feed import Feed, Order, validation_generators
from policy_accel.training.optimizer import OptimizerConfig, build_optimizer, check_momentum_decay, step_values
from policy_accel.training.randomness import Generators
from policy_accel.training.task import Batch, Task, denoising_loss, denoising_loss_and_errors


class Update:
    """The state that training moves (model, optimiser, EMA, generators) and the step that moves it.

    Args:
        task: already on the device of `generators`.
        order: which samples make up the batch of a step.
        optimizer: optimiser settings.
        ema: averaging settings.
        steps: length of the whole run, for the learning-rate line.
        precision: "fp32" or "bf16" (autocast; weights, loss and coefficients stay float32).
        compiled: compile loss and gradient with torch.compile.
    """

    def __init__(
        self,
        task: Task,
        order: Order,
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
        self.generators = generators
        self.optimizer = build_optimizer(optimizer, task.model)
        check_momentum_decay(optimizer, steps)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.ema = EMA(task.model, ema)
        self.precision = precision
        self.device = generators.device
        self.feed = Feed(task, order, generators, steps=steps, average=self.ema.model)
        self.learns = task.objective.learns
        loss: Any = denoising_loss_and_errors if self.learns else denoising_loss
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
        if self.learns:
            loss, errors = loss
            self.task.objective.times.update(noised.t, errors)  # type: ignore[attr-defined]
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

        Times are uniform, noise is independent, and both are drawn from `seed`: two calls differ by the weights alone,
        whatever accelerates the training.
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
        """Tensors of a checkpoint, by file name: model, optimizer, ema and one for each further average (ema_0.05)."""
        moments = {
            f"{index}.{name}": value
            for index, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        averages = {name: model.state_dict() for name, model in self.ema.models().items()}
        tensors = {"model": self.task.model.state_dict(), **averages, "optimizer": moments}
        if self.learns:
            tensors["times"] = self.task.objective.times.state_dict()  # type: ignore[attr-defined]
        return tensors

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
        if self.learns:
            with naming("acceleration.timesteps"):
                self.task.objective.times.load_state_dict(tensors["times"])  # type: ignore[attr-defined]
        self.feed.restore(state)
