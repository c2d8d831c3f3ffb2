from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from policy_accel.diffusion import vp_process


@pytest.mark.parametrize("shape", [(6, 16, 2), (6, 3, 8, 8)])
def test_diffuse_equals_diffusers(shape: tuple[int, ...]) -> None:
    process = vp_process("squaredcos_cap_v2", 100)
    scheduler = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    x0, noise = torch.randn(shape), torch.randn(shape)
    t = torch.tensor([0, 1, 30, 62, 98, 99])
    torch.testing.assert_close(process.diffuse(x0, noise, t), scheduler.add_noise(x0, noise, t), rtol=1e-5, atol=2e-6)


def test_variance_is_preserved_and_noise_grows() -> None:
    process = vp_process("linear", 1000)
    torch.testing.assert_close(process.alphas**2 + process.sigmas**2, torch.ones(1000, dtype=torch.float64))
    assert bool((process.log_snr.diff() < 0).all())
    assert process.timesteps == 1000
    assert process.input_scales.unique().tolist() == [1.0]


def test_coefficients_are_not_computed_in_bf16() -> None:
    process = vp_process("squaredcos_cap_v2", 100)
    x0, noise, t = torch.zeros(1, 1).bfloat16(), torch.ones(1, 1).bfloat16(), torch.tensor([50])
    expected = process.sigmas[50].to(torch.bfloat16)
    assert process.diffuse(x0, noise, t)[0, 0] == expected
