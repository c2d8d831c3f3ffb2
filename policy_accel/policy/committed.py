"""Actions that are decided before a trajectory is sampled: it is painted around them."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from policy_accel.diffusion.guidance import Guidance
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import Known


@dataclass(frozen=True)
class Committed:
    """The actions that a trajectory is to agree with.

    Args:
        actions: normalised [B, horizon, A].
        weights: of each step in [0, 1], [B, horizon]: 1 is decided, 0 free.
        guided: whether the network's gradient draws the trajectory to them (`policy_accel.diffusion.guidance`);
            otherwise they are put back into the sample, noised as it is, before every evaluation and at the end.
    """

    actions: Tensor
    weights: Tensor
    guided: bool

    def guidance(self, channels: int) -> Guidance | None:
        """For trajectories [B, horizon, channels], of which the actions are the first."""
        if not self.guided:
            return None
        others = (0, channels - self.actions.shape[-1])
        weights = self.weights[..., None].expand_as(self.actions)
        return Guidance(F.pad(self.actions, others), F.pad(weights, others))

    def put_back(self, noise: Tensor) -> Known | None:
        """What brings the actions into a state, of the noise [B, horizon, channels] that the sample starts from."""
        if self.guided:
            return None
        dim = self.actions.shape[-1]
        weights, noise = self.weights[..., None], noise[..., :dim]

        def known(x: Tensor, level: Level) -> Tensor:
            x = x.clone()
            x[..., :dim] += weights * (level.alpha * self.actions + level.sigma * noise - x[..., :dim])
            return x

        return known
