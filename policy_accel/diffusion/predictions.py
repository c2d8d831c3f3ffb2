"""What a network's prediction says of the clean sample and of the noise."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from policy_accel.diffusion.processes import SIGMA_DATA, Level
from policy_accel.errors import did_you_mean

TARGETS = ("epsilon", "sample", "v", "negative_epsilon", "edm", "flow")
FloatOrTensor = TypeVar("FloatOrTensor", float, Tensor)


def edm_coefficients(sigma: FloatOrTensor, sigma_data: float = SIGMA_DATA) -> tuple[FloatOrTensor, FloatOrTensor]:
    """c_skip and c_out of EDM (Karras et al. 2022, table 1) at a noise-to-signal ratio, for data of that deviation."""
    total = sigma * sigma + sigma_data**2
    return sigma_data**2 / total, sigma_data * sigma / total**0.5


def x0_and_epsilon(
    prediction: Tensor, x: Tensor, level: Level, target: str, clip: float | None
) -> tuple[Tensor, Tensor]:
    """The clipped clean sample and the network's own (unclipped) noise estimate.

    They solve x = alpha x0 + sigma epsilon together with the definition of the target, for any alpha and sigma.
    """
    alpha, sigma = level.alpha, level.sigma
    if alpha == 0.0 and target in ("epsilon", "negative_epsilon", "edm"):
        raise ValueError(f"target={target} says nothing about a sample of pure noise; choose flow or sample.")
    if target == "sample":
        x0, epsilon = prediction, (x - alpha * prediction) / sigma
    elif target == "epsilon":
        x0, epsilon = (x - sigma * prediction) / alpha, prediction
    elif target == "negative_epsilon":
        x0, epsilon = (x + sigma * prediction) / alpha, -prediction
    elif target == "v":
        power = alpha**2 + sigma**2
        x0, epsilon = (alpha * x - sigma * prediction) / power, (alpha * prediction + sigma * x) / power
    elif target == "flow":
        total = alpha + sigma
        x0, epsilon = (x - sigma * prediction) / total, (x + alpha * prediction) / total
    elif target == "edm":
        c_skip, c_out = edm_coefficients(sigma / alpha, level.sigma_data)
        x0 = (c_skip / alpha) * x + c_out * prediction
        epsilon = (x - alpha * x0) / sigma
    else:
        raise ValueError(f"target '{target}' is unknown; {did_you_mean(target, TARGETS)}")
    return (x0 if clip is None else x0.clamp(-clip, clip)), epsilon


def predicted_sample(prediction: Tensor, x: Tensor, level: Level, target: str) -> Tensor:
    """The clean sample [B, *S] that a prediction [B, *S] at x [B, *S] stands for."""
    return x0_and_epsilon(prediction, x, level, target, None)[0]


def sample_coefficients(level: Level, target: str) -> tuple[float, float]:
    """(a, b) of x0 = a x + b prediction at `level`: what `x0_and_epsilon` computes, as numbers.

    Raises:
        ValueError: a target that says nothing of the clean sample there, or an unknown one.
    """
    alpha, sigma = level.alpha, level.sigma
    if target in ("epsilon", "negative_epsilon", "edm") and alpha == 0.0:
        raise ValueError(f"target={target} says nothing about a sample of pure noise; choose flow or sample.")
    if target == "sample":
        return 0.0, 1.0
    if target in ("epsilon", "negative_epsilon"):
        return 1.0 / alpha, (-sigma if target == "epsilon" else sigma) / alpha
    if target == "v":
        power = alpha**2 + sigma**2
        return alpha / power, -sigma / power
    if target == "flow":
        return 1.0 / (alpha + sigma), -sigma / (alpha + sigma)
    if target == "edm":
        c_skip, c_out = edm_coefficients(sigma / alpha, level.sigma_data)
        return c_skip / alpha, c_out
    raise ValueError(f"target '{target}' is unknown; {did_you_mean(target, TARGETS)}")
