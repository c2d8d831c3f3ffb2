from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from policy_accel.diffusion import alpha_bar_table


@pytest.mark.parametrize(
    ("schedule", "timesteps"), [("linear", 1000), ("scaled_linear", 1000), ("squaredcos_cap_v2", 100), ("linear", 100)]
)
def test_equals_diffusers_to_float32(schedule: str, timesteps: int) -> None:
    reference = DDPMScheduler(num_train_timesteps=timesteps, beta_schedule=schedule).alphas_cumprod
    table = alpha_bar_table(schedule, timesteps)
    assert table.dtype == torch.float64
    np.testing.assert_allclose(table.numpy(), reference.numpy(), rtol=2e-5)


def test_linear_is_the_product_by_hand() -> None:
    beta = [0.1, 0.2, 0.3]
    expected = [0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7]
    np.testing.assert_allclose(alpha_bar_table("linear", 3, beta_start=0.1, beta_end=0.3), expected, rtol=1e-12)
    assert beta[-1] == 0.3


def test_cosine_follows_its_closed_form_until_the_cap() -> None:
    def curve(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    table = alpha_bar_table("squaredcos_cap_v2", 100)
    assert float(table[49]) == pytest.approx(curve(0.5) / curve(0.0), rel=1e-12)
    assert float(table[99] / table[98]) == pytest.approx(0.001, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("linaer", 10), "^schedule 'linaer' is unknown; did you mean 'linear'"),
        (("linear", 0), "^timesteps=0 must be at least 1"),
    ],
)
def test_errors(arguments: tuple[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        alpha_bar_table(*arguments)


def test_betas_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^beta_start=0\.5 and beta_end=0\.02"):
        alpha_bar_table("linear", 10, beta_start=0.5)
