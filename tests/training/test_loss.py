"""What an update minimises beside the error of the prediction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policy_accel.acceleration.build import build_objective
from policy_accel.acceleration.config import AccelerationConfig
from policy_accel.diffusion import Batch, Objective, vp_process
from policy_accel.diffusion.config import DiffusionConfig
from policy_accel.models import Denoiser
from policy_accel.training.loss import denoising_loss, denoising_loss_and_errors, predict, prediction_loss

BATCH = Batch(torch.linspace(-1.0, 1.0, 6 * 2 * 4 * 4).view(6, 2, 4, 4))


class Doubled(Denoiser):
    """Predicts half the input, and values of a variance where it learns one."""

    def __init__(self, values: float | None = None, told: bool = False) -> None:
        super().__init__()
        self.values, self.told = values, told

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return 0.5 * x if self.values is None else torch.cat([0.5 * x, torch.full_like(x, self.values)], dim=1)

    def uncertainty(self, t: Tensor) -> Tensor | None:
        return 0.01 * t.float() - 0.2 if self.told else None


def test_variance_is_learnt_beside_the_error_and_left_out_of_what_runs_are_compared_by() -> None:
    settings = DiffusionConfig(schedule="linear", timesteps=200, learn_sigma=True)
    objective = build_objective(settings, AccelerationConfig())
    noised = objective.draw(BATCH, torch.Generator(), torch.Generator())
    assert noised.variance is not None
    plain, model = prediction_loss(Doubled(), BATCH, noised), Doubled(0.3)
    torch.testing.assert_close(plain, (0.5 * noised.x_t - noised.target).square().mean())
    bits = noised.variance.bits(torch.full_like(noised.x_t, 0.3), 0.5 * noised.x_t, noised)
    torch.testing.assert_close(denoising_loss(model, BATCH, noised), plain + 200 / 1000 * bits.mean())
    torch.testing.assert_close(prediction_loss(model, BATCH, noised), plain, atol=0, rtol=0)
    assert torch.equal(predict(model, BATCH, noised), 0.5 * noised.x_t)
    # Pieces of a batch, each of which divides by the numbers of the whole, add up to it.
    parts = [slice(0, 2), slice(2, 6)]
    of = torch.tensor(float(BATCH.x0.numel()))
    shares = sum(denoising_loss(model, BATCH.rows(part), noised.of_samples(part), of) for part in parts)
    torch.testing.assert_close(shares, denoising_loss(model, BATCH, noised))


@pytest.mark.parametrize("weighted", [False, True])
def test_uncertainty_weighs_the_error_of_each_row_and_costs_its_logarithm(weighted: bool) -> None:
    weights = torch.linspace(0.5, 2.0, 100, dtype=torch.float64) if weighted else None
    objective = Objective(vp_process(), weights=weights)
    noised = objective.draw(BATCH, torch.Generator(), torch.Generator())
    errors = (0.5 * noised.x_t - noised.target).square().mean((1, 2, 3))
    log_variance = 0.01 * noised.t - 0.2
    weighed = errors if weights is None else errors * weights[noised.t].float()
    expected = (weighed / log_variance.exp() + log_variance).mean()
    model = Doubled(told=True)
    loss, found = denoising_loss_and_errors(model, BATCH, noised)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, errors)
    torch.testing.assert_close(prediction_loss(model, BATCH, noised), weighed.mean())
    compiled = torch.compile(denoising_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(model, BATCH, noised), expected)
    halves = [slice(0, 3), slice(3, 6)]
    of = torch.tensor(float(BATCH.x0.numel()))
    shares = sum(denoising_loss(model, BATCH.rows(part), noised.of_samples(part), of) for part in halves)
    torch.testing.assert_close(shares, expected)
