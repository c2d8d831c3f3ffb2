"""The plots of the methods: what they draw follows the formulas of the papers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Script = Callable[[str], ModuleType]


@pytest.fixture
def drawn(script: Script) -> Callable[[str], Figure]:
    return lambda name: script(name).draw(script("style").SCHEMES["light"])


def lines(axes: Axes) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]


def alpha_bar() -> np.ndarray:
    """The squared cosine of Nichol and Dhariwal with its cap of 0.999 on beta, 100 times."""
    f = [math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(101)]
    return np.cumprod([1 - min(1 - after / before, 0.999) for before, after in itertools.pairwise(f)])


def test_curriculum_grows_from_uniform_to_its_bump(drawn: Callable[[str], Figure]) -> None:
    linear = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    own = alpha_bar()
    position = np.interp(np.log((1 - own) / own), np.log((1 - linear) / linear), np.arange(1000) / 1000)
    for axes, width in zip(drawn("curriculum").axes, (0.25, 0.5, 1.0), strict=True):
        bump = np.exp(-0.5 * ((position - 0.3) / width) ** 2)
        bump *= 100 / bump.sum()
        for progress, line in zip((0, 0.25, 0.5, 0.75, 1), lines(axes), strict=True):
            np.testing.assert_allclose(line, 1 - progress + progress * bump, rtol=1e-6)
        assert f"width {width:g}" in axes.get_title()


def test_fdm_kernel_is_critically_damped(drawn: Callable[[str], Figure]) -> None:
    left, right = drawn("fdm_kernel").axes
    own = alpha_bar()
    clock = -np.log(own)
    plain, fdm, sigma, one = lines(left)
    np.testing.assert_allclose(plain, np.sqrt(own), rtol=1e-9)
    np.testing.assert_allclose(fdm, (1 + clock) * np.exp(-clock), rtol=1e-9)
    np.testing.assert_allclose(one, 1.0, rtol=1e-9)
    assert sigma[-2] > 0.99
    assert sigma[-1] < 0.001  # as its label says
    for factor, size in zip(lines(left), lines(right), strict=True):
        np.testing.assert_allclose(size, factor / np.sqrt(own), rtol=1e-9)
    assert lines(right)[2][-1] == pytest.approx(1.0, abs=0.05)


def test_paths_are_cut_after_some_modes(script: Script, drawn: Callable[[str], Figure]) -> None:
    left, right = drawn("kl_paths").axes
    z = script("kl_paths").coefficients().numpy()
    time = np.arange(101)
    for modes, line in zip((1, 4, 16, 100), lines(left), strict=True):
        k = np.arange(1, modes + 1)[:, None]
        # modes of a random walk of T steps: sin(w i) / (sqrt(2T + 1) sin(w / 2)), w = (2k - 1) pi / (2T + 1)
        frequency = (2 * k - 1) * np.pi / 201
        walk = (z[:modes, None] * np.sin(frequency * time) / np.sin(frequency / 2) / np.sqrt(201)).sum(0) / 10
        np.testing.assert_allclose(line, walk, atol=1e-9)
    path, dots, _ = lines(right)
    table = script("kl_paths").process().noise_table.numpy()
    assert table.shape == (4, 100)
    np.testing.assert_allclose((table**2).sum(0), 1.0, rtol=1e-9)
    np.testing.assert_allclose(path, z[:4] @ table, atol=1e-9)
    np.testing.assert_allclose(dots, path[[10, 35, 60, 85]])


def test_assignment_shortens_the_lines_and_tells_the_kind(script: Script, drawn: Callable[[str], Figure]) -> None:
    module = script("noise_assignment")
    alone, whole, grouped = module.ways()

    def length(way: Any) -> float:
        return float((way.data - way.noise).square().sum())

    assert length(whole) < length(grouped) < length(alone)
    for kind in (0, 1):  # inside a kind the noise is that of before, in another order
        rows = torch.nonzero(alone.kind[: module.BATCH] == kind).flatten()
        before, after = (sorted(way.noise[rows].tolist()) for way in (alone, grouped))
        assert before == after
    assert whole.leak.score > 0.5
    assert whole.leak.p_value < 1e-6
    assert max(abs(way.leak.score) for way in (alone, grouped)) < 0.005
    for axes, way in zip(drawn("noise_assignment").axes, (alone, whole, grouped), strict=True):
        ends = {(*line.get_xdata(), *line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 2}
        pairs = zip(way.data[: module.BATCH].tolist(), way.noise[: module.BATCH].tolist(), strict=True)
        assert ends == {(x[0], n[0], x[1], n[1]) for x, n in pairs}
        assert axes.texts[0].get_text() == f"noise tells {100 * max(0.0, way.leak.score):.0f} % of the kind"
