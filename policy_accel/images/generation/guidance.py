"""Guidance: predictions led away from a worse one (Ho & Salimans 2022; Karras et al. 2024, "Guiding a diffusion model
with a bad version of itself")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.diffusion.by_level import Denoiser
from policy_accel.diffusion.host_work import to_device
from policy_accel.diffusion.learned_variance import split_variance
from policy_accel.images.generation.classes import class_condition

Model = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Guide:
    """A worse network that guidance leads away from, in place of the null class (autoguidance).

    Args:
        model: `model(x, t, condition)`, on the device, in eval mode; of the process and target of the one it guides.
        classes: that it knows, the same as the other one's; 0 for a network without.
        condition_dim: of its condition; 0 for none.
        told: which it is, for a record.
    """

    model: Model
    classes: int
    condition_dim: int
    told: dict[str, str | int]

    def denoiser(self, labels: Tensor | None, count: int, device: torch.device) -> Denoiser:
        """Its prediction of (x, t) for `count` images of the classes `labels` [count]."""
        condition = class_condition(
            labels if self.classes else None, count, classes=self.classes, condition_dim=self.condition_dim
        )
        condition = None if condition is None else to_device(condition, device)
        return lambda x, t: self.model(x, t, condition)


def evaluations_per_step(guidance: float) -> int:
    """How often guidance of this weight evaluates a network for one prediction: 1 or 2."""
    return 1 if guidance in (0.0, 1.0) else 2


def guided(model: Model, condition: Tensor | None, guidance: float = 1.0, worse: Denoiser | None = None) -> Denoiser:
    """A denoiser of (x, t) with guidance: worse + w (conditional - worse).

    This is the prediction itself, not the noise: the clean sample is an affine function of it for every target, so
    guiding any of them is the same (Ho & Salimans 2022, equation 6, with their weight equal to w - 1). A learned
    variance stays that of the conditional prediction.

    Args:
        model: `model(x [B, *S], t [B], condition [B, D] | None)`.
        condition: of each image [B, D]; all zeros is the null class.
        guidance: w. 1 is the conditional model alone, 0 the worse one, each one evaluation; any other weight two.
        worse: the prediction to lead away from; None for the model's own of the null class (classifier-free guidance),
            which takes a condition and is evaluated with the other one, as a batch of 2 B.
    """
    if guidance == 1.0:
        return lambda x, t: model(x, t, condition)
    if worse is not None:
        return worse if guidance == 0.0 else _led(lambda x, t: (model(x, t, condition), worse(x, t)), guidance)
    assert condition is not None, "ImageSamplingConfig.check_classes refuses guidance without classes"
    null = torch.zeros_like(condition)
    if guidance == 0.0:
        return lambda x, t: model(x, t, null)
    both = torch.cat([condition, null])
    return _led(lambda x, t: model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2), guidance)


def _led(predict: Callable[[Tensor, Tensor], tuple[Tensor, ...]], guidance: float) -> Denoiser:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        # In the state's precision: under autocast the difference of two bf16 predictions would lose its digits.
        better, worse = (output.to(x.dtype) for output in predict(x, t))
        better, variance = split_variance(better, x)
        worse, _ = split_variance(worse, x)
        prediction = worse + guidance * (better - worse)
        return prediction if variance is None else torch.cat([prediction, variance], dim=1)

    return denoise
