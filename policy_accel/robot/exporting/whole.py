"""The whole prediction of a policy as one function of tensors, which exporters trace."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from policy_accel.diffusion import Sampler
from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.robot.exporting.compression import Compressed

NOISE, ACTIONS, PLAN = "noise", "actions", "plan"
"""Names of an input, beside the state and the pictures, and of the outputs."""


class WholePrediction(nn.Module):
    """Normalisers, encoder, every step of the sampler and the decoding of the actions.

    The weights are kept compressed, and expanded once in a call.

    Args:
        policy: on the CPU, in eval mode.
        sampler: of its objective; its steps are unrolled.
        weights: how they are kept, see `compression`.
    """

    def __init__(self, policy: DiffusionPolicy, sampler: Sampler, weights: str = "fp32") -> None:
        super().__init__()
        self.sampler = sampler
        self._policy = [_Outputs(policy)]  # in a list, so that its own weights are none of this module's
        self._compressed: dict[str, Compressed] = {}
        named = {**dict(self._policy[0].named_parameters()), **dict(self._policy[0].named_buffers())}
        for name, tensor in named.items():
            kept = self._compressed[name] = Compressed.of(name, tensor.detach(), weights)
            for part, values in kept.tensors.items():
                self.register_buffer(_key(name, part), values)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what `forward` takes, in order."""
        return (STATE, *self._policy[0].policy.images, NOISE)

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """The actions to execute next [B, n_action_steps, executed_dim] in the data's units, and the whole normalised
        trajectory [B, horizon, channels], of the tensors that `inputs` names."""
        tensors = {
            name: kept.expanded({part: getattr(self, _key(name, part)) for part in kept.tensors})
            for name, kept in self._compressed.items()
        }
        result: tuple[Tensor, Tensor] = functional_call(
            self._policy[0], tensors, (dict(zip(self.inputs, given, strict=True)), self.sampler)
        )
        return result


def _key(name: str, part: str) -> str:
    return f"{name}.{part}".rstrip(".").replace(".", "__")


class _Outputs(nn.Module):
    """What is traced, as `forward` of a module that has the policy's weights."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, given: dict[str, Tensor], sampler: Sampler) -> tuple[Tensor, Tensor]:
        noise = given.pop(NOISE)
        plan = self.policy.plan(given if self.policy.images else given[STATE], noise, sampler=sampler)
        return self.policy.executed(plan), plan


def example_inputs(policy: DiffusionPolicy, sampler: Sampler, batch: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Observations inside the range of the data [B, n_obs_steps, ...] and noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    steps = policy.config.n_obs_steps
    inside = 2.0 * torch.rand(batch, steps, policy.observation_dim, generator=generator) - 1.0
    state = policy.observation_normalizer.inverse(inside)
    state = torch.cat([state, state[..., list(policy.goal_columns)]], dim=-1)
    pictures = {
        name: torch.randint(0, 256, (batch, steps, *shape), dtype=torch.uint8, generator=generator)
        for name, shape in policy.images.items()
    }
    noise = torch.randn(batch, *policy.noise_shape(sampler), generator=generator)
    return {STATE: state.to(dtype), **pictures, NOISE: noise}
