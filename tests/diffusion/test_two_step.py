"""Two-step regression against its published losses and sampler, written out straight."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from policy_accel.diffusion import Batch, FlowProcess, Objective, Repetition, Sampler, weighted_squared_error
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.two_step import TwoStepProcess
from policy_accel.errors import UserError

SHAPE = (6, 16, 3)


def network(x: Tensor, t: Tensor) -> Tensor:
    """A smooth stand-in that depends on every input."""
    return torch.tanh(0.7 * x + 0.3 * x.roll(1, dims=1) + torch.sin(t / 400.0).view(-1, 1, 1))


def actions() -> Tensor:
    return 0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))


def sampled(process: TwoStepProcess, steps: int, **options: object) -> Tensor:
    sampler = Sampler(Objective(process, "sample"), SamplingConfig("mip", steps, clip_sample=None))
    return sampler(network, torch.randn(SHAPE[0], 1, *SHAPE[1:]), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("t_star", [0.9, 0.6])
def test_the_loss_is_the_published_one(form: str, t_star: float) -> None:
    """`mip_loss` of the released code, and the unweighted loss of the paper, of the same noise."""
    objective = Objective(TwoStepProcess(t_star, form), "sample", repetition=Repetition(2, "independent"))
    a, time, noise = actions(), torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    noised = objective.draw(Batch(a), time, noise)
    ours = weighted_squared_error(network(noised.model_input, noised.t), noised.target, weight=noised.weight)
    z = torch.randn(6, 2, 16, 3, generator=torch.Generator().manual_seed(2))[:, 0]
    released = form == "released"
    s, t = torch.full((6,), 1000.0), torch.full((6,), 1000.0 * (1.0 - t_star))
    first = network(torch.zeros(SHAPE), s) - a
    second = network((1.0 if released else t_star) * a + (1.0 - t_star) * z, t) - a
    weights = (t_star**-2, (1.0 - t_star) ** -2) if released else (1.0, 1.0)
    straight = (weights[0] * first.square() + weights[1] * second.square()).mean()
    torch.testing.assert_close(2.0 * ours, straight)


@pytest.mark.parametrize("form", ["released", "paper"])
def test_samples_are_the_published_ones_whatever_the_noise(form: str) -> None:
    process = TwoStepProcess(0.8, form)
    first = network(torch.zeros(SHAPE), torch.full((6,), 1000.0))
    scale = 1.0 if form == "released" else 0.8
    assert torch.equal(sampled(process, 1), first)
    torch.testing.assert_close(sampled(process, 2), network(scale * first, torch.full((6,), 200.0)))


def test_given_entries_stay_at_both_steps() -> None:
    given, seen = torch.zeros(SHAPE, dtype=torch.bool), list[Tensor]()
    given[:, :2] = True
    a = actions()

    def known(x: Tensor, level: Level) -> Tensor:
        return torch.where(given, a, x)

    def watched(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return network(x, t)

    sampler = Sampler(Objective(TwoStepProcess(), "sample"), SamplingConfig("mip", 2, clip_sample=None))
    result = sampler(watched, torch.randn(6, 1, *SHAPE[1:]), known=known)
    assert torch.equal(result[:, :2], a[:, :2])
    assert all(torch.equal(x[:, :2], a[:, :2]) for x in seen)
    assert bool((seen[0][:, 2:] == 0).all())
    noised = Objective(TwoStepProcess(), "sample").draw(Batch(a, known=given), *(torch.Generator() for _ in range(2)))
    assert torch.equal(noised.model_input[:, :2], a[:, :2])


def test_losses_of_the_best_predictor_of_a_gaussian() -> None:
    """The first step can know the mean alone, the second the posterior mean: the losses follow in closed form."""
    mean, deviation, t_star = 0.3, 0.2, 0.9
    sigma = 1.0 - t_star
    a = mean + deviation * torch.randn(40_000, 1, generator=torch.Generator().manual_seed(5))
    objective = Objective(TwoStepProcess(t_star), "sample")
    noised = objective.draw(Batch(a), torch.Generator().manual_seed(6), torch.Generator().manual_seed(7))
    variance = deviation**2 + sigma**2
    posterior = (deviation**2 * noised.x_t + sigma**2 * mean) / variance
    best = torch.where(noised.t[:, None] == 1000.0, mean, posterior)
    losses = noised.weight.float() * (best - a).square()[:, 0]  # type: ignore[union-attr]
    first = noised.t == 1000.0
    assert abs(float(first.float().mean()) - 0.5) < 0.01
    assert float(losses[first].mean()) == pytest.approx(deviation**2 / t_star**2, rel=0.03)
    assert float(losses[~first].mean()) == pytest.approx(deviation**2 / variance, rel=0.03)


def test_one_time_of_each_sample_is_the_same_loss_at_half_the_cost() -> None:
    both = Objective(TwoStepProcess(), "sample", repetition=Repetition(2, "independent"))
    batch = Batch(actions())
    t = both.draw(batch, *(torch.Generator() for _ in range(2))).t
    assert t.tolist() == pytest.approx([100.0, 1000.0] * 6)
    one = Objective(both.process, "sample")
    times = [one.draw(batch, torch.Generator().manual_seed(k), torch.Generator()).t for k in range(60)]
    assert [len(t) for t in times] == [6] * 60
    assert 150 < sum(int((t > 500).sum()) for t in times) < 210


def test_what_a_step_shows_of_the_sample() -> None:
    process = TwoStepProcess(0.75)
    log_snr = process.log_snr_at(torch.tensor([0, 1]))
    assert log_snr.tolist() == [pytest.approx(2 * math.log(1 / 0.25)), -math.inf]
    for k in (0, 1):
        level, at = process.level(k), process.coefficients(torch.tensor([k]))
        assert (level.alpha, level.sigma) == (float(at.alpha), float(at.sigma))
        assert level.time == float(at.time)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: TwoStepProcess(1.0), r"^t_star=1.0 must lie between 0 and 1"),
        (lambda: TwoStepProcess(form="papre"), r"^form 'papre' is unknown; did you mean 'paper'\?"),
        (lambda: TwoStepProcess().grid(3), r"^steps=3 must be 1"),
        (lambda: TwoStepProcess().grid(2, "leading"), r"^spacing=leading has no effect"),
        (lambda: TwoStepProcess().grid_of([1, 0]), r"^times=\[1, 0\] has no effect on two steps; leave it at null"),
    ],
)
def test_what_two_steps_cannot_be(made: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        made()  # type: ignore[operator]


def test_samplers_belong_to_their_processes() -> None:
    with pytest.raises(UserError, match=r"sampling.sampler=ddim is no sampler .*, which takes mip\."):
        SamplingConfig("ddim", 2).check(TwoStepProcess())
    with pytest.raises(UserError, match=r"sampling.sampler=mip is no sampler .*, which takes ddpm, ddim,"):
        SamplingConfig("mip", 2).check(FlowProcess())
