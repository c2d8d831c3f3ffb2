"""How the noise of several times of a sample is drawn, and what a loss over them teaches."""

from __future__ import annotations

import math

import pytest
import torch
from support.karhunen_loeve import (
    COS_100,
    LINEAR,
    at,
    close,
    table,
)
from support.tensors import generator
from torch import Tensor

from policy_accel.diffusion import vp_process
from policy_accel.diffusion.karhunen_loeve import (
    CLOCKS,
    KarhunenLoeveProcess,
    karhunen_loeve_process,
)

CORRELATIONS = {
    LINEAR: table("""
        1 1 1
        0.708188 0.608188 -0.129725
        0.282803 0.203002  0.050335
        0.233178 0.149063  0.026018
        0.210061 0.134130  0.028176"""),
    COS_100: table("""
        1 1 1
        0.807381 0.639784 0.063079
        0.404659 0.411300 0.150032
        0.354510 0.344604 0.112556
        0.331616 0.326185 0.108168"""),
}


def weights(process: KarhunenLoeveProcess, t: Tensor) -> Tensor:
    """What `path_noise` makes of the unit vectors: epsilon = weights @ path, [B, M, min(K, M)]."""
    rows = min(process.modes, t.shape[1])
    return process.path_noise(torch.eye(rows, dtype=torch.float64).expand(len(t), rows, rows), t)


@pytest.mark.parametrize("schedule", [LINEAR, COS_100])
def test_correlation_between_times(schedule: tuple[str, int]) -> None:
    base = vp_process(*schedule)
    t = torch.tensor([at((0.2, 0.5, 0.8), schedule[1])])
    for modes, expected in zip((1, 2, 4, 16, schedule[1]), CORRELATIONS[schedule], strict=True):
        process = karhunen_loeve_process(base, modes)
        w = weights(process, t)[0]
        covariance = w @ w.T
        close(covariance.diagonal(), torch.ones(3), 1e-9)
        close(covariance[[0, 1, 0], [1, 2, 2]], expected, 2e-6)
        n = process.noise_table[:, t[0]]
        close(covariance, n.T @ n, 1e-9)


@pytest.mark.parametrize("modes", [1, 3, 4, 5, 100])
def test_every_sample_has_its_own_times(modes: int) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), modes)
    t = torch.randint(100, (6, 4), generator=generator(3))
    w = weights(process, t)
    n = process.noise_table.T[t]
    close(w @ w.mT, n @ n.mT, 1e-9)
    if modes <= 4:
        close(w, n, 0.0)


@pytest.mark.parametrize("modes", [2, 16])
def test_law_of_the_drawn_noise(modes: int) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), modes)
    t = torch.tensor([5, 30, 60, 95])
    batch, entries = 40000, 5
    eps = process.draw_path_noise((batch, entries), t.expand(batch, 4), generator(11)).double()
    assert eps.shape == (batch, 4, entries)
    count = batch * entries
    assert bool((eps.mean((0, 2)).abs() < 3.5 / math.sqrt(count)).all())
    assert bool(((eps.square().mean((0, 2)) - 1).abs() < 3.5 * math.sqrt(2 / count)).all())
    n = process.noise_table[:, t]
    expected = n.T @ n
    measured = torch.einsum("bms,bns->mn", eps, eps) / count
    assert bool(((measured - expected).abs() < 3.5 * ((1 + expected**2) / count).sqrt()).all())
    across = torch.einsum("bm,bn->mn", eps[..., 0], eps[..., 1]) / batch
    assert bool((across.abs() < 3.5 / math.sqrt(batch)).all())
    neighbours = torch.einsum("bms,bns->mn", eps[1:], eps[:-1]) / (count - entries)
    assert bool((neighbours.abs() < 3.5 / math.sqrt(count)).all())


@pytest.mark.parametrize("modes", [1, 4, 100])
@pytest.mark.parametrize("shape", [(64, 16, 2), (8, 3, 8, 8)])
def test_one_time_is_the_baseline_bit_for_bit(modes: int, shape: tuple[int, ...]) -> None:
    base = vp_process(*COS_100)
    process = karhunen_loeve_process(base, modes)
    t = torch.randint(100, (shape[0],), generator=generator(4))
    plain = torch.randn(shape, generator=generator(5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        eps = process.draw_path_noise(shape, t[:, None], generator(5))
    assert torch.equal(eps[:, 0], plain)
    x0 = torch.randn(shape, generator=generator(6))
    assert torch.equal(process.diffuse(x0, eps[:, 0], t), base.diffuse(x0, plain, t))


@pytest.mark.parametrize("modes", [1, 4, 100])
@pytest.mark.parametrize("clock", CLOCKS)
def test_one_time_weighs_its_path_by_one(modes: int, clock: str) -> None:
    """What the short way leaves out: at one time the weight of every timestep rounds to 1."""
    process = karhunen_loeve_process(vp_process(*COS_100), modes, clock=clock)
    t = torch.randint(100, (16, 1), generator=generator(16))
    variance = process.noise_table.T[t].square().sum(-1)
    assert torch.equal(variance.sqrt().float(), torch.ones(16, 1))
    if modes == 1:
        assert bool((process.noise_table > 0.0).all())
    path = torch.randn((16, 1, 3, 2), generator=generator(17), dtype=torch.float64)
    assert torch.equal(process.path_noise(path, t), path)
    twice = process.path_noise(torch.cat([path, torch.zeros_like(path)], 1)[:, : min(modes, 2)], t.expand(16, 2))
    close(twice[:, :1], path, 1e-9)


def test_one_mode_is_one_noise_for_all_times() -> None:
    process = karhunen_loeve_process(vp_process(*LINEAR), 1)
    assert torch.equal(process.noise_table.float(), torch.ones(1, 1000))
    eps = process.draw_path_noise((8, 3), torch.randint(1000, (8, 5), generator=generator(7)), generator(8))
    assert torch.equal(eps, torch.randn((8, 1, 3), generator=generator(8)).expand(8, 5, 3))


@pytest.mark.parametrize("modes", [2, 8])
def test_the_shape_of_the_data_does_not_matter(modes: int) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), modes)
    t = torch.randint(100, (4, 3), generator=generator(9))
    image = process.draw_path_noise((4, 2, 4, 4), t, generator(10))
    actions = process.draw_path_noise((4, 16, 2), t, generator(10))
    assert torch.equal(image.reshape(4, 3, 16, 2), actions)
    assert process.draw_path_noise((4, 6), t, generator(10), torch.float64).dtype == torch.float64


@pytest.mark.parametrize("modes", [2, 8, 100])
def test_one_time_drawn_twice_gets_the_same_noise(modes: int) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), modes)
    t = torch.tensor([[50, 50, 50, 50, 50], [0, 99, 0, 99, 0], [3, 3, 4, 4, 99], [0, 1, 2, 3, 4]])
    eps = process.draw_path_noise((4, 50), t, generator(12))
    assert bool(eps.isfinite().all())
    close(eps[0], eps[0, :1].expand(5, 50).double(), 2e-4)
    close(eps[1, 2:], eps[1, :3].double(), 2e-4)
    close(eps[2, [0, 2]], eps[2, [1, 3]].double(), 2e-4)


def test_rows_of_a_path_may_be_permuted() -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), 8)
    t, order = torch.randint(100, (6, 3), generator=generator(13)), torch.randperm(6, generator=generator(14))
    path = torch.randn((6, 3, 4), generator=generator(15))
    assert torch.equal(process.path_noise(path[order], t[order]), process.path_noise(path, t)[order])
    assert torch.equal(process.path_noise(path, t), process.draw_path_noise((6, 4), t, generator(15)))


# --- The loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marginal", ["matched", "vp_equivalent", "raw"])
def test_regression_on_coefficients_and_on_epsilon_have_one_gradient(marginal: str) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), 4, marginal)
    t = torch.randint(100, (5, 4), generator=generator(17))
    z = torch.randn((5, 4, 3), generator=generator(18), dtype=torch.float64)
    eps = process.path_noise(z, t)
    guess = torch.randn((5, 4, 3), generator=generator(19)).double().requires_grad_()
    n = process.noise_table.T[t]
    on_coefficients = (z[:, None] - n[..., None] * guess[:, :, None]).square().sum()
    on_epsilon = (eps - guess).square().sum()
    (first,), (second,) = (torch.autograd.grad(loss, guess) for loss in (on_coefficients, on_epsilon))
    close(first, second, 1e-12)


def best_slopes(process: KarhunenLoeveProcess, t: Tensor, metric: Tensor) -> Tensor:
    """d that minimises E[r^T metric r], r_i = eps_i - d_i x_i, for clean data N(0, 1) shared by all times."""
    n, alpha, sigma = process.noise_table[:, t], process.alphas[t], process.sigmas[t]
    noise = n.T @ n
    second_moment = torch.outer(sigma, sigma) * noise + torch.outer(alpha, alpha)
    return torch.linalg.solve(metric * second_moment, (metric @ noise).diagonal() * sigma)


@pytest.mark.parametrize(
    ("schedule", "expected"), [(COS_100, "2.218 1.380 1.085 1.002"), (LINEAR, "1.326 1.017 0.997 0.997")]
)
def test_only_the_plain_loss_keeps_the_right_minimiser(schedule: tuple[str, int], expected: str) -> None:
    process = karhunen_loeve_process(vp_process(*schedule), 4)
    t = torch.tensor([int(f * schedule[1]) - 1 for f in (0.125, 0.375, 0.625, 0.875)])
    right = process.sigmas[t]  # E[eps | x] = sigma x, since alpha^2 + sigma^2 = 1
    close(best_slopes(process, t, torch.eye(4, dtype=torch.float64)), right, 1e-12)
    n = process.noise_table[:, t]
    close(best_slopes(process, t, torch.linalg.inv(n.T @ n)) / right, table(expected)[0], 1e-3)


def test_regression_on_drawn_paths_finds_the_conditional_mean() -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), 4)
    batch, t = 100000, torch.tensor([10, 40, 60, 85])
    x0 = torch.randn((batch, 1), generator=generator(20))
    eps = process.draw_path_noise((batch, 1), t.expand(batch, 4), generator(21))
    x = process.diffuse(x0.repeat_interleave(4, 0), eps.flatten(0, 1), t.repeat(batch)).view(batch, 4)
    slope = (x * eps[..., 0]).mean(0) / x.square().mean(0)
    close(slope, process.sigmas[t], 3.5 / math.sqrt(batch))
