"""What every scheduler's loop bears: half precision, steps out of order, a device that is read once, no diffusers."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from support.schedulers import KL_KINDS, MOMENTUM_KINDS, SHAPE, SIGMA_KINDS, T, diffusers_loop, discrete, network
from support.tensors import normal
from torch import Tensor

from policy_accel.diffusion import SigmaProcess, heun, scheduler_base, timestep_grid
from policy_accel.diffusion.predictions import predicted_sample
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import Predictor
from policy_accel.diffusion.schedulers import KarhunenLoeveScheduler, MomentumEDMScheduler, MomentumScheduler
from policy_accel.extras import to_install

hub: Any = diffusers  # typed as placeholders that know no method


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [*KL_KINDS, *MOMENTUM_KINDS, *SIGMA_KINDS])
def test_half_precision_is_rounded_once(options: dict[str, Any], dtype: torch.dtype) -> None:
    """Each result is the float64 one, rounded: within half a unit in the last place of the half format."""
    half_unit = torch.finfo(dtype).eps / 2

    def check(result: Tensor, exact: Tensor) -> None:
        assert result.dtype == dtype
        slack = 1e-6 * 100  # float32 arithmetic on intermediate values of up to 100
        error = (result.double() - exact).abs()
        assert bool((error <= 1.01 * half_unit * exact.abs() + slack).all())

    def make() -> Any:
        return MomentumEDMScheduler(**options) if "family" in options else discrete(options, clip_sample=False)[0]

    low, exact = make(), make()
    for one in (low, exact):
        one.set_timesteps(5)
    x0, noise = normal(*SHAPE, seed=1).to(dtype), normal(*SHAPE, seed=2).to(dtype)
    for t in low.timesteps[2:]:
        x, batch = low.add_noise(x0, noise, t[None]), t.expand(len(x0))
        check(x, exact.add_noise(x0.double(), noise.double(), t[None]))
        check(low.scale_model_input(x, batch), exact.scale_model_input(x.double(), batch))
    for one in (low, exact):
        one.set_timesteps(5)
    x = (low.init_noise_sigma * normal(*SHAPE, seed=3)).to(dtype)
    for t in low.timesteps:
        scaled = low.scale_model_input(x, t)
        check(scaled, exact.scale_model_input(x.double(), t))
        prediction = network(scaled.float(), t).to(dtype)
        here = low.step(prediction, t, x)
        there = exact.step(prediction.double(), t, x.double())
        check(here.prev_sample, there.prev_sample)
        check(here.pred_original_sample, there.pred_original_sample)
        x = here.prev_sample


def test_the_prediction_may_be_coarser_than_the_sample() -> None:
    scheduler, process = discrete({"modes": 4}, clip_sample=False)
    scheduler.set_timesteps(5)
    t = scheduler.timesteps[0]
    x, prediction = normal(*SHAPE), normal(*SHAPE, seed=1).bfloat16()
    output = scheduler.step(prediction, t, x)
    expected = predicted_sample(prediction.float(), x, process.level(int(t)), "epsilon")
    assert output.prev_sample.dtype == torch.float32
    assert torch.equal(output.pred_original_sample, expected)
    pair = scheduler.step(prediction, t, x, return_dict=False)
    assert isinstance(pair, tuple)
    assert torch.equal(pair[0], output.prev_sample)


class OnDevice(torch.Tensor):
    """A timestep that says it is on another device and counts how often it is read."""

    reads = 0

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")

    def item(self) -> Any:
        OnDevice.reads += 1
        return super().item()

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in ("eq", "__eq__", "__bool__", "__float__", "__int__", "__index__", "tolist"):
            raise AssertionError(f"{name} waits for the device")
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("begin", [None, 0])
@pytest.mark.parametrize("make", [lambda: MomentumScheduler(T), lambda: MomentumEDMScheduler()])
def test_a_loop_reads_the_device_once(make: Callable[[], Any], begin: int | None) -> None:
    scheduler = make()
    scheduler.set_timesteps(4)
    x = scheduler.init_noise_sigma * normal(*SHAPE)
    expected = diffusers_loop(copy.deepcopy(scheduler), x)
    if begin is not None:
        scheduler.set_begin_index(begin)
    OnDevice.reads = 0
    for value in scheduler.timesteps:
        t = value.clone().as_subclass(OnDevice)
        prediction = network(scheduler.scale_model_input(x, t), value)
        x = scheduler.step(prediction, t, x).prev_sample
    assert OnDevice.reads == (1 if begin is None else 0)
    assert torch.equal(x, expected)
    assert scheduler.step_index is None


def test_timesteps_may_come_out_of_order_and_loops_be_repeated() -> None:
    scheduler, process = discrete({"modes": 4})
    scheduler.set_timesteps(5)
    x = normal(*SHAPE)
    first = diffusers_loop(scheduler, x)
    assert torch.equal(diffusers_loop(scheduler, x), first)
    grid = timestep_grid(T, 5, "leading")
    late = int(grid.timesteps[3])
    level, to = process.level(late), process.level(grid.next_timesteps[3])
    assert isinstance(level, Level)
    x0 = predicted_sample(network(x, late), x, level, "epsilon").clamp(-1, 1)
    expected = to.alpha * x0 + to.sigma * network(x, late)
    torch.testing.assert_close(scheduler.step(network(x, late), late, x).prev_sample, expected)
    assert torch.equal(diffusers_loop(scheduler, x), first)


def test_a_heun_loop_may_start_midway() -> None:
    """As image-to-image pipelines do: from timesteps[order * k], with and without set_begin_index."""
    scheduler = MomentumEDMScheduler(family="vp", multiplier=2.0)
    process = SigmaProcess("vp", "momentum", 2.0)
    grid = process.grid(6)
    rest = type(grid)(grid.timesteps[2:], grid.next_timesteps[2:])
    x = grid.timesteps[2] * normal(*SHAPE)
    expected = heun(Predictor(network, target="epsilon", clip=None), x, process, rest)
    for begin in (None, 4):
        scheduler.set_timesteps(6)
        if begin is not None:
            scheduler.set_begin_index(begin)
        assert scheduler.begin_index == begin
        moved = x
        for t in scheduler.timesteps[4:]:
            moved = scheduler.step(network(scheduler.scale_model_input(moved, t), t), t, moved).prev_sample
        torch.testing.assert_close(moved, expected, rtol=2e-5, atol=1e-4)


def test_the_constructors_timesteps_are_those_of_training() -> None:
    assert discrete({"modes": 4})[0].timesteps.tolist() == list(range(T - 1, -1, -1))
    scheduler = MomentumEDMScheduler(num_train_timesteps=11)
    torch.testing.assert_close(scheduler.timesteps, hub.EDMEulerScheduler(num_train_timesteps=10).timesteps)


@pytest.mark.parametrize("make", [KarhunenLoeveScheduler, MomentumEDMScheduler])
def test_the_config_may_be_changed_afterwards(make: Callable[..., Any]) -> None:
    """As pipelines and training scripts of diffusers do."""
    changes = {"prediction_type": "v_prediction", "clip_sample": True, "clip_sample_range": 0.3}
    changed, made = make(clip_sample=False), make(**changes)
    changed.register_to_config(**changes)
    for one in (changed, made):
        one.set_timesteps(np.int64(3))
    x = made.init_noise_sigma * normal(*SHAPE)
    assert torch.equal(diffusers_loop(changed, x), diffusers_loop(made, x))
    changed.register_to_config(prediction_type="v")
    with pytest.raises(ValueError, match="prediction_type 'v' is unknown"):
        changed.step(x, changed.timesteps[0], x)


def import_again() -> None:
    specification = importlib.util.spec_from_file_location("scheduler_base_again", scheduler_base.__file__)
    assert specification is not None
    assert specification.loader is not None
    specification.loader.exec_module(importlib.util.module_from_spec(specification))


def test_without_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers.configuration_utils", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        import_again()
    assert str(caught.value) == f"policy_accel.diffusion.schedulers needs diffusers; {to_install('diffusers')}"


def test_a_broken_diffusers_says_so_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "diffusers.configuration_utils")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match="huggingface_hub"):
        import_again()
