"""From settings to an objective: neutral settings are the baseline bit for bit, the others do what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.objectives import FLOW, batch, drawn, settings

from policy_accel.acceleration.assigned_noise import (
    AssignmentConfig,
    ConditionalAssignmentConfig,
    GroupedAssignmentConfig,
)
from policy_accel.acceleration.build import build_objective
from policy_accel.acceleration.momentum import MomentumConfig, NaturalMomentumConfig, ReleasedMomentumConfig
from policy_accel.acceleration.nearest_noise import NearestNoiseConfig
from policy_accel.acceleration.noise_choices import NoiseConfig
from policy_accel.acceleration.path import (
    FreshSamplesConfig,
    IndependentTimesConfig,
    PathConfig,
    SharedPathConfig,
    TruncatedPathConfig,
)
from policy_accel.acceleration.timesteps import CurriculumConfig, LogitNormalConfig, TimestepsConfig
from policy_accel.diffusion import Batch, SigmaProcess, make_noised, momentum_input_scale, vp_process
from policy_accel.diffusion.predictions import edm_coefficients


@pytest.mark.parametrize("target", ["epsilon", "sample", "v"])
def test_everything_off_is_the_baseline(target: str) -> None:
    """Ho et al. 2020, algorithm 1, written straight."""
    noised = drawn(build_objective(*settings(diffusion__target=target)))
    time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    x0 = batch().x0
    t = torch.randint(100, (24,), generator=time)
    epsilon = torch.randn(24, 4, 3, generator=noise)
    process = vp_process("squaredcos_cap_v2", 100)
    alpha, sigma = (table[t].float().view(-1, 1, 1) for table in (process.alphas, process.sigmas))
    assert torch.equal(noised.t, t)
    assert torch.equal(noised.x_t, alpha * x0 + sigma * epsilon)
    expected = {"epsilon": epsilon, "sample": x0, "v": alpha * epsilon - sigma * x0}[target]
    assert torch.equal(noised.target, expected)
    assert torch.equal(noised.model_input, noised.x_t)
    assert noised.weight is None
    assert noised.repeats == 1


@pytest.mark.parametrize(
    "neutral",
    [
        {"noise": NearestNoiseConfig(candidates=1)},
        {"noise": AssignmentConfig(block_size=1)},
        {"noise": AssignmentConfig(start_step=1)},
        {"noise": NearestNoiseConfig(start_score=0.5)},
        {"path": FreshSamplesConfig(times_per_sample=3)},
    ],
)
def test_neutral_settings_equal_the_baseline_bit_for_bit(neutral: dict[str, Any]) -> None:
    """`fresh` is neutral here: it asks for a larger batch and changes nothing about the draw."""
    baseline, other = drawn(build_objective(*settings())), drawn(build_objective(*settings(**neutral)))
    for name in ("x_t", "t", "target", "model_input"):
        assert torch.equal(getattr(baseline, name), getattr(other, name)), name
    assert other.weight is None


def test_a_curriculum_of_no_strength_weighs_every_time_alike() -> None:
    objective = build_objective(*settings(timesteps=CurriculumConfig(strength=0.0, unbiased=True)))
    weight = drawn(objective, progress=1.0).weight
    assert weight is not None
    torch.testing.assert_close(weight, torch.ones(24, dtype=torch.float64))


def test_validation_is_drawn_plainly_whatever_accelerates_the_training() -> None:
    baseline = build_objective(*settings())
    accelerated = build_objective(
        *settings(noise=AssignmentConfig(), path=SharedPathConfig(), timesteps=CurriculumConfig(weight="min_snr"))
    )
    plain, other = drawn(baseline), drawn(accelerated.plain())
    assert torch.equal(plain.x_t, other.x_t)
    assert torch.equal(plain.t, other.t)
    assert other.weight is None
    assert not torch.equal(drawn(accelerated).x_t[:24], plain.x_t)


@pytest.mark.parametrize(
    "noise", [AssignmentConfig(), GroupedAssignmentConfig(), ConditionalAssignmentConfig(condition_ratio=0.2)]
)
def test_assignment_permutes_the_noise_and_nothing_else(noise: NoiseConfig) -> None:
    options = {"noise": noise, "diffusion__target": "epsilon"}
    baseline, assigned = drawn(build_objective(*settings())), drawn(build_objective(*settings(**options)))
    pool, received = baseline.target.flatten(1), assigned.target.flatten(1)
    equal = (received[:, None] == pool[None]).all(-1)
    assert bool((equal.sum(0) == 1).all())
    assert bool((equal.sum(1) == 1).all())
    permutation = equal.int().argmax(1)
    assert not torch.equal(permutation, torch.arange(24))
    assert torch.equal(assigned.t, baseline.t)
    x0 = batch().x0.flatten(1)
    assert float((x0 - received).norm(dim=1).sum()) < float((x0 - pool).norm(dim=1).sum())
    if isinstance(noise, GroupedAssignmentConfig):
        assert torch.equal(permutation // 6, torch.arange(24) // 6)
    again = make_noised(vp_process(), batch().x0, assigned.target, assigned.t, "epsilon")
    assert torch.equal(again.x_t, assigned.x_t)


def test_a_path_keeps_its_times_when_it_is_assigned() -> None:
    options = {"path": SharedPathConfig(times_per_sample=3), "timesteps": TimestepsConfig(stratified=True)}
    plain = drawn(build_objective(*settings(**options)))
    moved = drawn(build_objective(*settings(**options, noise=AssignmentConfig())))
    shape = (24, 3, -1)
    rows = torch.cat([plain.target.view(shape), plain.t.view(24, 3, 1).float()], 2).flatten(1)
    received = torch.cat([moved.target.view(shape), moved.t.view(24, 3, 1).float()], 2).flatten(1)
    equal = (received[:, None] == rows[None]).all(-1)
    assert bool((equal.sum(0) == 1).all())
    assert not bool(equal.diagonal().all())
    recovered = make_noised(vp_process(), batch().x0.repeat_interleave(3, 0), moved.target, moved.t, "epsilon")
    assert torch.equal(recovered.x_t, moved.x_t)


@pytest.mark.parametrize("path", [SharedPathConfig(), IndependentTimesConfig()])
def test_several_times_of_a_sample(path: PathConfig) -> None:
    objective = build_objective(*settings(path=path, timesteps=TimestepsConfig(stratified=True)))
    time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    x0 = torch.zeros(4000, 1)
    noised = objective.draw(Batch(x0), time, noise)
    assert noised.repeats == 4
    t, epsilon = noised.t.view(4000, 4), noised.target.view(4000, 4)
    assert torch.equal(t // 25, torch.arange(4).expand(4000, 4))
    torch.testing.assert_close(epsilon.var(0), torch.ones(4), atol=3 * (2 / 4000) ** 0.5, rtol=0)
    correlation = float((epsilon[:, 2] * epsilon[:, 3]).mean())
    if path.name == "independent":
        assert abs(correlation) < 3 / 4000**0.5
    else:
        assert correlation > 0.3


def test_a_subset_of_the_times_is_evaluated() -> None:
    path = SharedPathConfig(evaluations=2)
    objective = build_objective(*settings(path=path, timesteps=TimestepsConfig(stratified=True)))
    noised = objective.draw(Batch(torch.zeros(4000, 1)), torch.Generator().manual_seed(1), torch.Generator())
    assert noised.repeats == 2
    strata = (noised.t // 25).view(4000, 2)
    assert bool((strata[:, 0] != strata[:, 1]).all())
    counts = torch.bincount(strata.flatten(), minlength=4).double() / 2000
    torch.testing.assert_close(counts, torch.ones(4, dtype=torch.float64), atol=0.06, rtol=0)


def test_fdm_scales_the_input_and_leaves_the_rest() -> None:
    baseline = drawn(build_objective(*settings()))
    scaled = drawn(build_objective(*settings(momentum=NaturalMomentumConfig())))
    assert torch.equal(scaled.x_t, baseline.x_t)
    assert torch.equal(scaled.target, baseline.target)
    abar = vp_process().alphas.square()[baseline.t]
    gain = (0.5 * abar.log()).exp() * (1 - abar.log())
    torch.testing.assert_close(scaled.model_input, gain.float().view(-1, 1, 1) * baseline.x_t)


def test_the_weight_cap_follows_the_step_and_goes() -> None:
    objective = build_objective(*settings(momentum=MomentumConfig(cap_warmup=10)))
    process = vp_process()
    for step, cap in ((0, 5.0), (5, 50.0)):
        noised = drawn(objective, step)
        expected = (cap * (process.sigmas / process.alphas)[noised.t].square()).clamp(max=1)
        assert noised.weight is not None
        torch.testing.assert_close(noised.weight, expected)
    assert drawn(objective, 10).weight is None


@pytest.mark.parametrize("family", ["edm", "vp", "ve"])
def test_the_sigma_families_equal_the_straight_formulas(family: str) -> None:
    """w(sigma) |D - y|^2 with D = c_skip x + c_out F (Karras et al. 2022, equation 8) is what the example says of F."""
    target = {"edm": "edm", "vp": "epsilon", "ve": "negative_epsilon"}[family]
    objective = build_objective(
        *settings(
            diffusion__family=family,
            diffusion__target=target,
            momentum=ReleasedMomentumConfig(multiplier=1.0 if family == "ve" else 2.0, cap_warmup=10),
        )
    )
    noised = drawn(objective, step=5)
    process = objective.process
    assert isinstance(process, SigmaProcess)
    x0 = batch().x0.double()
    sigma = process.draw_times((24,), torch.Generator().manual_seed(1), "cpu")
    epsilon = torch.randn(24, 4, 3, generator=torch.Generator().manual_seed(2)).double()
    shape = (-1, 1, 1)
    x = x0 + sigma.view(shape) * epsilon
    one = torch.ones_like(sigma)
    c_skip, c_out = {"edm": edm_coefficients(sigma), "vp": (one, -sigma), "ve": (one, sigma)}[family]
    network = torch.randn(24, 4, 3, dtype=torch.float64)
    denoised = c_skip.view(shape) * x + c_out.view(shape) * network
    weight = 1 / sigma**2 + (4.0 if family == "edm" else 0.0)
    straight = weight.clamp(max=50.0).view(shape) * (denoised - x0).square()
    assert noised.weight is not None
    ours = noised.weight.view(shape) * (network - noised.target.double()).square()
    torch.testing.assert_close(ours, straight, rtol=2e-3, atol=1e-4)
    scale = momentum_input_scale(sigma, family=family, multiplier=2.0).view(shape)
    torch.testing.assert_close(noised.model_input.double(), scale * x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(noised.t.double(), process.c_noise(sigma))


def test_flow_is_a_straight_line() -> None:
    noised = drawn(build_objective(*settings(**FLOW)))
    u = noised.t.float().view(-1, 1, 1) / 1000
    epsilon = torch.randn(24, 4, 3, generator=torch.Generator().manual_seed(2))
    x0 = batch().x0
    torch.testing.assert_close(noised.x_t, (1 - u) * x0 + u * epsilon, rtol=1e-5, atol=1e-5)
    assert torch.equal(noised.target, epsilon - x0)
    assert bool(((u > 0) & (u < 1)).all())


def test_data_scale_scales_the_data_alone() -> None:
    noised = drawn(build_objective(*settings(data_scale=2.0, diffusion__target="sample")))
    assert torch.equal(noised.target, 2 * batch().x0)
    epsilon = torch.randn(24, 4, 3, generator=torch.Generator().manual_seed(2))
    expected = make_noised(vp_process(), 2 * batch().x0, epsilon, noised.t, "sample").x_t
    assert torch.equal(noised.x_t, expected)


def test_flow_may_draw_its_times_logit_normally() -> None:
    objective = build_objective(*settings(**FLOW, timesteps=LogitNormalConfig()))
    noised = objective.draw(Batch(torch.zeros(20_000, 1)), torch.Generator().manual_seed(0), torch.Generator())
    logit = torch.logit(noised.t.double() / 1000)
    assert abs(float(logit.mean())) < 0.03
    assert abs(float(logit.std()) - 1) < 0.03


def test_a_schedule_of_one_time_each_is_plain_noise_of_that_schedule() -> None:
    """With one time a path's noise is one normal number an entry, so every choice of noise composes with it."""
    truncated = {"path": TruncatedPathConfig(modes=4)}
    plain, nearest = (
        drawn(build_objective(*settings(**truncated, **extra)))
        for extra in ({}, {"noise": NearestNoiseConfig(candidates=16)})
    )
    process = build_objective(*settings(**truncated)).process
    again = make_noised(process, batch().x0, plain.target, plain.t, "epsilon")
    assert torch.equal(again.x_t, plain.x_t)
    x0 = batch().x0
    assert float((nearest.target * x0).mean()) > float((plain.target * x0).mean()) + 0.1


def test_residual_coupling_looks_at_the_residual() -> None:
    """With the data as their own centre nothing is left to assign by, and the shift does not matter."""
    objective = build_objective(*settings(noise=AssignmentConfig(center="ridge")))
    time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    whole = batch()
    centered = objective.draw(replace(whole, x0=whole.x0 + 5, center=torch.full_like(whole.x0, 5.0)), time, noise)
    plain = drawn(build_objective(*settings(noise=AssignmentConfig())))
    assert torch.equal(centered.target, plain.target)
