"""AdamW with the reference's learning-rate line (linear warm-up, then a half cosine to zero) and momentum decay."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from policy_accel.acceleration.momentum_decay import COMPOSITIONS, LAWS, DecayOptions, decay_at
from policy_accel.errors import UserError, did_you_mean, naming, one_of, refuse_idle
from policy_accel.models.denoiser import Denoiser

SCHEDULES = ("cosine", "constant")


@dataclass
class MomentumDecayConfig:
    """Momentum decay with learning-rate compensation (arXiv 2404.07946); `DecayOptions` says what the fields do."""

    law: str = "none"
    """none, demon, linear, exponential or matched_cosine."""
    compensate: bool = DecayOptions.compensate
    compose: str = "replace"
    """What the compensation does to the learning rate: from start_step on replace the schedule, or multiply it."""
    start_step: int | None = None
    """First update of the decay; null for the end of the warm-up."""
    beta_min: float = DecayOptions.beta_min
    beta_end: float = DecayOptions.beta_end
    rate: float = DecayOptions.rate
    floor: float = DecayOptions.floor
    hold_beta: bool = DecayOptions.hold_beta
    exact_bias_correction: bool = DecayOptions.exact_bias_correction

    def options(self) -> DecayOptions:
        """The part that the law needs."""
        names = ("law", "compensate", "beta_end", "rate", "floor", "beta_min", "hold_beta", "exact_bias_correction")
        return DecayOptions(**{name: getattr(self, name) for name in names})


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
    momentum_decay: MomentumDecayConfig = field(default_factory=MomentumDecayConfig)


def build_optimizer(config: OptimizerConfig, model: Denoiser) -> torch.optim.AdamW:
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
    exempt = model.no_weight_decay()
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


def check_momentum_decay(config: OptimizerConfig, steps: int) -> None:
    """Raise UserError unless the momentum decay fits a run of `steps` updates."""
    decay = config.momentum_decay
    name = "training.optimizer.momentum_decay"
    one_of(f"{name}.law", decay.law, ("none", *LAWS))
    one_of(f"{name}.compose", decay.compose, COMPOSITIONS)
    used = {"law", "compensate", "compose", "start_step", "beta_min", "hold_beta", "exact_bias_correction"}
    used |= {"linear": {"beta_end"}, "exponential": {"rate", "floor"}}.get(decay.law, set())
    refuse_idle(decay, name, used if decay.law != "none" else set(), f"{name}.law={decay.law}")
    if decay.law == "none":
        return
    if decay.hold_beta and decay.exact_bias_correction:
        raise UserError(f"{name}.exact_bias_correction is for a changing beta, and hold_beta keeps it; drop one.")
    if config.betas[0] == 0.0:
        raise UserError(
            f"{name}.law={decay.law} needs momentum to decay, and training.optimizer.betas={list(config.betas)} has "
            "none; give a first beta above 0."
        )
    if decay.compose == "replace" and not decay.compensate:
        raise UserError(f"{name}.compose=replace puts the compensation in place of the schedule; set compensate=true.")
    with naming(name, beta_0="training.optimizer.betas"):
        step_values(config, 0, steps)


def step_values(config: OptimizerConfig, step: int, steps: int) -> tuple[float, float]:
    """Learning rate and first beta of the update with number `step` (from 0) of `steps`.

    Both follow from the step alone, so a resumed run gets the same numbers.
    """
    decay, beta_0 = config.momentum_decay, config.betas[0]
    lr = config.lr * lr_factor(config, step, steps)
    if decay.law == "none":
        return lr, beta_0
    # A warm-up that fills the run leaves its last update to the decay.
    start = min(config.warmup_steps, steps - 1) if decay.start_step is None else decay.start_step
    beta, factor = decay_at(step, steps, beta_0, decay.options(), start_step=start)
    return (config.lr if decay.compose == "replace" and step >= start else lr) * factor, beta
