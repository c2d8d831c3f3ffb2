"""Chunks of a policy that go on from those before.

receding            each chunk is sampled from noise; the newest one is executed
ensembling          so, and an action is the mean of all chunks that predict it, by age (Zhao et al. 2023, ACT)
real_time_chunking  each chunk is drawn to the one before, by the network's gradient: fully to the actions that are
                    executed until it arrives, less and less to those behind them (Black et al. 2025)
inpainting          so, by putting the actions back into the sample before every evaluation, which costs no gradient
warm_start          each chunk starts from the rest of the one before, noised to a share of the sampler's steps
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from policy_accel.diffusion import Sampler
from policy_accel.errors import UserError
from policy_accel.policy.committed import Committed
from policy_accel.policy.observations import as_tensors
from policy_accel.policy.planner import Planner, chunk_noise, shifted
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.robot.control.chunks import Chunk, Request
from policy_accel.robot.control.config import ControlConfig
from policy_accel.training.config import TrainingConfig

WARM_START = 0.5
"""Share of the sampler's steps that a warm start takes."""
DECAY = 0.01
"""Of the weights exp(-DECAY i) of an ensemble, with i = 0 for the oldest chunk: ACT's."""


class Plan(NamedTuple):
    """A trajectory [horizon, channels], normalised, and the control step of its first action to execute."""

    tick: int
    trajectory: Tensor


class ChunkPredictor:
    """Predicts chunks for one robot or for several at once, and remembers the plans of each.

    Args:
        policy: on its device, in eval mode.
        sampler: of the training's objective.
        training: of the run.
        config: how chunks are joined, and what follows a chunk.
        noise_seed: seed of the sampler's noise.
        warm_start: share of the sampler's steps of a warm start; None for WARM_START.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        sampler: Sampler,
        training: TrainingConfig,
        config: ControlConfig,
        *,
        noise_seed: int = 0,
        warm_start: float | None = None,
    ) -> None:
        if warm_start is not None and config.joining != "warm_start":
            raise UserError(
                f"warm_start={warm_start} has no effect with joining={config.joining}; choose joining=warm_start."
            )
        if policy.fixed and config.joining not in ("receding", "ensembling"):
            raise UserError(
                f"an exported file samples from noise, so that joining={config.joining} cannot go on from a chunk; "
                "choose joining=receding or ensembling, or load the run."
            )
        self.policy, self.sampler, self.config = policy, sampler, config
        self._planner, self._noise_seed = Planner(policy, sampler, training), noise_seed
        self._strength = WARM_START if warm_start is None else warm_start
        self._first = policy.config.n_obs_steps - 1
        self._plans: dict[int, list[Plan]] = {}

    def __call__(self, request: Request) -> Chunk:
        """One chunk, see `chunks`."""
        return self.chunks([request])[0]

    @torch.no_grad()
    def chunks(self, requests: Sequence[Request]) -> list[Chunk]:
        """The chunks of robots, in their order, predicted together; number 0 forgets the robot's plans.

        Raises:
            UserError: a prediction that is not finite.
        """
        for request in requests:
            if request.number == 0:
                self._plans[request.slot] = []
        for group in (
            [request for request in requests if not self._plans[request.slot]],
            [request for request in requests if self._plans[request.slot]],
        ):
            if group:
                for request, trajectory in zip(group, self._planned(group), strict=True):
                    self._plans[request.slot].append(Plan(request.tick, trajectory))
        actions = self.policy.decoded(torch.stack([self._joined(request) for request in requests])).cpu().numpy()
        if not np.isfinite(actions).all():
            raise UserError("the policy returned a NaN or infinite action; its weights may be damaged.")
        predicted = self.policy.config.horizon - self._first
        return [Chunk(request.tick, rows, predicted) for request, rows in zip(requests, actions, strict=True)]

    def _planned(self, requests: Sequence[Request]) -> Tensor:
        """Trajectories [B, horizon, channels] of robots that all have plans, or none."""
        policy = self.policy
        seeds, numbers = [request.seed for request in requests], [request.number for request in requests]
        noise = chunk_noise(policy.noise_shape(self.sampler), self._noise_seed, seeds, numbers)
        device = policy.device
        observed = as_tensors([request.observations for request in requests], device, policy.resized)
        how: dict[str, Any] = {}
        plans = [self._plans[request.slot] for request in requests]
        if plans[0] and self.config.joining in ("warm_start", "real_time_chunking", "inpainting"):
            passed = [request.tick - own[-1].tick for request, own in zip(requests, plans, strict=True)]
            rest = torch.cat(
                [shifted(own[-1].trajectory[None], steps) for own, steps in zip(plans, passed, strict=True)]
            )
            if self.config.joining == "warm_start":
                how = {"start": rest, "strength": self._strength}
            else:
                weights = torch.stack(
                    [
                        soft_weights(len(own[-1].trajectory), self._first + request.latency_steps, steps)
                        for request, own, steps in zip(requests, plans, passed, strict=True)
                    ]
                )
                guided = self.config.joining == "real_time_chunking"
                how = {"committed": Committed(rest[..., : policy.action_dim], weights.to(device), guided)}
        return self._planner(observed, noise, **how).clone()  # the next call may overwrite it

    def _joined(self, request: Request) -> Tensor:
        """The normalised actions of a robot's chunk, and those that follow it where it is extrapolated."""
        plans = self._plans[request.slot]
        count = self.policy.config.horizon - self._first
        plans[:] = [plan for plan in plans if request.tick - plan.tick < count]
        if self.config.joining != "ensembling":
            del plans[:-1]
        parts = [plan.trajectory[self._first + request.tick - plan.tick :, : self.policy.action_dim] for plan in plans]
        actions = ensembled(parts)
        if self.config.when_late != "extrapolate" or count < 2:
            return actions
        ahead = torch.arange(1, self.policy.config.n_action_steps + 1, device=actions.device)[:, None]
        more, bound = actions[-1] + ahead * (actions[-1] - actions[-2]), self.sampler.config.clip_sample
        return torch.cat([actions, more if bound is None else more.clamp(-bound, bound)])


def ensembled(parts: Sequence[Tensor]) -> Tensor:
    """The weighted mean of what chunks [T_i, A] say of the same steps, oldest first; the last one is the longest."""
    total, weights = torch.zeros_like(parts[-1]), parts[-1].new_zeros(len(parts[-1]), 1)
    for age, part in enumerate(parts):
        weight = math.exp(-DECAY * age)
        total[: len(part)] += weight * part
        weights[: len(part)] += weight
    return total / weights


def soft_weights(horizon: int, frozen: int, passed: int) -> Tensor:
    """How much each step of a chunk [horizon] is bound to the one before, `passed` steps older (Black et al. 2025,
    equation 5): 1 for the first `frozen`, falling to 0 where that one ends."""
    end = horizon - passed
    steps = torch.arange(horizon, dtype=torch.float32)
    fraction = ((end - steps) / (end - min(frozen, end) + 1)).clamp(0.0, 1.0)
    return fraction * torch.expm1(fraction) / math.expm1(1.0)
