from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from policy_accel.acceleration.loss_weights import loss_weights
from policy_accel.diffusion import vp_process

COSINE, LINEAR = ("squaredcos_cap_v2", 100), ("linear", 1000)
COLUMNS = {COSINE: [0, 10, 25, 50, 75, 90, 99], LINEAR: [0, 100, 250, 500, 750, 900, 999]}
ROWS = [
    ("min_snr", "epsilon", COSINE, [0.003158, 0.172146, 0.983577, 1, 1, 1, 1]),
    ("min_snr", "epsilon", LINEAR, [0.000500, 0.585709, 1, 1, 1, 1, 1]),
    ("min_snr", "v", COSINE, [0.003156, 0.166416, 0.821897, 0.478265, 0.133495, 0.019544, 0]),
    ("min_snr", "v", LINEAR, [0.000500, 0.524292, 0.521423, 0.077797, 0.003300, 0.000270, 0.000040]),
    ("min_snr", "sample", COSINE, [5, 5, 5, 0.916680, 0.154061, 0.019934, 0]),
    ("min_snr", "sample", LINEAR, [5, 5, 1.089528, 0.084360, 0.003311, 0.000270, 0.000040]),
    ("p2", "epsilon", COSINE, [0.000631, 0.033283, 0.164379, 0.521735, 0.866505, 0.980456, 1]),
    ("p2", "epsilon", LINEAR, [0.000100, 0.104858, 0.478577, 0.922203, 0.996700, 0.999730, 0.999960]),
]


def weights_of(name: str, log_snr: Tensor, target: str) -> Tensor:
    weights = loss_weights(name, log_snr, target)
    assert weights is not None
    return weights


@pytest.mark.parametrize(("name", "target", "schedule", "row"), ROWS)
def test_published_weights(name: str, target: str, schedule: tuple[str, int], row: list[float]) -> None:
    weights = weights_of(name, vp_process(*schedule).log_snr, target)
    assert weights.dtype == torch.float64
    assert weights[COLUMNS[schedule]].tolist() == pytest.approx(row, abs=1e-6)


@pytest.mark.parametrize("target", ["epsilon", "v", "sample"])
def test_min_snr_against_the_diffusers_recipe(target: str) -> None:
    scheduler = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    snr = compute_snr(scheduler, torch.arange(100)).double()
    capped = torch.stack([snr, 5.0 * torch.ones_like(snr)], dim=1).min(dim=1)[0]
    expected = {"epsilon": capped / snr, "v": capped / (snr + 1), "sample": capped}[target]
    weights = weights_of("min_snr", vp_process("squaredcos_cap_v2", 100).log_snr, target)
    # diffusers' tables are float32; near the noisy end 1 - alpha_bar keeps few digits of alpha_bar.
    torch.testing.assert_close(weights, expected, rtol=2e-3, atol=1e-6)


def test_min_snr_forms_weigh_the_same_error() -> None:
    """An error d of x_0 is d * alpha / sigma of epsilon and d / sigma of v."""
    process = vp_process("squaredcos_cap_v2", 100)
    forms = {target: weights_of("min_snr", process.log_snr, target) for target in ("epsilon", "v", "sample")}
    snr = (process.alphas / process.sigmas).square()
    torch.testing.assert_close(forms["epsilon"] * snr, forms["sample"], rtol=1e-9, atol=0)
    torch.testing.assert_close(forms["v"] / process.sigmas.square(), forms["sample"], rtol=1e-9, atol=0)
    assert torch.equal(forms["epsilon"], weights_of("min_snr", process.log_snr, "negative_epsilon"))


@pytest.mark.parametrize("schedule", [COSINE, LINEAR])
def test_speed(schedule: tuple[str, int]) -> None:
    process = vp_process(*schedule)
    slope = np.gradient(1.0 - process.alphas.square().numpy())
    expected = 0.4 + 0.2 * (slope - slope.min()) / (slope.max() - slope.min())
    weights = weights_of("speed", process.log_snr, "epsilon")
    tau = process.timesteps * 7 // 10
    np.testing.assert_allclose(weights[:tau].numpy(), expected[:tau], rtol=1e-8)
    assert weights[tau:].unique().tolist() == [1.0]
    assert float(weights[:tau].min()) >= 0.4
    # The noise of both schedules grows fastest before 0.7 T, so the largest of the range is reached.
    assert float(weights[:tau].max()) == pytest.approx(0.6, abs=1e-12)


def test_p2_and_speed_multiply_the_error_of_any_target() -> None:
    log_snr = vp_process().log_snr
    for name in ("p2", "speed"):
        assert torch.equal(weights_of(name, log_snr, "epsilon"), weights_of(name, log_snr, "sample"))


def test_none_is_no_weight() -> None:
    assert loss_weights("none", vp_process().log_snr, "epsilon") is None


def test_errors() -> None:
    log_snr = vp_process().log_snr
    with pytest.raises(ValueError, match=r"^weight 'min-snr' is unknown; did you mean 'min_snr'"):
        loss_weights("min-snr", log_snr, "epsilon")
    with pytest.raises(ValueError, match=r"^target=flow has no min_snr weight"):
        loss_weights("min_snr", log_snr, "flow")
