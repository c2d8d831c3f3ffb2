"""AdamW or Muon, with a learning-rate schedule and momentum decay."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from torch import nn

from policy_accel.acceleration.momentum_decay import COMPOSITIONS, DecaySchedule, MomentumDecayConfig, decay_at
from policy_accel.errors import UserError, naming, one_of, refuse_idle
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.adamw import AdamW, Group
from policy_accel.training.decaying_adamw import DecayingAdamW
from policy_accel.training.muon import NEWTON_SCHULZ_STEPS, Muon

SCHEDULES = ("cosine", "linear", "warmup_stable_decay", "inverse_sqrt", "constant")
OF_ONE_SCHEDULE = {"decay_share": "warmup_stable_decay", "reference_steps": "inverse_sqrt"}
"""Settings that one schedule alone has."""


@dataclass
class OptimizerConfig:
    """AdamW; the defaults are Diffusion Policy's."""

    name: str = "adamw"
    lr: float = 1e-4
    """Learning rate after the warm-up."""
    betas: list[float] = field(default_factory=lambda: [0.95, 0.999])
    """Adam's decay rates of the mean gradient and of its square, each in [0, 1)."""
    eps: float = 1e-8
    """Adam's bound below the root of the mean square by which it divides."""
    weight_decay: float = 1e-6
    """Decoupled weight decay: an update takes lr times this share off the weights, but for those that the network
    exempts."""
    schedule: str = "cosine"
    """Learning rate after the warm-up: cosine (half of one) or linear, to zero at the last step; warmup_stable_decay,
    constant and then a line to zero; inverse_sqrt, constant and then as the root of reference_steps over the number of
    the update (Karras et al. 2024); or constant."""
    decay_share: float = 0.3
    """Share of the run that the line to zero of warmup_stable_decay takes."""
    reference_steps: int = 70_000
    """Updates before the rate of inverse_sqrt falls; EDM2 takes 70,000, or 35,000 at 64 pixels."""
    warmup_steps: int = 500
    """Updates over which the learning rate rises from zero in a line."""
    clip_grad_norm: float | None = None
    """Largest 2-norm of the gradient of all parameters together; none leaves gradients alone."""
    momentum_decay: MomentumDecayConfig = field(default_factory=MomentumDecayConfig)


@dataclass
class MuonConfig(OptimizerConfig):
    """Muon (Jordan et al. 2024) for the hidden matrices that the network names, AdamW for its other parameters.

    The first of the betas is the momentum of both. Schedule, warm-up, clipping and weight decay are those of both too.
    """

    name: str = "muon"
    matrix_lr: float = 4e-3
    """Learning rate of the matrices where that of the others is `lr`; an update's root mean square is 0.2 of it."""
    newton_schulz_steps: int = 5
    """Steps of the orthogonalisation, 3 to 5: fewer are cheaper and leave singular values further from 1."""


OPTIMIZER_CONFIGS: tuple[type[OptimizerConfig], ...] = (OptimizerConfig, MuonConfig)


def build_optimizer(config: OptimizerConfig, model: Denoiser, *, captured: bool = False) -> AdamW | Muon:
    """The optimiser over the parameters of `model`; those it names in `no_weight_decay()` are not decayed, those in
    `lr_factors()` learn at rates of their own.

    captured: for CUDA graphs, which read learning rate and beta from the device.

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
    one_of("training.optimizer.schedule", config.schedule, SCHEDULES)
    idle = {name for name, schedule in OF_ONE_SCHEDULE.items() if schedule != config.schedule}
    used = {field.name for field in fields(config)} - idle
    refuse_idle(config, "training.optimizer", used, f"training.optimizer.schedule={config.schedule}")
    if not 0 < config.decay_share <= 1:
        raise UserError(
            f"training.optimizer.decay_share={config.decay_share} must be above 0 and at most 1, the whole run."
        )
    if config.reference_steps < 1:
        raise UserError(f"training.optimizer.reference_steps={config.reference_steps} must be at least 1.")
    if config.clip_grad_norm is not None and not config.clip_grad_norm > 0:
        raise UserError(
            f"training.optimizer.clip_grad_norm={config.clip_grad_norm} must be positive, or null for none."
        )
    exempt, factors = model.no_weight_decay(), model.lr_factors()
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = model.matrices() if isinstance(config, MuonConfig) else set()

    def groups(parameters: list[tuple[str, nn.Parameter]]) -> list[Group]:
        return [
            Group(
                [p for name, p in parameters if factors.get(name, 1.0) == factor and (name in exempt) == kept],
                0.0 if kept else config.weight_decay,
                factor,
            )
            for factor in dict.fromkeys((1.0, *factors.values()))
            for kept in (False, True)
        ]

    decaying = captured and isinstance(config.momentum_decay, DecaySchedule)
    rest = (DecayingAdamW if decaying else AdamW)(
        groups([item for item in named if item[0] not in matrices]), betas=config.betas, eps=config.eps
    )
    if not isinstance(config, MuonConfig):
        return rest
    if not config.matrix_lr > 0:
        raise UserError(f"training.optimizer.matrix_lr={config.matrix_lr} must be positive.")
    if config.newton_schulz_steps not in NEWTON_SCHULZ_STEPS:
        raise UserError(
            f"training.optimizer.newton_schulz_steps={config.newton_schulz_steps} must lie between "
            f"{NEWTON_SCHULZ_STEPS[0]} and {NEWTON_SCHULZ_STEPS[-1]}."
        )
    return Muon(
        groups([item for item in named if item[0] in matrices]),
        rest,
        lr_ratio=config.matrix_lr / config.lr,
        steps=config.newton_schulz_steps,
    )


def lr_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """Factor on the learning rate of the update with number `step` (from 0) of `steps`.

    The first update of a warm-up has factor 0, as with diffusers' `get_cosine_schedule_with_warmup`. The stable part of
    `warmup_stable_decay` (Hu et al. 2024, "MiniCPM", section 4) ends where the decay begins, or with the warm-up.
    """
    if step < config.warmup_steps:
        return step / max(1, config.warmup_steps)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "inverse_sqrt":
        return 1.0 / math.sqrt(max(1.0, step / config.reference_steps))
    begin = config.warmup_steps
    if config.schedule == "warmup_stable_decay":
        begin = max(begin, steps - round(config.decay_share * steps))
    progress = (step - begin) / max(1, steps - begin)
    if config.schedule in ("linear", "warmup_stable_decay"):
        return min(1.0, 1.0 - progress)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def check_momentum_decay(config: OptimizerConfig, steps: int) -> None:
    """Raise UserError unless the momentum decay fits a run of `steps` updates."""
    decay, name = config.momentum_decay, "training.optimizer.momentum_decay"
    if not isinstance(decay, DecaySchedule):
        return
    one_of(f"{name}.compose", decay.compose, COMPOSITIONS)
    if decay.hold_beta and decay.exact_bias_correction:
        raise UserError(f"{name}.exact_bias_correction is for a changing beta, and hold_beta keeps it; drop one.")
    if decay.exact_bias_correction and isinstance(config, MuonConfig):
        raise UserError(
            f"{name}.exact_bias_correction is for optimisers that divide by 1 - beta^k, and training/optimizer=muon "
            "does not; drop it."
        )
    if config.betas[0] == 0.0:
        raise UserError(
            f"{name}.name={decay.name} needs momentum to decay, and training.optimizer.betas={list(config.betas)} has "
            "none; give a first beta above 0."
        )
    if decay.compose == "replace" and not decay.compensate:
        raise UserError(f"{name}.compose=replace puts the compensation in place of the schedule; set compensate=true.")
    with naming(name):
        step_values(config, 0, steps)


def step_values(config: OptimizerConfig, step: int, steps: int) -> tuple[float, float]:
    """Learning rate and first beta of the update with number `step` (from 0) of `steps`.

    Both follow from the step alone, so a resumed run gets the same numbers.
    """
    decay, beta_0 = config.momentum_decay, config.betas[0]
    lr = config.lr * lr_factor(config, step, steps)
    if not isinstance(decay, DecaySchedule):
        return lr, beta_0
    # A warm-up that fills the run leaves its last update to the decay.
    start = min(config.warmup_steps, steps - 1) if decay.start_step is None else decay.start_step
    beta, factor = decay_at(step, steps, beta_0, decay, start_step=start)
    return (config.lr if decay.compose == "replace" and step >= start else lr) * factor, beta
