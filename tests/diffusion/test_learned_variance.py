"""The learned variance: its loss against torch's own distributions, its steps against the formula."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from policy_accel.diffusion import Noised, Objective, Sampler, make_noised, vp_process
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.learned_variance import LearnedVariance
from policy_accel.diffusion.processes import DiscreteProcess

PROCESS = vp_process("linear", 50, beta_start=1e-3, beta_end=0.3)
ALPHA_BAR = PROCESS.alphas**2
BEFORE = torch.cat([torch.ones(1, dtype=torch.float64), ALPHA_BAR[:-1]])
BETA = 1.0 - ALPHA_BAR / BEFORE


def examples(target: str, data_scale: float = 1.0) -> tuple[Noised, Tensor, Tensor]:
    """Examples of images at all times, a prediction of them and values between -1.5 and 1.5."""
    torch.manual_seed(0)
    t = torch.arange(50)
    x0 = torch.randint(0, 256, (50, 2, 8, 8)) / 127.5 - 1.0
    x0[:, :, 0, 0], x0[:, :, 0, 1] = -1.0, 1.0
    noised = make_noised(PROCESS, data_scale * x0, torch.randn_like(x0), t, target)
    variance = LearnedVariance.of(PROCESS, target, data_scale)
    prediction = noised.target + (0.02 if target == "sample" else 0.1) * torch.randn_like(x0)
    return replace(noised, variance=variance), prediction, 3.0 * torch.rand_like(x0) - 1.5


def normal_cdf(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh") / x


@pytest.mark.parametrize(("target", "data_scale"), [("epsilon", 1.0), ("v", 1.0), ("sample", 1.0), ("epsilon", 0.5)])
def test_bound_is_the_divergence_from_the_posterior_and_at_last_a_likelihood(target: str, data_scale: float) -> None:
    noised, prediction, values = examples(target, data_scale)
    assert noised.variance is not None
    found = noised.variance.bits(values, prediction, noised).double()

    x, said, wanted = noised.x_t.double(), prediction.double(), noised.target.double()
    each = [table.view(-1, 1, 1, 1) for table in (ALPHA_BAR, BEFORE, BETA)]
    alpha_bar, before, beta = each
    alpha, sigma = alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()
    clean = {
        "epsilon": lambda guess: (x - sigma * guess) / alpha,
        "v": lambda guess: alpha * x - sigma * guess,
        "sample": lambda guess: guess,
    }[target]

    def mean(x0: Tensor) -> Tensor:
        return (before.sqrt() * beta * x0 + (alpha_bar / before).sqrt() * (1.0 - before) * x) / (1.0 - alpha_bar)

    posterior = beta * (1.0 - before) / (1.0 - alpha_bar)
    posterior[0] = posterior[1]
    share = (values.double() + 1.0) / 2.0
    deviation = (0.5 * (share * beta.log() + (1.0 - share) * posterior.log())).exp()
    model = Normal(mean(clean(said)), deviation)
    divergence = kl_divergence(Normal(mean(clean(wanted)), posterior.sqrt()), model) / math.log(2.0)
    torch.testing.assert_close(found[1:], divergence[1:], atol=1e-5, rtol=1e-4)

    x0, off = clean(wanted)[0], (clean(wanted) - model.mean)[0]
    above = normal_cdf((off + data_scale / 255.0) / deviation[0])
    below = normal_cdf((off - data_scale / 255.0) / deviation[0])
    likelihood = above - below
    likelihood[x0 < -0.999 * data_scale] = above[x0 < -0.999 * data_scale]
    likelihood[x0 > 0.999 * data_scale] = (1.0 - below)[x0 > 0.999 * data_scale]
    torch.testing.assert_close(found[0], -likelihood.clamp(min=1e-12).log2(), atol=1e-3, rtol=1e-3)


def test_bound_moves_the_variance_alone() -> None:
    noised, prediction, values = examples("epsilon")
    assert noised.variance is not None
    prediction.requires_grad_(), values.requires_grad_()
    noised.variance.bits(values, prediction, noised).sum().backward()
    assert prediction.grad is None
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert (values.grad != 0).any(dim=(1, 2, 3)).all()


def sampled(values: float | None, times: list[int]) -> Tensor:
    """Samples of a network that predicts zeros, and these values where it learns the variance."""
    sampler = Sampler(Objective(PROCESS), SamplingConfig(sampler="ddpm", times=times, clip_sample=None))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        zeros = torch.zeros_like(x)
        return zeros if values is None else torch.cat([zeros, zeros + values], dim=1)

    torch.manual_seed(0)
    return sampler(denoise, torch.randn(2, len(times) + 1, 3, 4, 4))


def test_lowest_variance_is_the_fixed_one() -> None:
    torch.testing.assert_close(sampled(-1.0, [49, 30, 20, 3]), sampled(None, [49, 30, 20, 3]), atol=1e-4, rtol=1e-4)


def test_steps_take_the_variance_between_the_two_times() -> None:
    torch.manual_seed(0)
    x, fresh = torch.randn(2, 3, 3, 4, 4)[:, :2].double().unbind(1)
    alphas = ALPHA_BAR[torch.tensor([30, 20])]
    beta = 1.0 - alphas[0] / alphas[1]
    x0 = x / alphas[0].sqrt()
    mean = (
        alphas[1].sqrt() * beta / (1 - alphas[0]) * x0
        + (alphas[0] / alphas[1]).sqrt() * (1 - alphas[1]) / (1 - alphas[0]) * x
    )
    low = (1 - alphas[1]) / (1 - alphas[0]) * beta
    x = mean + beta**0.25 * low**0.25 * fresh  # half way between both logarithms
    torch.testing.assert_close(sampled(0.0, [30, 20]), (x / alphas[1].sqrt()).float(), atol=1e-5, rtol=1e-5)


def test_times_without_noise_have_no_variance_to_learn() -> None:
    still = DiscreteProcess(PROCESS.alphas[[0, 0, 1]], PROCESS.sigmas[[0, 0, 1]])
    for process in (still, DiscreteProcess(PROCESS.alphas[:1], PROCESS.sigmas[:1])):
        with pytest.raises(ValueError, match="each noisier than the one before"):
            LearnedVariance.of(process, "epsilon")
