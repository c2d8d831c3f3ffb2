from __future__ import annotations

import pytest
import torch

from policy_accel.diffusion import Objective, Sampler, vp_process
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.models import MLPConfig
from policy_accel.policy.committed import Committed
from policy_accel.policy.policy import DiffusionPolicy, PolicyConfig

SAMPLER = Sampler(Objective(vp_process(), "sample"), SamplingConfig(steps=3))
WEIGHTS = torch.tensor([[1.0, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
GIVEN = torch.full((2, 4, 2), 0.7)


@pytest.mark.parametrize("conditioning", ["global", "inpainting"])
@pytest.mark.parametrize("guided", [False, True])
def test_a_trajectory_is_painted_around_committed_actions(conditioning: str, guided: bool) -> None:
    """Beside what else is put into it; a row without weights is as it would be without."""
    torch.manual_seed(0)
    model = MLPConfig(name="mlp", hidden_dims=[16], step_embedding_dim=8)
    config = PolicyConfig(horizon=4, n_action_steps=2, conditioning=conditioning)
    policy = DiffusionPolicy(config, model, observation_dim=3, action_dim=2)
    noise, observed = torch.randn(2, *policy.noise_shape(SAMPLER)), torch.full((2, 2, 3), 0.3)
    free = policy.plan(observed, noise, sampler=SAMPLER)
    plan = policy.plan(observed, noise, sampler=SAMPLER, committed=Committed(GIVEN, WEIGHTS, guided))
    torch.testing.assert_close(plan[1], free[1])
    assert (plan[0] - free[0])[:, :2].abs().max() > 0.01
    if conditioning == "inpainting":
        torch.testing.assert_close(plan[:, :2, 2:], free[:, :2, 2:])
        torch.testing.assert_close(plan[:, :2, 2:], observed)
    if guided:
        assert not plan.requires_grad
    else:
        torch.testing.assert_close(plan[0, :2, :2], GIVEN[0, :2])
        assert (plan[0, 2, :2] - GIVEN[0, 2]).abs().min() > 1e-3
