from __future__ import annotations

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda
from torch import Tensor

from policy_accel.diffusion import Objective, Sampler, vp_process
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.models import MLPConfig
from policy_accel.models.encoders import EncoderConfig
from policy_accel.models.encoders.config import ResNetConfig
from policy_accel.policy.planner import Planner
from policy_accel.policy.policy import DiffusionPolicy, PolicyConfig
from policy_accel.robot.exporting.compiled import warm_up
from policy_accel.training import TrainingConfig

SAMPLERS = {
    name: Sampler(Objective(vp_process(), "sample"), SamplingConfig(name, steps=3)) for name in ("ddim", "ddpm")
}
PICTURE = (44, 44, 3)
CALLS = 5


def build(*, pictures: bool = False, conditioning: str = "global") -> DiffusionPolicy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = DiffusionPolicy(
            PolicyConfig(conditioning=conditioning),
            MLPConfig(hidden_dims=[16], step_embedding_dim=8),
            observation_dim=3,
            action_dim=2,
            images={"camera": PICTURE} if pictures else None,
            encoder=EncoderConfig(crop=None, resnet=ResNetConfig(width=16)),
        )
    return policy.eval().requires_grad_(False)


def inputs(policy: DiffusionPolicy, sampler: Sampler, call: int) -> tuple[Tensor | dict[str, Tensor], Tensor]:
    """Observations of the numbered call, and its noise; batches of two sizes take turns."""
    draws, batch = torch.Generator().manual_seed(call), 2 + call % 2
    state = torch.randn(batch, 2, 3, generator=draws)
    noise = torch.randn(batch, *policy.noise_shape(sampler), generator=draws)
    if not policy.images:
        return state, noise
    return {"state": state, "camera": torch.randint(0, 256, (batch, 2, *PICTURE), dtype=torch.uint8)}, noise


def moved(observations: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    if isinstance(observations, dict):
        return {name: tensor.to(CUDA) for name, tensor in observations.items()}
    return observations.to(CUDA)


def test_pictures_are_encoded_once_for_all_steps() -> None:
    sampler, policy, seen = SAMPLERS["ddim"], build(pictures=True), []
    assert policy.encoder is not None
    policy.encoder.register_forward_hook(lambda *_: seen.append("encoder"))
    policy.denoiser.register_forward_hook(lambda *_: seen.append("denoiser"))
    policy.plan(*inputs(policy, sampler, 0), sampler=sampler)
    assert seen == ["encoder", *["denoiser"] * 3]


@pytest.mark.parametrize(("name", "pictures"), [("ddim", False), ("ddpm", False), ("ddim", True)])
def test_captured_plans_are_those_of_the_policy_and_nothing_waits(name: str, pictures: bool) -> None:
    """Over more calls than are made before the capture, two shapes, and weights that change."""
    sampler, policy, twin = SAMPLERS[name], build(pictures=pictures), build(pictures=pictures)
    with SimulatedCuda() as cuda:
        planner = Planner(policy.to(CUDA), sampler, TrainingConfig())
        assert planner.captured
        for call in range(2 * CALLS):  # a shape is captured at its fourth call
            observations, noise = inputs(twin, sampler, call)
            expected = twin.plan(observations, noise, sampler=sampler)
            given = moved(observations)
            with cuda.phase(f"call {call}"):
                found = planner(given, noise)
            assert all("before a capture" in wait for wait in cuda.waits[f"call {call}"])
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
            for model in (policy, twin):
                next(model.denoiser.parameters()).mul_(0.9)
        assert sum(len(cuda.waits[f"call {call}"]) for call in range(2 * CALLS)) == 2


def test_a_captured_plan_may_start_from_the_one_before() -> None:
    sampler, policy, twin = SAMPLERS["ddim"], build(), build()
    with SimulatedCuda():
        planner = Planner(policy.to(CUDA), sampler, TrainingConfig())
        expected, found = None, None
        for call in range(0, 2 * CALLS, 2):
            observations, noise = inputs(twin, sampler, call)
            how = {} if expected is None else {"strength": 0.67}
            expected = twin.plan(observations, noise, sampler=sampler, start=expected, **how)
            found = planner(moved(observations), noise, start=found, **how)
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)


def test_after_the_warm_up_the_first_call_is_a_replay() -> None:
    sampler, policy, twin = SAMPLERS["ddim"], build(), build()
    with SimulatedCuda() as cuda:
        planner = Planner(policy.to(CUDA), sampler, TrainingConfig())
        warm_up(planner, 0.67, strict=True)
        start = None
        for call in range(2):  # from noise, and from the plan before
            observations, noise = inputs(twin, sampler, 0)
            assert not isinstance(observations, dict)
            window, how = observations[:1].double(), {} if start is None else {"strength": 0.67}
            expected = twin.plan(window, noise[:1], sampler=sampler, start=start, **how)
            given, begun = window.to(CUDA), None if start is None else start.to(CUDA)
            with cuda.phase(f"call {call}"):
                found = planner(given, noise[:1], start=begun, **how)
            assert not cuda.waits[f"call {call}"]
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
            start = expected


def test_what_is_not_captured() -> None:
    sampler = SAMPLERS["ddim"]
    assert not Planner(build(), sampler, TrainingConfig(capture="true")).captured
    observations, noise = inputs(build(), sampler, 0)
    expected = build().plan(observations, noise, sampler=sampler)
    assert torch.equal(Planner(build(), sampler, TrainingConfig())(observations, noise), expected)
    with SimulatedCuda():
        policy = build().to(CUDA)
        assert not Planner(policy, sampler, TrainingConfig(capture="false")).captured
        plan = Planner(policy, sampler, TrainingConfig(capture="false"))(moved(observations), noise)
        torch.testing.assert_close(plan.cpu(), expected)
        assert not Planner(build(conditioning="inpainting").to(CUDA), sampler, TrainingConfig()).captured
