from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from support.tensors import normal
from torch import Tensor

from policy_accel.diffusion import SigmaProcess, euler
from policy_accel.diffusion.grid import Grid
from policy_accel.diffusion.samplers import Predictor
from policy_accel.diffusion.schedulers import MomentumEDMScheduler

hub: Any = diffusers  # typed as placeholders that know no method
SHAPE = (3, 2, 4, 4)


def network(x: Tensor, t: Any) -> Tensor:
    times = torch.as_tensor(t).float().reshape(-1, *([1] * (x.ndim - 1)))
    return torch.tanh(0.7 * x + 0.3 * x.roll(1, dims=1) + torch.sin(times))


def loop(scheduler: Any, start: float = 80.0) -> Tensor:
    x = start * normal(*SHAPE)
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    return x


@pytest.mark.parametrize("prediction_type", ["edm", "v_prediction"])
@pytest.mark.parametrize("same", [{}, {"sigma_min": 0.01, "sigma_max": 40.0, "rho": 5.0, "sigma_data": 0.8}])
def test_equals_diffusers_edm_euler(prediction_type: str, same: dict[str, float]) -> None:
    """Their epsilon is what EDM's network predicts; v_prediction is its negative in both."""
    theirs_predict = prediction_type if prediction_type == "v_prediction" else "epsilon"
    ours = MomentumEDMScheduler(input_scale="base", solver="euler", prediction_type=prediction_type, **same)
    theirs = hub.EDMEulerScheduler(prediction_type=theirs_predict, **same)
    for one in (ours, theirs):
        one.set_timesteps(8)
    torch.testing.assert_close(ours.sigmas.float(), theirs.sigmas)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps)
    start = same.get("sigma_max", 80.0)
    torch.testing.assert_close(loop(ours, start), loop(theirs, start), rtol=1e-4, atol=1e-4)


def test_the_target_of_v_prediction_is_what_step_undoes() -> None:
    scheduler = MomentumEDMScheduler(solver="euler", prediction_type="v_prediction")
    scheduler.set_timesteps(4)
    x0, noise = 0.5 * normal(*SHAPE, seed=1), normal(*SHAPE, seed=2)
    t = scheduler.timesteps[1]
    x = scheduler.add_noise(x0, noise, t[None])
    scheduler.scale_model_input(x, t)
    output = scheduler.step(scheduler.get_target(x0, noise, t[None]), t, x)
    torch.testing.assert_close(output.pred_original_sample, x0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_sigmas_and_timesteps_of_ones_own(solver: str) -> None:
    scheduler = MomentumEDMScheduler("vp", "base", solver=solver)
    scheduler.set_timesteps(5)
    usual = loop(scheduler)
    sigmas = scheduler.process.grid(5).timesteps
    for given in ({"sigmas": [*sigmas, 0.0]}, {"sigmas": torch.tensor(sigmas, dtype=torch.float64)}):
        scheduler.set_timesteps(**given)
        assert scheduler.num_inference_steps == 5
        torch.testing.assert_close(loop(scheduler), usual, rtol=1e-5, atol=1e-4)
    told = scheduler.timesteps.unique().flip(0)
    scheduler.set_timesteps(timesteps=told)
    torch.testing.assert_close(scheduler.timesteps.unique().flip(0), told)
    torch.testing.assert_close(loop(scheduler), usual, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("solver", ["heun", "euler"])
@pytest.mark.parametrize("family", ["edm", "vp", "ve"])
def test_a_time_off_the_grid_takes_a_step_of_euler_onto_it(family: str, solver: str) -> None:
    scheduler, process = MomentumEDMScheduler(family, solver=solver), SigmaProcess(family, "momentum")
    scheduler.set_timesteps(4)
    grid = process.grid(4).timesteps
    sigma = 0.6 * grid[1] + 0.4 * grid[2]
    x, t = sigma * normal(*SHAPE), process.level(sigma).time
    predict = Predictor(network, process.targets[0], None)
    expected = euler(predict, x, process, Grid((sigma,), (grid[2],)))
    moved = scheduler.step(network(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)
    assert scheduler.step_index is None
    # The time of the grid itself, before it was rounded.
    scheduler.scale_model_input(x, process.level(grid[1]).time)
    assert scheduler.step_index == (2 if solver == "heun" else 1)


def test_no_noise_leaves_nothing_to_do() -> None:
    scheduler = MomentumEDMScheduler("vp")
    x = normal(*SHAPE)
    output = scheduler.step(x, 0, scheduler.scale_model_input(x, 0))
    assert torch.equal(output.prev_sample, x)
    for time in (2000.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="stands for sigma="):
            scheduler.step(x, time, x)


def test_before_set_timesteps_steps_of_euler_lead_through_those_of_training() -> None:
    fresh, whole = (MomentumEDMScheduler(num_train_timesteps=9, solver=solver) for solver in ("heun", "euler"))
    whole.set_timesteps(9)
    assert torch.equal(
        fresh.scale_model_input(torch.ones(2), fresh.timesteps[4]),
        whole.scale_model_input(torch.ones(2), fresh.timesteps[4].expand(2)),
    )
    assert torch.equal(loop(fresh), loop(whole))


def test_samples_are_bounded_by_their_quantile() -> None:
    scheduler = MomentumEDMScheduler(thresholding=True, dynamic_thresholding_ratio=0.5, sample_max_value=3.0)
    scheduler.set_timesteps(3)
    t = scheduler.timesteps[1]
    x, output = 4.0 * normal(*SHAPE), 8.0 * normal(*SHAPE, seed=1)
    scheduler.scale_model_input(x, t)
    plain = MomentumEDMScheduler()
    plain.set_timesteps(3)
    plain.scale_model_input(x, t)
    x0 = plain.step(output, t, x).pred_original_sample
    bounded = scheduler.step(output, t, x).pred_original_sample
    assert bool((x0.flatten(1).abs().median(dim=1).values > 1.0).all())
    s = torch.quantile(x0.flatten(1).abs(), 0.5, dim=1).clamp(1.0, 3.0).view(-1, 1, 1, 1)
    torch.testing.assert_close(bounded, x0.clamp(-s, s) / s)
    assert float(bounded.abs().max()) <= 1.0
