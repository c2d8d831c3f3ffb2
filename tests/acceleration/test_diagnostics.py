from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.tensors import generator
from torch import Tensor

from policy_accel.acceleration.conditional import kmeans_groups, ridge_mean
from policy_accel.acceleration.diagnostics import (
    condition_leak,
    miscibility,
    noise_shrink,
    snr_coverage,
    target_variance,
    transport_distance,
)
from policy_accel.acceleration.nearest_noise import nearest_noise
from policy_accel.acceleration.noise_assignment import assign_noise
from policy_accel.diffusion import vp_process
from policy_accel.diffusion.continuous import FlowProcess, SigmaProcess
from policy_accel.diffusion.processes import CLEAN, Level

# --- condition leak -----------------------------------------------------------------------------------------------


def chunks(samples: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Observations [N, 4] and chunks [N, 8, 2] that follow them, with something left to chance."""
    condition = torch.randn(samples, 4, generator=draws)
    mixing = torch.randn(4, 16, generator=draws) / 2
    data = condition @ mixing + 0.5 * torch.randn(samples, 16, generator=draws)
    return condition, data.view(samples, 8, 2)


def test_independent_noise_is_at_chance_and_the_p_value_is_calibrated() -> None:
    p_values, scores = [], []
    for seed in range(120):
        draws = generator(seed)
        leak = condition_leak(torch.randn(300, 5, generator=draws), torch.randn(300, 16, generator=draws), seed)
        p_values.append(leak.p_value)
        scores.append(leak.score - leak.permuted)
        assert abs(leak.permuted) < 0.02
    below = np.array([(np.array(p_values) < level).mean() for level in (0.05, 0.2, 0.5)])
    level = np.array([0.05, 0.2, 0.5])
    assert (below < level + 3 * np.sqrt(level * (1 - level) / 120)).all()
    assert (below > 0).all()
    assert abs(np.mean(scores)) < 3 * np.std(scores) / np.sqrt(120)


def test_whole_batch_assignment_leaks_and_assignment_inside_labels_does_not() -> None:
    draws = generator()
    labels = torch.randint(6, (2048,), generator=draws)
    centres = 1.5 * torch.randn(6, 16, generator=draws)
    data = centres[labels] + 0.5 * torch.randn(2048, 16, generator=draws)
    pool = torch.randn(2048, 16, generator=draws)
    classes = torch.nn.functional.one_hot(labels)
    independent = condition_leak(classes, pool, 0)
    inside = condition_leak(classes, assign_noise(data, pool, block_size=64, groups=labels).noise, 0)
    whole = condition_leak(classes, assign_noise(data, pool, block_size=256).noise, 0)
    nearest = condition_leak(classes, nearest_noise(data, candidates=2, generator=draws).noise, 0)
    for leak in (independent, inside):
        assert leak.p_value > 1e-3
        assert abs(leak.score) < 0.005
    assert whole.p_value < 1e-20
    assert whole.score > 0.2
    assert nearest.p_value < 1e-10
    assert nearest.permuted < nearest.score < whole.score


def test_vectors_leak_through_the_batch_groups_and_residuals_in_this_order() -> None:
    draws = generator()
    condition, data = chunks(2048, draws)
    pool = torch.randn(2048, 8, 2, generator=draws)
    independent = condition_leak(condition, pool, 0)
    whole = condition_leak(condition, assign_noise(data, pool, block_size=256).noise, 0)
    groups = kmeans_groups(condition, 32, 0)
    grouped = condition_leak(condition, assign_noise(data, pool, groups=groups).noise, 0)
    residual = data - ridge_mean(condition, data).predict(condition)
    on_residual = condition_leak(condition, assign_noise(residual, pool, block_size=256).noise, 0)
    assert independent.p_value > 1e-3
    assert abs(independent.score) < 0.005
    assert whole.score > 0.4
    # Groups of like but unequal conditions leak what varies inside them; a linear mean leaves nothing linear.
    assert 0.005 < grouped.score < 0.3 * whole.score
    assert grouped.p_value < 1e-6
    assert on_residual.p_value > 1e-3


def test_a_leak_that_only_second_moments_show_is_found() -> None:
    """Samples at +m(c) and -m(c): the mean noise is 0 for every condition, its spread along m(c) is not."""
    draws = generator()
    labels = torch.randint(2, (4096,), generator=draws)
    directions = torch.linalg.qr(torch.randn(32, 2, generator=draws)).Q.T
    sign = torch.randint(2, (4096, 1), generator=draws) * 2 - 1
    data = 3.0 * sign * directions[labels]
    noise = nearest_noise(data, candidates=8, metric="dot", generator=draws).noise
    means = torch.stack([noise[labels == label].mean(0) for label in (0, 1)])
    assert float(means.norm(dim=1).max()) < 1.5 * math.sqrt(32 / 2048)
    condition = labels.float().unsqueeze(1)
    assert condition_leak(condition, noise, 0).p_value < 1e-10
    # With two candidates the noise of such data is exactly N(0, I) in every condition: nothing leaks.
    exact = nearest_noise(data, candidates=2, metric="dot", generator=draws).noise
    assert condition_leak(condition, exact, 0).p_value > 1e-3


def test_a_leak_that_no_component_shows_is_found_in_neighbourhoods() -> None:
    """What a linear mean leaves of a bent dependence is still told by the condition, and assignment hands it on."""
    draws = generator()
    condition = torch.randn(2048, 2, generator=draws)
    bends = torch.cat([condition.square(), (3 * condition).cos()], dim=1)
    data = bends.repeat(1, 4) + 0.2 * torch.randn(2048, 16, generator=draws)
    residual = data - ridge_mean(condition, data).predict(condition)
    pool = torch.randn(2048, 16, generator=draws)
    leak = condition_leak(condition, assign_noise(residual, pool, block_size=256).noise, 0)
    independent = condition_leak(condition, pool, 0)
    assert abs(leak.score) < 0.01
    assert leak.local > 0.05
    assert leak.p_value < 1e-20
    assert abs(independent.local) < 0.005
    assert independent.p_value > 1e-3


def test_leak_ignores_constant_columns_and_is_repeatable() -> None:
    condition, data = chunks(600, generator())
    noise = data + torch.randn(600, 8, 2, generator=generator(1))
    padded = torch.cat([condition, torch.full((600, 2), 3.0)], dim=1)
    assert condition_leak(padded, noise, 0) == condition_leak(padded, noise, 0)
    assert condition_leak(padded, noise, 0).score == pytest.approx(condition_leak(condition, noise, 0).score, abs=1e-4)
    assert condition_leak(condition, noise, 0, rows=100) != condition_leak(condition, noise, 0)


def test_leak_refuses_what_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match=r"^conditions: there are 4, and noises 5"):
        condition_leak(torch.arange(4), torch.randn(5, 2), 0)
    with pytest.raises(ValueError, match=r"^conditions: all are equal"):
        condition_leak(torch.ones(9, 2), torch.randn(9, 2), 0)


# --- the noise itself ---------------------------------------------------------------------------------------------


MAXIMA = {2: 0.5642, 4: 1.0294, 8: 1.4236}  # mean of the largest of k standard normals


@pytest.mark.parametrize(
    ("entries", "candidates", "mean_square"), [(32, 2, 0.919), (32, 4, 0.865), (32, 8, 0.828), (112, 4, 0.924)]
)
def test_nearest_noise_shrinks(entries: int, candidates: int, mean_square: float) -> None:
    draws = generator()
    data = torch.randn(16384, entries, generator=draws)
    shrink = noise_shrink(nearest_noise(data, candidates=candidates, generator=draws).noise)
    assert shrink.mean_square == pytest.approx(mean_square, abs=0.005)
    exact = 0.5 * entries * (mean_square - 1 - math.log(mean_square))
    assert shrink.divergence == pytest.approx(exact, abs=0.02)


def test_divergence_of_nearest_noise_in_many_dimensions() -> None:
    draws = generator()
    noise = torch.cat(
        [nearest_noise(torch.randn(1024, 3072, generator=draws), candidates=4, generator=draws).noise for _ in range(3)]
    )
    closed_form = MAXIMA[4] ** 2 / (2 + 4)
    assert noise_shrink(noise).divergence == pytest.approx(closed_form, abs=3 * math.sqrt(3072) / 3072 + 0.01)
    assert noise_shrink(noise).mean_square == pytest.approx(1 - 2 * MAXIMA[4] / math.sqrt(6 * 3072), abs=0.001)


def test_noise_shrink_of_known_noise() -> None:
    noise = torch.randn(8192, 4, 8, generator=generator())
    plain = noise_shrink(noise)
    assert abs(plain.divergence) < 3 * math.sqrt(32) / 8192
    assert plain.mean_square == pytest.approx(1.0, abs=3 * math.sqrt(2 / noise.numel()))
    moved = noise_shrink(0.8 * noise + 0.3)
    assert moved.divergence == pytest.approx(32 * 0.5 * (0.64 + 0.09 - 1 - math.log(0.64)), abs=0.06)
    permuted = noise_shrink(noise[torch.randperm(8192, generator=generator())])
    assert permuted.divergence == pytest.approx(plain.divergence, abs=1e-12)


def test_transport_distance() -> None:
    data, noise = torch.zeros(2, 1, 2), torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]])
    assert transport_distance(data, noise) == 3.0
    draws = generator()
    data, pool = torch.randn(256, 32, generator=draws), torch.randn(256, 32, generator=draws)
    drop = 1 - transport_distance(data, assign_noise(data, pool).noise) / transport_distance(data, pool)
    assert drop == pytest.approx(0.255, abs=0.01)


# --- where paths meet ---------------------------------------------------------------------------------------------

POINTS, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@pytest.mark.parametrize(
    "level", [Level(0.9, math.sqrt(0.19), 1.0, 3), Level(0.3, 0.7, 1.0, 700), Level(1.0, 2.0, 1.0, 2)]
)
def test_two_points_against_quadrature(level: Level) -> None:
    """Samples +1 and -1: the posterior of the sample itself is 1 / (1 + exp(-2 a (a + s n) / s^2))."""
    draws = generator()
    data = torch.tensor([1.0, -1.0]).repeat(1000).unsqueeze(1)
    noise = torch.randn(2000, 1, generator=draws)
    ratio = level.alpha / level.sigma
    own = 1 / (1 + np.exp(-2 * ratio * (ratio + POINTS)))
    spread = np.sqrt((WEIGHTS * own**2).sum() - (WEIGHTS * own).sum() ** 2)
    found = 1000 * float(miscibility(data, noise, [level]))  # a thousand samples of each sign share the posterior
    assert found == pytest.approx((WEIGHTS * own).sum(), abs=3 * spread / math.sqrt(2000))

    variance = 4 * own * (1 - own)
    expected = (WEIGHTS * variance).sum()
    error = 3 * np.sqrt((WEIGHTS * variance**2).sum() - expected**2) / math.sqrt(2000)
    floor = float(target_variance(data, noise, [level], "sample"))
    assert floor == pytest.approx(expected, abs=error)
    for target, factor in {
        "epsilon": ratio,
        "negative_epsilon": ratio,
        "v": ratio * level.alpha + level.sigma,
        "flow": ratio + 1,
        "edm": math.sqrt(level.sigma**2 + 0.25) / (0.5 * level.sigma),
    }.items():
        assert float(target_variance(data, noise, [level], target)) == pytest.approx(factor**2 * floor, rel=1e-9)


def test_floor_is_the_loss_of_the_best_denoiser() -> None:
    """Monte Carlo over the pairs themselves, with targets as they are trained on, no posterior variance involved."""
    draws = generator()
    process = vp_process("squaredcos_cap_v2", 100)
    data, noise = torch.randn(400, 3, 2, generator=draws), torch.randn(400, 3, 2, generator=draws)
    times = [10, 40, 70, 90]
    levels = [process.level(t) for t in times]
    x, n = data.flatten(1).double(), noise.flatten(1).double()
    for target in ("epsilon", "sample", "v"):
        floors = target_variance(data, noise, levels, target)
        for floor, level in zip(floors.tolist(), levels, strict=True):
            noised = level.alpha * x + level.sigma * n
            weights = (-torch.cdist(noised, level.alpha * x).square() / (2 * level.sigma**2)).softmax(1)
            x_hat = weights @ x
            n_hat = (noised - level.alpha * x_hat) / level.sigma
            wanted, best = {
                "epsilon": (n, n_hat),
                "sample": (x, x_hat),
                "v": (level.alpha * n - level.sigma * x, level.alpha * n_hat - level.sigma * x_hat),
            }[target]
            losses = (wanted - best).square().mean(1)
            assert floor == pytest.approx(float(losses.mean()), abs=3 * float(losses.std()) / 20 + 1e-12)


def test_floor_of_gaussian_data() -> None:
    draws = generator()
    data, noise = 0.5 * torch.randn(4096, 1, generator=draws), torch.randn(4096, 1, generator=draws)
    for level in (FlowProcess().level(0.5), SigmaProcess().level(1.0)):
        expected = 0.25 * level.sigma**2 / (0.25 * level.alpha**2 + level.sigma**2)
        assert float(target_variance(data, noise, [level], "sample")) == pytest.approx(expected, rel=0.06)


def test_paths_part_with_less_noise_and_with_assignment() -> None:
    draws = generator()
    process = vp_process("squaredcos_cap_v2", 100)
    data, pool = torch.randn(1024, 16, 2, generator=draws), torch.randn(1024, 16, 2, generator=draws)
    levels = [process.level(t) for t in (99, 80, 60, 40, 5)]
    plain = miscibility(data, pool, levels)
    coupled = miscibility(data, assign_noise(data, pool, block_size=256).noise, levels)
    assert plain.shape == (5,)
    assert float(plain[0]) == pytest.approx(1 / 1024, rel=0.1)
    assert plain.diff().gt(0).all()
    assert float(plain[-1]) == pytest.approx(1.0, abs=1e-6)
    assert (coupled[1:3] > 1.2 * plain[1:3]).all()


def test_levels_and_targets_are_checked() -> None:
    data = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"^levels: .* holds no noise"):
        miscibility(data, data, [CLEAN])
    with pytest.raises(ValueError, match=r"^target 'epsilom' is unknown; did you mean 'epsilon'"):
        target_variance(data, data, [Level(0.5, 0.5, 1.0, 0)], "epsilom")
    with pytest.raises(ValueError, match=r"^data: .* same shape"):
        miscibility(data, torch.zeros(3, 1), [Level(0.5, 0.5, 1.0, 0)])


# --- signal and noise ---------------------------------------------------------------------------------------------


def test_snr_coverage_of_a_straight_table() -> None:
    log_snr = torch.linspace(20, -20, 1001, dtype=torch.float64)
    coverage = snr_coverage(log_snr)
    assert coverage.quantiles == pytest.approx((-18, -10, 0, 10, 18), abs=0.05)
    assert coverage.terminal_snr == pytest.approx(math.exp(-10))
    assert coverage.below == pytest.approx(0.35, abs=1e-3)
    assert coverage.above == pytest.approx(0.275, abs=1e-3)
    quiet = snr_coverage(log_snr, (log_snr > 0.01).double())
    assert quiet.quantiles == pytest.approx((1, 5, 10, 15, 19), abs=0.05)
    assert quiet.below == 0.0
    assert quiet.terminal_snr == pytest.approx(math.exp(0.02))


def test_snr_coverage_of_processes() -> None:
    process = vp_process("squaredcos_cap_v2", 100)
    coverage = snr_coverage(process.log_snr)
    assert coverage.terminal_snr == pytest.approx(float(process.alphas[-1] / process.sigmas[-1]))
    assert coverage.below == pytest.approx(float((process.log_snr < -6).double().mean()))
    flow = FlowProcess()
    times = flow.draw_times((200_000,), generator(), "cpu")
    # log-SNR of u is 2 log((1 - u) / u): its quantiles are those of the uniform law.
    expected = [2 * math.log(share / (1 - share)) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
    assert snr_coverage(flow.log_snr_at(times)).quantiles == pytest.approx(expected, abs=0.06)


def test_snr_coverage_refuses_impossible_probabilities() -> None:
    for probabilities in (torch.ones(3), -torch.ones(4), torch.zeros(4)):
        with pytest.raises(ValueError, match=r"^probabilities: .* give 4 numbers"):
            snr_coverage(torch.arange(4.0), probabilities)
