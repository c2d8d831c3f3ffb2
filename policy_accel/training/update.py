"""One optimiser step: batch, noise, loss, gradient, AdamW, EMA. Nothing in it waits for the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from policy_accel.training.ema import EMA, EMAConfig
from policy_accel.training.optimizer import OptimizerConfig, build_optimizer, lr_factor
from policy_accel.training.randomness import Generators, named_generator
from policy_accel.training.task import Batch, Task, denoising_loss


class Update:
    """The state that training moves (model, optimiser, EMA, generators) and the step that moves it.

    Args:
        task: already on `device`.
        optimizer: optimiser settings.
        ema: averaging settings.
        steps: length of the whole run, for the learning-rate line.
        precision: "fp32" or "bf16" (autocast; weights, loss and coefficients stay float32).
        compiled: compile loss and gradient with torch.compile.
    """

    def __init__(
        self,
        task: Task,
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
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.ema = EMA(task.model, ema)
        self.precision = precision
        self.device = generators.device
        self.loss = torch.compile(denoising_loss) if compiled else denoising_loss

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bf16 autocast when asked for; else nothing."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def __call__(self, indices: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """Make the update with number `step` (from 0) on samples `indices` [B].

        Returns the loss and, when clipping, the gradient norm: scalars on the device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * lr_factor(self.config, step, self.steps)
        batch = self.task.batch(indices)
        noised = self.task.objective.draw(batch.x0, self.generators.time, self.generators.noise, batch.known)
        with self.autocast():
            loss = self.loss(self.task.model, batch, noised)
        loss.backward()
        norm = None
        if self.config.clip_grad_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_grad_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        return loss.detach(), norm

    @torch.no_grad()
    def validation_loss(self, batches: Iterable[Batch], seed: int) -> Tensor:
        """Mean loss of the EMA model, in eval mode, over `batches`: a scalar on the device.

        Times and noise are drawn from `seed`, so that two calls differ by the weights alone.
        """
        time = named_generator(seed, "validation time", device=self.device)
        noise = named_generator(seed, "validation noise", device=self.device)
        total, samples = torch.zeros((), device=self.device), 0
        for batch in batches:
            noised = self.task.objective.draw(batch.x0, time, noise, batch.known)
            with self.autocast():
                total += denoising_loss(self.ema.model, batch, noised) * batch.x0.shape[0]
            samples += batch.x0.shape[0]
        return total / max(1, samples)

    def is_finite(self) -> bool:
        """Whether every weight is a finite number; waits for the device."""
        return bool(torch.stack([parameter.isfinite().all() for parameter in self.parameters]).all())

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Tensors of a checkpoint, by file name: model, ema and optimizer."""
        moments = {
            f"{index}.{name}": value
            for index, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        return {"model": self.task.model.state_dict(), "ema": self.ema.model.state_dict(), "optimizer": moments}

    def state(self) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        return {"ema_updates": self.ema.updates, "generators": self.generators.state_dict()}

    def restore(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Continue from what `tensors` and `state` gave."""
        self.task.model.load_state_dict(tensors["model"])
        self.ema.model.load_state_dict(tensors["ema"])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors["optimizer"].items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.ema.updates = int(state["ema_updates"])
        self.generators.load_state_dict(state["generators"])
