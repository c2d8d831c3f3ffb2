"""Exponential moving average of a model's weights, one fused kernel per update."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policy_accel.errors import UserError


@dataclass
class EMAConfig:
    """Warm-up of the decay: min(max_decay, 1 - (1 + n / inv_gamma) ** -power) after n updates.

    The defaults are Diffusion Policy's.
    """

    power: float = 0.75
    inv_gamma: float = 1.0
    update_after_step: int = 0
    min_decay: float = 0.0
    max_decay: float = 0.9999


class EMA:
    """A second copy of `model`, in eval mode and without gradients, that follows it.

    `updates` counts the updates made; it belongs to the state that a checkpoint restores, because the decay depends
    on it (the reference forgets it and overwrites the average with the live weights after a resume).
    """

    def __init__(self, model: nn.Module, config: EMAConfig) -> None:
        if not 0.0 <= config.min_decay <= config.max_decay <= 1.0:
            raise UserError(
                f"training.ema needs 0 <= min_decay={config.min_decay} <= max_decay={config.max_decay} <= 1."
            )
        if config.inv_gamma <= 0 or config.power < 0:
            raise UserError(
                f"training.ema.inv_gamma={config.inv_gamma} must be positive and power={config.power} not negative."
            )
        self.config = config
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.updates = 0
        self._averaged: list[Tensor] = list(self.model.parameters())
        self._live: list[Tensor] = list(model.parameters())
        self._buffers, self._live_buffers = list(self.model.buffers()), list(model.buffers())

    def decay(self) -> float:
        """Decay of the next update: 0 for the first two, as in the reference."""
        step = self.updates - self.config.update_after_step - 1
        if step <= 0:
            return 0.0
        decay = 1.0 - (1.0 + step / self.config.inv_gamma) ** -self.config.power
        return max(self.config.min_decay, min(decay, self.config.max_decay))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the followed model; buffers are copied."""
        torch._foreach_lerp_(self._averaged, self._live, 1.0 - self.decay())
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._live_buffers)
        self.updates += 1
