"""Whole plans of a policy; on a CUDA device from graphs, which a host replays at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion import Sampler
from policy_accel.diffusion.host_work import to_device
from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.committed import Committed
from policy_accel.policy.observations import Observations
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.training.config import TrainingConfig
from policy_accel.training.graphs import Replayed
from policy_accel.training.precision import autocast
from policy_accel.training.randomness import named_generator


def chunk_noise(shape: Sequence[int], noise_seed: int, seeds: Sequence[int], chunks: Sequence[int]) -> Tensor:
    """The noise [B, *shape] of chunks: a row follows from the noise's seed, the episode's seed and the number of its
    chunk; 0 where the seed is below 0."""
    noise = torch.zeros(len(seeds), *shape)
    for row, (seed, chunk) in enumerate(zip(seeds, chunks, strict=True)):
        if seed >= 0:
            torch.randn(shape, generator=named_generator(noise_seed, "rollout", seed, chunk), out=noise[row])
    return noise


def shifted(plan: Tensor, steps: int) -> Tensor:
    """A plan [B, horizon, channels] as seen `steps` later; its last step stands for those behind its end."""
    steps = min(steps, plan.shape[1])
    return torch.cat([plan[:, steps:], plan[:, -1:].expand(-1, steps, -1)], dim=1)


class Planner:
    """`DiffusionPolicy.plan` with one sampler, for one device.

    On a CUDA device the encoder and all steps of the sampler are one graph, for each shape of what is given, unless
    training.capture=false. Weights are read where they lie: they may change between calls, but not move. What
    in-painting puts into a trajectory is told by the host, so that such a policy is not captured.

    Args:
        policy: on its device, in eval mode.
        sampler: of the training's objective.
        training: of the run.
    """

    def __init__(self, policy: DiffusionPolicy, sampler: Sampler, training: TrainingConfig) -> None:
        self.policy, self.sampler = policy, sampler
        self.device = policy.device
        on_cuda = self.device.type == "cuda"
        self.captured = on_cuda and training.captures(self.device) and not policy.inpainting
        self._plans: dict[Hashable, tuple[dict[str, Tensor], Replayed[Tensor]]] = {}
        if self.captured:
            self._stream, self._pool = torch.cuda.Stream(self.device), torch.cuda.graph_pool_handle()

    def __call__(
        self,
        observations: Observations,
        noise: Tensor,
        *,
        start: Tensor | None = None,
        strength: float = 1.0,
        committed: Committed | None = None,
    ) -> Tensor:
        """See `DiffusionPolicy.plan`; noise may lie on the host. The next call may overwrite a captured plan. One with
        committed actions is not captured.

        Raises:
            UserError: it cannot be captured.
        """
        noise = to_device(noise, self.device)
        if not self.captured or committed is not None:
            how: dict[str, Any] = {"start": start, "strength": strength, "committed": committed}
            with autocast(self.device, self.policy.precision):
                return self.policy.plan(observations, noise, sampler=self.sampler, **how)
        given = {**(observations if isinstance(observations, dict) else {STATE: observations}), "noise": noise}
        if start is not None:
            given["start"] = start
        key = strength, *((name, tensor.shape) for name, tensor in given.items())
        if key not in self._plans:
            memory = {name: torch.empty_like(tensor) for name, tensor in given.items()}
            self._plans[key] = memory, self._replayed(memory, strength)
        memory, replayed = self._plans[key]
        for name, tensor in given.items():
            memory[name].copy_(tensor)
        return replayed()

    def _replayed(self, memory: dict[str, Tensor], strength: float) -> Replayed[Tensor]:
        observations: Any = memory if self.policy.images else memory[STATE]
        how: dict[str, Any] = {"sampler": self.sampler, "start": memory.get("start"), "strength": strength}

        def plan() -> Tensor:
            with autocast(self.device, self.policy.precision):
                return self.policy.plan(observations, memory["noise"], **how)

        return Replayed(plan, (), stream=self._stream, pool=self._pool)
