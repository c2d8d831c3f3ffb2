"""The training loop that people write by hand, to compare the training core with.

Its habits are those of real-stanford/diffusion_policy: an optimiser as torch gives it by default, a schedule of the
learning rate that is a Python function, an average of the weights that walks over the parameters with two operations
each, and a loss that is read back in every step for a row of JSON.
"""

from __future__ import annotations

import copy
import json
import tempfile

import torch
from torch import Tensor, nn

from policy_accel.training.optimizer import OptimizerConfig, lr_factor


class LoopingEMA:
    """The average of the weights, parameter by parameter, with Diffusion Policy's warm-up of the decay."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.steps = 0

    @torch.no_grad()
    def step(self, model: nn.Module) -> None:
        """Move towards `model`."""
        count = max(0, self.steps - 1)
        decay = 0.0 if count == 0 else min(0.9999, 1.0 - (1.0 + count) ** -0.75)
        for module, average in zip(model.modules(), self.model.modules(), strict=True):
            parameters = zip(module.parameters(recurse=False), average.parameters(recurse=False), strict=True)
            for parameter, averaged in parameters:
                averaged.mul_(decay)
                averaged.add_(parameter.detach().to(averaged.dtype), alpha=1.0 - decay)
        self.steps += 1


class EagerLoop:
    """Everything of an update that comes after the loss.

    Args:
        model: what is trained.
        config: learning rate, its schedule, betas, weight decay and clipping; momentum decay and
            `Denoiser.lr_factors` are left out.
        steps: length of the run, for the schedule.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig, steps: int) -> None:
        self.model, self.clip = model, config.clip_grad_norm
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.lr,
            betas=(config.betas[0], config.betas[1]),
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        self.rate = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: lr_factor(config, step, steps))
        self.ema = LoopingEMA(model)
        self.log = tempfile.TemporaryFile("w", buffering=1)  # noqa: SIM115  as long as the loop
        self.updates = 0

    def update(self, loss: Tensor) -> float:
        """One update with the gradient of `loss`, which is returned as a number."""
        loss.backward()
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.rate.step()
        self.ema.step(self.model)
        row = {"train_loss": loss.item(), "global_step": self.updates, "lr": self.rate.get_last_lr()[0]}
        self.log.write(json.dumps(row) + "\n")
        self.updates += 1
        return float(row["train_loss"])
