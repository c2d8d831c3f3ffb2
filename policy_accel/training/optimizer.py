"""AdamW with the learning-rate line of the reference: linear warm-up, then a half cosine to zero."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from policy_accel.errors import UserError, did_you_mean

SCHEDULES = ("cosine", "constant")


@dataclass
class OptimizerConfig:
    """AdamW; the defaults are Diffusion Policy's."""

    lr: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.95, 0.999])
    eps: float = 1e-8
    weight_decay: float = 1e-6
    schedule: str = "cosine"
    """Learning rate after the warm-up: a half cosine to zero at the last step, or constant."""
    warmup_steps: int = 500
    clip_grad_norm: float | None = None
    """Largest 2-norm of the gradient of all parameters together; none leaves gradients alone."""


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.AdamW:
    """Fused AdamW over the parameters of `model`; those it names in `no_weight_decay()` are not decayed.

    Raises:
        UserError: a learning rate, betas or a schedule out of range.
    """
    if not config.lr > 0:
        raise UserError(f"training.optimizer.lr={config.lr} must be positive.")
    if len(config.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in config.betas):
        raise UserError(f"training.optimizer.betas={list(config.betas)} must be two numbers in [0, 1).")
    for name, value in (("eps", config.eps), ("weight_decay", config.weight_decay)):
        if not value >= 0:
            raise UserError(f"training.optimizer.{name}={value} must not be negative.")
    if config.schedule not in SCHEDULES:
        raise UserError(
            f"training.optimizer.schedule '{config.schedule}' is unknown; {did_you_mean(config.schedule, SCHEDULES)}"
        )
    if config.clip_grad_norm is not None and not config.clip_grad_norm > 0:
        raise UserError(
            f"training.optimizer.clip_grad_norm={config.clip_grad_norm} must be positive, or null for none."
        )
    exempt: set[str] = getattr(model, "no_weight_decay", set)()
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in named if name not in exempt], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if name in exempt], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        fused=True,
    )


def lr_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """Factor on the learning rate of the update with number `step` (from 0) of `steps`.

    The first update of a warm-up has factor 0, as with diffusers' `get_cosine_schedule_with_warmup`.
    """
    if step < config.warmup_steps:
        return step / max(1, config.warmup_steps)
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
