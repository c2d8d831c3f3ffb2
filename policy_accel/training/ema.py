"""Exponential moving averages of a model's weights: each update is one fused kernel for each average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from policy_accel.diffusion.timesteps import Number
from policy_accel.errors import UserError, refuse_idle
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.weights import Weights

LONGEST = 12**-0.5


@dataclass
class EMAConfig:
    """How fast the average follows: by a warm-up of the decay, or by a half-life.

    Warm-up (the default, with Diffusion Policy's numbers): min(max_decay, 1 - (1 + n / inv_gamma) ** -power) after n
    updates. With min_decay = max_decay the decay is constant, but for the first two updates, which copy the model.
    """

    power: float = 0.75
    """Of the warm-up: the larger, the sooner the decay nears max_decay."""
    inv_gamma: float = 1.0
    """Of the warm-up: updates that n is measured in; the larger, the slower."""
    update_after_step: int = 0
    """Updates at the start in which the average is a copy of the model."""
    min_decay: float = 0.0
    """Lower bound of the decay."""
    max_decay: float = 0.9999
    """Upper bound of the decay."""
    half_life: float | None = None
    """In clean samples: after so many of them a weight counts half in the average (Karras et al. 2022, appendix F).
    The decay of an update with a batch of B is then 0.5 ** (B / half_life), and the warm-up above is not used."""
    half_life_ramp: float | None = 0.05
    """The half-life is at most this share of the samples seen so far; null for the whole half-life from the start."""
    lengths: list[float] = field(default_factory=list)
    """Further averages kept beside that one, each a copy of the model: relative standard deviations of power-function
    profiles, as 0.05 and 0.1 (Karras et al. 2024, section 3.1). Other lengths can be made from their checkpoints."""


def profile_exponent(length: float) -> float:
    """Exponent gamma of the profile t ** gamma on [0, 1] whose standard deviation is `length`.

    Karras et al. 2024, section 3.1: length ** 2 = (gamma + 1) / ((gamma + 2) ** 2 (gamma + 3)), the variance of the
    distribution Beta(gamma + 1, 1); its root with gamma >= 0.

    Args:
        length: in (0, 12 ** -0.5]; the upper end is gamma = 0, the plain mean of the whole run.
    """
    inverse = length**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(roots.real.max()))


def average_name(length: float) -> str:
    """Name of an average with a power-function profile, and of its file in a checkpoint: "ema_0.05"."""
    return f"ema_{length:g}"


def check_length(name: str, length: float) -> float:
    """Return `length` when there is a profile of it, else raise UserError about the setting `name`."""
    if not 1e-4 <= length <= LONGEST:
        raise UserError(
            f"{name}={length} is not the relative standard deviation of a profile: give one from 0.0001 to "
            f"{LONGEST:.4f} (a mean over the whole run), as 0.05."
        )
    return length


def _check(config: EMAConfig) -> None:
    if not 0.0 <= config.min_decay <= config.max_decay <= 1.0:
        raise UserError(f"training.ema needs 0 <= min_decay={config.min_decay} <= max_decay={config.max_decay} <= 1.")
    if config.inv_gamma <= 0 or config.power < 0:
        raise UserError(
            f"training.ema.inv_gamma={config.inv_gamma} must be positive and power={config.power} not negative."
        )
    warm_up = {"power", "inv_gamma", "update_after_step", "min_decay", "max_decay"}
    for name, samples in (("half_life", config.half_life), ("half_life_ramp", config.half_life_ramp)):
        if samples is not None and not 0 < samples < math.inf:
            raise UserError(f"training.ema.{name}={samples} must be positive and finite, or null for none.")
    if config.half_life is None:
        refuse_idle(config, "training.ema", {*warm_up, "half_life", "lengths"}, "training.ema.half_life=null")
    else:
        used = {"half_life", "half_life_ramp", "lengths"}
        refuse_idle(config, "training.ema", used, f"training.ema.half_life={config.half_life}")
    names = [average_name(check_length("training.ema.lengths", length)) for length in config.lengths]
    if len(set(names)) < len(names):
        raise UserError(f"training.ema.lengths={list(config.lengths)} names a length twice; name each once.")


class Average:
    """A second copy of a model, in eval mode and without gradients, that follows its `weights`."""

    def __init__(self, weights: Weights) -> None:
        self.model, self._averaged = weights.copied()
        self._live = weights.live
        self._buffers, self._live_buffers = list(self.model.buffers()), list(weights.model.buffers())

    @torch.no_grad()
    def follow(self, weight: Number) -> None:
        """Move by `weight`, 1 - decay, towards the model: one kernel for each tensor; buffers are copied."""
        weight = weight.float() if isinstance(weight, Tensor) else weight
        for averaged, live in zip(self._averaged, self._live, strict=True):
            averaged.lerp_(live, weight)
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._live_buffers)


class EMA:
    """The average that is scored, `model`, and beside it one for each of `config.lengths`.

    `updates` counts the updates made and `samples` the clean samples in them; they belong to the state that a
    checkpoint restores, because the decay depends on them (the reference forgets and overwrites the average with the
    live weights after a resume).

    Args:
        weights: what is averaged.
        config: how.

    Where a process has a part of the weights alone, it moves its part of the averages, and `refresh` makes them whole.

    Raises:
        UserError: settings out of range, or without effect.
    """

    def __init__(self, weights: Weights, config: EMAConfig) -> None:
        _check(config)
        self.config, self._weights = config, weights
        self.updates = self.samples = 0
        self._average = Average(weights)
        self.model = self._average.model
        self._profiles = {
            average_name(length): (profile_exponent(length), Average(weights)) for length in config.lengths
        }

    def decay(self, samples: int = 1) -> float:
        """Decay of the next update, made with a batch of `samples`: 0 for the first two of the warm-up, as in the
        reference, and for the first of a ramped half-life.
        """
        if self.config.half_life is not None:
            half_life, ramp = self.config.half_life, self.config.half_life_ramp
            half_life = half_life if ramp is None else min(half_life, ramp * self.samples)
            return 0.5 ** (samples / half_life) if half_life else 0.0
        step = self.updates - self.config.update_after_step - 1
        if step <= 0:
            return 0.0
        decay: float = 1.0 - (1.0 + step / self.config.inv_gamma) ** -self.config.power
        return max(self.config.min_decay, min(decay, self.config.max_decay))

    def advance(self, samples: int = 1) -> list[float]:
        """Count an update made with `samples` clean samples; gives the weight of the model in each average, 1 - decay.

        Update t (from 1) of a profile has the decay (1 - 1 / t) ** (gamma + 1) (Karras et al. 2024, section 3.1).
        """
        decays = [self.decay(samples)]
        self.updates += 1
        self.samples += samples
        decays += [(1.0 - 1.0 / self.updates) ** (exponent + 1.0) for exponent, _ in self._profiles.values()]
        return [1.0 - decay for decay in decays]

    def update(self, samples: int = 1) -> None:
        """Move every average towards the model, which was just trained on `samples` clean samples."""
        self.follow(self.advance(samples))

    def follow(self, weights: Sequence[Number]) -> None:
        """Move every average towards the model by its weight: work of the device alone."""
        averages = [self._average, *(average for _, average in self._profiles.values())]
        for average, weight in zip(averages, weights, strict=True):
            average.follow(weight)

    def refresh(self) -> None:
        """Make the averages whole; all processes call it together."""
        for model in self.models().values():
            self._weights.refresh(model)

    def models(self) -> dict[str, Denoiser]:
        """Every average by the name of its file in a checkpoint: "ema", then as "ema_0.05"."""
        return {"ema": self.model, **{name: average.model for name, (_, average) in self._profiles.items()}}
