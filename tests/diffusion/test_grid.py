from __future__ import annotations

import pytest
from diffusers import DDIMScheduler

from policy_accel.diffusion.grid import timestep_grid


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 10, 16, 50, 99, 100])
def test_grids_equal_diffusers(spacing: str, steps: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=100, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    expected = scheduler.timesteps.tolist()
    if spacing == "linspace" and steps == 1:
        expected = [99]  # diffusers evaluates once at t = 0, where the input is nearly clean
    grid = timestep_grid(100, steps, spacing)
    assert list(grid.timesteps) == expected
    assert list(grid.next_timesteps) == [*expected[1:], -1]


@pytest.mark.parametrize(
    ("steps", "spacing", "sentence"),
    [(0, "leading", "steps=0"), (101, "leading", "steps=101"), (4, "trailling", "did you mean 'trailing'")],
)
def test_impossible_grids(steps: int, spacing: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        timestep_grid(100, steps, spacing)
