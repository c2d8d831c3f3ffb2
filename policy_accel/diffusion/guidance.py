"""Samples drawn towards values that are given for a part of them, by the gradient of the network."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import Predictor

GUIDANCE_BOUND = 5.0


@dataclass(frozen=True)
class Guidance:
    """What a sample is drawn to.

    Args:
        given: the values [B, *S], in the data's units.
        weights: of each of them in [0, 1], to be broadcast to [B, *S]; 0 leaves the sample free.
        bound: largest weight of the gradient, beta of Black et al. 2025. Few steps need one; theirs was 5.
    """

    given: Tensor
    weights: Tensor
    bound: float = GUIDANCE_BOUND


@dataclass(frozen=True)
class GuidedPredictor(Predictor):
    """A predictor whose clean samples are drawn to `guidance`: pseudoinverse guidance (Song et al. 2023) with soft
    weights and a bound, as in real-time chunking (Black et al. 2025, arXiv 2506.07339, equations 2 to 4).

    The clean sample x_0(x) moves by sigma min(bound, (alpha^2 + sigma^2) / (alpha sigma)) J^T weights (given - x_0)
    with J = dx_0 / dx. For flow, alpha = tau and sigma = 1 - tau, that is the paper's velocity; the factor depends on
    sigma / alpha alone, so that it holds for any process. Each evaluation costs a pass back through the network.
    States are `scale` times the data's units.
    """

    guidance: Guidance = field(kw_only=True)
    scale: float = field(default=1.0, kw_only=True)

    def with_variance(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Predictor.with_variance`."""
        wanted, alpha, sigma = self.guidance, level.alpha, level.sigma / self.scale
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0, epsilon, variance = super().with_variance(x, level)
            towards = wanted.weights * (self.scale * wanted.given - x0.detach())
            (pull,) = torch.autograd.grad(x0, x, towards.to(x0.dtype))
        weight = (alpha**2 + sigma**2) / (alpha * sigma) if alpha * sigma > 0 else wanted.bound
        moved = sigma * min(wanted.bound, weight) * pull
        x0, epsilon = x0.detach() + moved, epsilon.detach() - (alpha / level.sigma) * moved
        return (x0 if self.clip is None else x0.clamp(-self.clip, self.clip)), epsilon, variance
