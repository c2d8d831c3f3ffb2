"""What an objective makes of clean samples, by the formulas, entry by entry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policy_accel.acceleration.assigned_noise import AssignedNoise
from policy_accel.acceleration.noise_choices import cost_mask
from policy_accel.diffusion import Batch, FlowProcess, Objective, Process, vp_process
from policy_accel.diffusion.batch import repeat_rows
from policy_accel.diffusion.objective import make_noised, squared_errors

X0, NOISE = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([[0.3, 0.7], [-1.1, 0.2]])


DISCRETE, CONTINUOUS = torch.tensor([20, 90]), torch.tensor([0.25, 0.75], dtype=torch.float64)


@pytest.mark.parametrize(
    ("process", "t", "target"),
    [
        (vp_process(), DISCRETE, "epsilon"),
        (vp_process(), DISCRETE, "sample"),
        (vp_process(), DISCRETE, "v"),
        (FlowProcess(), CONTINUOUS, "flow"),
    ],
)
def test_targets_and_given_entries(process: Process, t: Tensor, target: str) -> None:
    known = torch.tensor([[True, False]])
    at = process.coefficients(t)
    alpha, sigma = at.alpha[:, None].float(), at.sigma[:, None].float()
    expected = {"epsilon": NOISE, "sample": X0, "v": alpha * NOISE - sigma * X0, "flow": NOISE - X0}[target]
    noised = make_noised(process, X0, NOISE, t, target, known)
    torch.testing.assert_close(noised.target, expected)
    torch.testing.assert_close(noised.x_t[:, 1], (alpha * X0 + sigma * NOISE)[:, 1])
    assert torch.equal(noised.x_t[:, 0], X0[:, 0])
    assert torch.equal(noised.model_input[:, 0], X0[:, 0])


def test_the_cap_weighs_the_loss_until_it_is_gone() -> None:
    process = vp_process()
    capped = Objective(process, "epsilon", cap_warmup=10)
    for step, cap in ((0, 5.0), (5, 50.0), (10, None)):
        noised = capped.draw(Batch(torch.zeros(64, 2)), torch.Generator(), torch.Generator(), step=step)
        expected = process.loss_weight(noised.t, "epsilon", cap)
        assert (noised.weight is None) == (expected is None)
        if expected is not None and noised.weight is not None:
            torch.testing.assert_close(noised.weight, expected)


def test_the_scale_of_the_data_is_that_of_their_center_too() -> None:
    noise = AssignedNoise(metric="dot", center="ridge")
    objective = Objective(vp_process(), "sample", noise=noise, data_scale=2.0)
    objective.draw(Batch(X0, center=NOISE), torch.Generator(), torch.Generator())
    assert noise.last is not None
    torch.testing.assert_close(noise.last.data, 2.0 * (X0 - NOISE))


def test_errors_of_a_row_run_over_its_counted_entries() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    assert squared_errors(X0, NOISE, mask).tolist() == pytest.approx([0.7**2, 0.0])
    assert squared_errors(X0, NOISE).tolist() == pytest.approx([(0.7**2 + 2.7**2) / 2, (1.6**2 + 2.8**2) / 2])


def test_a_sample_is_repeated_row_after_row_with_what_belongs_to_it() -> None:
    counted, known = torch.tensor([[True, False], [True, True]]), torch.tensor([[False, True]])
    batch = repeat_rows(Batch(X0, counted=counted, known=known, groups=torch.tensor([4, 7]), center=NOISE), 2)
    assert torch.equal(batch.x0, X0[[0, 0, 1, 1]])
    assert batch.counted is not None
    assert torch.equal(batch.counted, counted[[0, 0, 1, 1]])
    assert batch.groups is not None
    assert batch.groups.tolist() == [4, 4, 7, 7]
    assert batch.center is not None
    assert torch.equal(batch.center, NOISE[[0, 0, 1, 1]])
    assert batch.known is known


def test_what_is_given_or_not_counted_has_no_part_in_the_cost() -> None:
    counted, known = torch.tensor([[True, True], [False, True]]), torch.tensor([[False, True]])
    both = cost_mask(Batch(X0, counted=counted, known=known))
    assert both is not None
    assert both.tolist() == [[True, False], [False, False]]
    assert cost_mask(Batch(X0, counted=counted)) is counted
    assert cost_mask(Batch(X0)) is None
