"""The figures that follow from the equations on the pages of the papers' methods are those of the code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.pages import numbers_of, page, rows, sentences

from policy_accel.acceleration import CurriculumTimes, nearest_noise, noise_matched_positions
from policy_accel.acceleration.momentum_decay import decay_at, momentum_decay
from policy_accel.diffusion import karhunen_loeve_process, momentum_process, vp_process
from policy_accel.diffusion.momentum import BETA_MIN, BETA_RANGE, momentum_input_scale, momentum_scale, weight_cap

COSINE = vp_process("squaredcos_cap_v2", 100)


def test_the_nearest_of_k() -> None:
    """The mean square by drawing it, and the odds: noise above the quantile that the training has of the rare mode."""
    random = torch.Generator().manual_seed(0)
    data, modes = (
        torch.randn(20_000, 32, generator=random),
        torch.where(torch.rand(1_000_000, 1, generator=random) < 0.9, 1.0, -1.0),
    )
    for name, *cells in rows(page("explanation/immiscible"), "| $k$ | divergence"):
        k = int(name)
        assert cells[0] == f"{math.log(k) - 1 + 1 / k:.2f}"
        for metric, cell in zip(("l2", "dot"), cells[1:3], strict=True):
            noise = nearest_noise(data, candidates=k, metric=metric, generator=random).noise
            assert abs(float(noise.square().mean()) - float(cell)) < 0.008, (k, metric)
        assert cells[3] == f"{9 ** (1 / k):.1f} to 1"
        noise = nearest_noise(modes, candidates=k, metric="dot", generator=random).noise
        rare = float(torch.special.ndtr(torch.quantile(noise.flatten(), 0.1)))
        assert abs((1 - rare) / rare - 9 ** (1 / k)) < 0.05


def test_the_modes_of_a_path() -> None:
    at, pair = [9, 49, 89, 99], [19, 49]
    table = rows(page("explanation/kl"), "| modes $K$")
    assert [int(row[0]) for row in table] == [1, 2, 4, 16, 100]
    for modes, *cells in table:
        path = karhunen_loeve_process(COSINE, int(modes))
        kept = path.mode_table.square().sum(0).sqrt() / COSINE.sigmas
        correlation = path.noise_table[:, pair[0]] @ path.noise_table[:, pair[1]]
        assert cells == [*(f"{float(kept[i]):.3f}" for i in at), f"{float(correlation):.3f}"]


def test_the_input_scales_of_fdm() -> None:
    text = page("explanation/fdm")
    for name, *cells in rows(text, "| $\\sigma$ | EDM's"):
        sigma = torch.tensor([float(name)], dtype=torch.float64)
        base = (sigma.square() + 0.25).rsqrt()
        scales = [base, *(momentum_input_scale(sigma, multiplier=m) for m in (1.0, 2.0))]
        assert cells == [f"{float(scale):.3f}" for scale in scales]
    header = "| `squaredcos_cap_v2`, 100 steps, input scale"
    times = numbers_of(text, header)
    kinds = {"`fdm`": "natural", "`fdm_sigma`": "sigma", "`fdm_one`": "one"}
    table = {name: cells for name, *cells in rows(text, header)}
    assert list(table) == ["`baseline`", *kinds]
    assert table["`baseline`"] == [f"{float(COSINE.input_scales[t]):.3f}" for t in times]
    for name, kind in kinds.items():
        scales = momentum_process(COSINE, kind).input_scales
        assert table[name] == [f"{float(scales[t]):.3f}" for t in times]
    ratio = COSINE.sigmas / COSINE.alphas
    assert f"is {float(ratio[99]):,.0f} after {float(ratio[98]):.0f}" in sentences(text)
    assert f"up to {float(momentum_process(COSINE, 'sigma').input_scales.max()):.0f} times" in sentences(text)


def test_the_kernel_of_fdm() -> None:
    """s solves the oscillator, and the cap grows from 5 to 500 as the page writes it."""
    clock = torch.linspace(0, 4, 401, dtype=torch.float64)
    s, step = momentum_scale(clock), 0.01
    second, first = (s[2:] - 2 * s[1:-1] + s[:-2]) / step**2, (s[2:] - s[:-2]) / (2 * step)
    assert float((second + 2 * first + s[1:-1]).abs().max()) < 1e-4
    assert weight_cap(50, 200) == pytest.approx(5 * 100 ** (50 / 200))
    assert weight_cap(200, 200) is None
    assert f"B(\\tau) = {BETA_MIN}\\, \\tau + \\tfrac12\\, {BETA_RANGE}\\, \\tau^2" in page("explanation/fdm")


def test_the_curriculum() -> None:
    text = page("explanation/consistency")
    header = "| `squaredcos_cap_v2`, 100 steps, $T p_t$"
    times, positions = numbers_of(text, header), noise_matched_positions(COSINE.log_snr)
    table = rows(text, header)
    assert len(table) == 3
    for name, *cells in table:
        grown = CurriculumTimes(100, width=float(name.split()[-1]), positions=positions).probabilities(1.0)
        assert cells == [f"{100 * float(grown[t]):.3f}" for t in times]
    plain = CurriculumTimes(100)
    assert f"(u_t - {plain.center})^2}}{{2 \\cdot {plain.width}^2}}" in text
    hardest = int(CurriculumTimes(100, positions=positions).bump.argmax())
    assert f"puts the centre at time {hardest}." in sentences(text)
    linear, cosine = (float(of.log_snr[t].exp()) for of, t in ((vp_process("linear", 1000), 300), (COSINE, 30)))
    assert f"signal-to-noise ratio of {linear:.2f}." in sentences(text)
    assert f"time 30 has {cosine:.1f}:" in sentences(text)


def test_the_decay_of_the_momentum() -> None:
    text = page("explanation/consistency")
    header = "| $\\tau$ | 0 |"
    table = [cells for _, *cells in rows(text, header)]
    for place, progress in enumerate(numbers_of(text, header, kind=float)):
        beta, factor = momentum_decay(progress, 0.9)
        assert [row[place] for row in table] == [f"{beta:.3f}", f"{factor:.3f}"]
        assert factor == pytest.approx(1 - 0.9 * progress)


def largest_curvature(beta: float, lr: float) -> float:
    """Where gradient descent with the momentum m = beta m + (1 - beta) g begins to diverge."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        h = (low + high) / 2
        x = np.array([[1 - lr * (1 - beta) * h, -lr * beta], [(1 - beta) * h, beta]])
        low, high = (h, high) if np.abs(np.linalg.eigvals(x)).max() < 1 else (low, h)
    return low


def test_the_limits_of_momentum() -> None:
    text = sentences(page("explanation/consistency"))
    assert largest_curvature(0.9, 1.0) == pytest.approx(38, abs=1e-3)
    assert largest_curvature(0.0, 1.0) == pytest.approx(2, abs=1e-3)
    beta, factor = momentum_decay(1.0, 0.9)
    assert largest_curvature(beta, factor) == pytest.approx(20, abs=1e-3)
    assert "38 at $\\beta$ = 0.9, 2 at 0." in text
    assert "falls from 38 to 20." in text


def test_the_bias_correction() -> None:
    product, largest = 1.0, 0.0
    for step in range(1000):
        beta, _ = decay_at(step, 1000, 0.9)
        product *= beta
        largest = max(largest, abs((1 - product) / (1 - beta ** (step + 1)) - 1))
    assert f"the two differ by {100 * largest:.1f} % at most" in sentences(page("explanation/consistency"))
