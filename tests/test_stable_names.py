"""Functions that other people's code calls: they keep their names, their arguments and what they give."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from policy_accel import acceleration, diffusion, evaluation
from policy_accel.acceleration import DemonDecay, LinearDecay, momentum_decay, timestep_probabilities


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (diffusion.vp_process, "schedule timesteps beta_start beta_end"),
        (diffusion.karhunen_loeve_process, "base modes marginal"),
        (diffusion.momentum_process, "base kind strength"),
        (diffusion.momentum_input_scale, "sigma family multiplier"),
        (acceleration.assign_noise, "data noise metric block_size groups mask"),
        (acceleration.nearest_noise, "data candidates metric generator"),
        (acceleration.timestep_probabilities, "progress timesteps center width start end strength positions"),
        (acceleration.momentum_decay, "progress beta_0 law compensate"),
        (evaluation.wilson_interval, "successes trials confidence"),
    ],
)
def test_arguments(function: Callable[..., Any], arguments: str) -> None:
    names = list(inspect.signature(function).parameters)
    assert [name for name in names if name in arguments.split()] == arguments.split()


def test_tables_of_a_process() -> None:
    base = diffusion.vp_process()
    path = diffusion.karhunen_loeve_process(base, 4)
    for process in (base, path):
        assert process.timesteps == 100
        for table in (process.alphas, process.sigmas, process.log_snr, process.input_scales):
            assert table.shape == (100,)
            assert table.dtype == torch.float64
    assert path.mode_table.shape == path.noise_table.shape == (4, 100)
    epsilon = path.draw_path_noise((3, 5), torch.zeros(3, 2, dtype=torch.int64), torch.Generator().manual_seed(0))
    assert epsilon.shape == (3, 2, 5)


def test_an_assignment() -> None:
    data, noise = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    found = acceleration.assign_noise(data, noise)
    assert torch.equal(found.noise, noise[found.permutation])
    assert found.statistics.distance_after <= found.statistics.distance_before


def test_the_curriculum_as_a_function() -> None:
    """(1 - g) / T + g q_t with g = 0.5 half-way: the values of Gaussian weights at t / T, by hand."""
    position = torch.arange(10, dtype=torch.float64) / 10
    bump = torch.exp(-0.5 * ((position - 0.4) / 0.2) ** 2)
    expected = 0.5 / 10 + 0.5 * bump / bump.sum()
    torch.testing.assert_close(timestep_probabilities(0.5, 10, center=0.4, width=0.2), expected, rtol=1e-12, atol=0)
    moved = timestep_probabilities(0.5, 10, center=0.4, width=0.2, positions=position.flip(0))
    torch.testing.assert_close(moved, expected.flip(0), rtol=1e-12, atol=0)


def test_momentum_decay_as_a_function() -> None:
    assert momentum_decay(0.5, 0.9) == DemonDecay().at(0.5, 0.9, 0)
    assert momentum_decay(0.5, 0.9)[0] == pytest.approx(0.45 / 0.55)
    assert momentum_decay(0.5, 0.9, law="linear", beta_end=0.3) == LinearDecay(beta_end=0.3).at(0.5, 0.9, 0)
    assert momentum_decay(0.5, 0.9, compensate=False)[1] == 1.0
    assert momentum_decay(0.5, 0.9, law="exponential", rate=0.99, step=3)[0] == pytest.approx(0.9 * 0.99**3)
    with pytest.raises(ValueError, match=r"^law 'cosine' is unknown"):
        momentum_decay(0.5, 0.9, law="cosine")
