"""The variance of a reverse step as a second output of the network (Nichol & Dhariwal 2021, "Improved Denoising
Diffusion Probabilistic Models"; Dhariwal & Nichol 2021; Peebles & Xie 2023).

A network of twice the sample's channels tells in the second half, v, where the log variance of a step lies between
those of the posterior (v = -1) and of the forward process (v = 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from policy_accel.diffusion.predictions import FloatOrTensor, sample_coefficients
from policy_accel.diffusion.processes import DiscreteProcess, per_sample
from policy_accel.diffusion.tables import moved

if TYPE_CHECKING:
    from policy_accel.diffusion.batch import Noised

SHARE = 1e-3
"""Of the variational bound, summed over all times, in the loss (equation 16)."""
PIXEL = 1.0 / 255.0
"""Half the distance of two values of an image in [-1, 1]."""
EDGE = 0.999
LEAST = 1e-12
"""Of a probability whose logarithm is taken."""


def step_variances(
    alpha: FloatOrTensor, sigma: FloatOrTensor, alpha_to: FloatOrTensor, sigma_to: FloatOrTensor
) -> tuple[FloatOrTensor, FloatOrTensor]:
    """Variances of a step from (alpha, sigma) down to (alpha_to, sigma_to): of the forward process between the two, and
    of its posterior, given the clean sample (Kingma et al. 2021, equations 26 and 27)."""
    forward = sigma**2 - (alpha / alpha_to) ** 2 * sigma_to**2
    return forward, forward * sigma_to**2 / sigma**2


def split_variance(output: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """A network's output at x [B, C, ...]: what it predicts [B, C, ...], and what it says of the variance, or None."""
    channels = x.shape[1]
    if output.shape[1] == channels:
        return output, None
    return output[:, :channels], output[:, channels:]


def learned_log_variance(values: Tensor, low: FloatOrTensor, high: FloatOrTensor) -> Tensor:
    """The log variance that values v, -1 .. 1, choose between `low` and `high` (equation 15)."""
    share = 0.5 * (values + 1.0)
    return share * high + (1.0 - share) * low


@dataclass(frozen=True)
class LearnedVariance:
    """What the loss of the learned variance takes from the process.

    Args:
        low, high: [T] float64, the log variances of the posterior (the first one's is zero, so it has the second's) and
            of the forward process.
        gain: [T] float64, by which an error of the prediction moves the mean of the step.
        clean: a and b of x_0 = a x_t + b target at the first time.
        data_scale: factor on the data while they are diffused.
    """

    low: Tensor
    high: Tensor
    gain: Tensor
    clean: tuple[float, float]
    data_scale: float = 1.0

    @classmethod
    def of(cls, process: DiscreteProcess, target: str, data_scale: float = 1.0) -> Self:
        """That of a process and a target.

        Raises:
            ValueError: times at which no noise is added, so that there is no variance to learn.
        """
        alphas, sigmas = process.alphas.cpu(), process.sigmas.cpu()
        alphas_to = torch.cat([torch.ones_like(alphas[:1]), alphas[:-1]])
        sigmas_to = torch.cat([torch.zeros_like(sigmas[:1]), sigmas[:-1]])
        forward, posterior = step_variances(alphas, sigmas, alphas_to, sigmas_to)
        if process.timesteps < 2 or not (forward > 0.0).all():
            raise ValueError("process must have two times or more, each noisier than the one before.")
        clean = [sample_coefficients(process.level(t), target) for t in range(process.timesteps)]
        gain = alphas_to * forward / sigmas**2 * torch.tensor([b for _, b in clean], dtype=torch.float64)
        low = torch.cat([posterior[1:2], posterior[1:]]).log()
        return cls(low, forward.log(), gain, clean[0], data_scale)

    def to(self, device: torch.device | str) -> Self:
        """The same with its tables on `device`."""
        return moved(self, device)

    @property
    def share(self) -> float:
        """Of the bound at one time in the loss, beside the squared error."""
        return SHARE * len(self.low)

    def bits(self, values: Tensor, prediction: Tensor, noised: Noised) -> Tensor:
        """The variational bound in bits for each number, [R, *S] float32; it moves `values` alone.

        The divergence of a step from the posterior's, and at the first time the likelihood of an image of 256 values in
        [-1, 1] (Nichol & Dhariwal 2021, equations 4 to 7).
        """
        t, values = noised.t, values.float()
        error = noised.target.float() - prediction.detach().float()
        low, high = (per_sample(table[t], error) for table in (self.low, self.high))
        log_variance = learned_log_variance(values, low, high)
        off = per_sample(self.gain[t], error) * error
        divergence = 0.5 * (log_variance - low - 1.0 + (low - log_variance).exp() + off**2 * (-log_variance).exp())
        of_state, of_target = self.clean
        x0 = of_state * noised.x_t.float() + of_target * noised.target.float()
        scale = self.data_scale
        likelihood = _log_likelihood(x0 / scale, off / scale, 0.5 * log_variance - math.log(scale))
        first = (t == 0).view(-1, *[1] * (error.ndim - 1))
        return torch.where(first, -likelihood, divergence) / math.log(2.0)


def _log_likelihood(image: Tensor, off: Tensor, log_deviation: Tensor) -> Tensor:
    """Of the value of a pixel that lies `off` its mean, between half a value below and above; the first and the last
    value have everything beyond. The normal distribution is approximated as published (by tanh)."""
    scale = (-log_deviation).exp()
    above, below = _normal_cdf(scale * (off + PIXEL)), _normal_cdf(scale * (off - PIXEL))
    inside = torch.where(image > EDGE, 1.0 - below, above - below)
    return torch.where(image < -EDGE, above, inside).clamp(min=LEAST).log()


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
