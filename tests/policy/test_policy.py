from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policy_accel.diffusion import Objective, Sampler, vp_process
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.errors import UserError
from policy_accel.models import Denoiser, MLPConfig
from policy_accel.policy.normalization import fit_normalizer
from policy_accel.policy.policy import DiffusionPolicy, PolicyConfig

OBJECTIVE = Objective(vp_process(), "sample")
MODEL = MLPConfig(name="mlp", hidden_dims=[16], step_embedding_dim=8)


def build(config: PolicyConfig) -> DiffusionPolicy:
    policy = DiffusionPolicy(config, MODEL, observation_dim=3, action_dim=2)
    policy.action_normalizer = fit_normalizer(torch.tensor([[0.0, 100.0], [512.0, 300.0]]))
    policy.observation_normalizer = fit_normalizer(torch.tensor([[0.0, 0.0, 0.0], [2.0, 4.0, 8.0]]))
    return policy


def predict(policy: DiffusionPolicy, sampling: SamplingConfig) -> Tensor:
    sampler = Sampler(OBJECTIVE, sampling)
    noise = torch.randn(4, *policy.noise_shape(sampler), generator=torch.Generator().manual_seed(0))
    observations = torch.ones(4, policy.config.n_obs_steps, 3)
    return policy.predict(observations, noise, sampler=sampler)


class Ramp(Denoiser):
    """Predicts the step's own number, so that it shows which part of the trajectory is executed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.seen.append((x.clone(), condition))
        return (torch.arange(x.shape[1]) / 100).view(1, -1, 1).expand_as(x)


@pytest.mark.parametrize(("n_obs", "n_action"), [(2, 8), (1, 16), (3, 14)])
def test_executed_actions_start_at_the_newest_observation(n_obs: int, n_action: int) -> None:
    policy = build(PolicyConfig(n_obs_steps=n_obs, n_action_steps=n_action))
    policy.denoiser = Ramp()
    actions = predict(policy, SamplingConfig(steps=2))
    steps = torch.arange(n_obs - 1, n_obs - 1 + n_action) / 100
    expected = torch.stack([256 + 256 * steps, 200 + 100 * steps], dim=1)
    assert actions.shape == (4, n_action, 2)
    torch.testing.assert_close(actions[1], expected, rtol=1e-5, atol=1e-3)


def test_global_condition_is_the_normalised_observation() -> None:
    policy = build(PolicyConfig())
    policy.denoiser = ramp = Ramp()
    predict(policy, SamplingConfig(steps=3))
    assert len(ramp.seen) == 3
    condition = ramp.seen[0][1]
    assert condition is not None
    torch.testing.assert_close(condition, torch.tensor([0.0, -0.5, -0.75]).expand(4, 2, 3))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver++"])
def test_inpainting_puts_the_observations_into_the_trajectory(sampler: str) -> None:
    policy = build(PolicyConfig(conditioning="inpainting"))
    policy.denoiser = ramp = Ramp()
    actions = predict(policy, SamplingConfig(sampler=sampler, steps=3))
    assert actions.shape == (4, 8, 2)
    for x, condition in ramp.seen:
        assert condition is None
        assert x.shape == (4, 16, 5)
        torch.testing.assert_close(x[:, :2, 2:], torch.tensor([0.0, -0.5, -0.75]).expand(4, 2, 3))


def test_noise_decides_the_sample_and_ddpm_takes_more_of_it() -> None:
    policy = build(PolicyConfig())
    assert policy.noise_shape(Sampler(OBJECTIVE, SamplingConfig(steps=5))) == (1, 16, 2)
    assert policy.noise_shape(Sampler(OBJECTIVE, SamplingConfig(sampler="ddpm", steps=5))) == (6, 16, 2)
    first = predict(policy, SamplingConfig(steps=2))
    assert torch.equal(first, predict(policy, SamplingConfig(steps=2)))
    assert not torch.equal(first[0], first[1])


def test_state_dict_carries_the_normalisers() -> None:
    policy = build(PolicyConfig())
    other = DiffusionPolicy(PolicyConfig(), MODEL, observation_dim=3, action_dim=2)
    other.load_state_dict(policy.state_dict())
    assert torch.equal(predict(policy, SamplingConfig()), predict(other, SamplingConfig()))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            PolicyConfig(n_action_steps=16),
            r"n_action_steps=16 is more than horizon - n_obs_steps \+ 1 = 16 - 2 \+ 1 = 15",
        ),
        (PolicyConfig(n_obs_steps=0), r"policy\.n_obs_steps=0 must be at least 1"),
        (PolicyConfig(conditioning="film"), r"policy\.conditioning 'film' is unknown"),
    ],
)
def test_errors(config: PolicyConfig, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build(config)
