"""The robot track's task: windows of demonstrations for the training core, rollouts for the score."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from policy_accel.data.normalization import fit_normalizer
from policy_accel.data.windows import Windows
from policy_accel.diffusion import Objective, vp_process
from policy_accel.errors import UserError
from policy_accel.policy.demonstrations import Demonstrations
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.training.task import Batch


@dataclass
class DiffusionConfig:
    """The forward process and what the denoiser predicts; the defaults are Diffusion Policy's."""

    schedule: str = "squaredcos_cap_v2"
    """squaredcos_cap_v2 or linear."""
    timesteps: int = 100
    beta_start: float = 1e-4
    """Of the linear schedule, with beta_end."""
    beta_end: float = 0.02
    target: str = "epsilon"
    """epsilon, sample or v."""
    clip_sample: float | None = 1.0
    """Bound of the predicted sample while sampling, in normalised units; null for none."""

    def objective(self) -> Objective:
        """The objective that these settings describe."""
        if self.clip_sample is not None and not self.clip_sample > 0:
            raise UserError(f"diffusion.clip_sample={self.clip_sample} must be positive, or null for none.")
        process = vp_process(self.schedule, self.timesteps, beta_start=self.beta_start, beta_end=self.beta_end)
        return Objective(process, self.target)


Evaluator = Callable[[DiffusionPolicy, Callable[[str], None]], dict[str, Any] | None]


class ChunkTask:
    """Action chunks for the training core.

    The demonstrations are normalised once and stay on the device; a batch is one gather of window indices.

    Args:
        policy: what is trained; its normalisers are fitted here, on all steps of the data as in the reference.
        objective: noise, time and target.
        demonstrations: the data.
        normalization: modes of (observations, actions).
        mask_padding: leave repeated steps out of the loss.
        evaluator: scores a policy, or None.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        objective: Objective,
        demonstrations: Demonstrations,
        *,
        normalization: tuple[str, str],
        mask_padding: bool,
        evaluator: Evaluator | None,
    ) -> None:
        self.model: nn.Module = policy
        self.policy = policy
        self.objective = objective
        self.mask_padding = mask_padding
        self.evaluator = evaluator
        observation_mode, action_mode = normalization
        policy.observation_normalizer = fit_normalizer(demonstrations.observations, observation_mode)
        policy.action_normalizer = fit_normalizer(demonstrations.actions, action_mode)
        self.observations = policy.observation_normalizer(demonstrations.observations)
        self.actions = policy.action_normalizer(demonstrations.actions)
        self.train, self.validation = demonstrations.train, demonstrations.validation
        self.samples = len(self.train.indices)
        self.validation_samples = 0 if self.validation is None else len(self.validation.indices)
        self.known = policy.known_mask(torch.device("cpu"))
        self.fingerprint = _fingerprint(demonstrations.observations, demonstrations.actions, self.train.indices)

    def to(self, device: torch.device) -> None:
        """Move model, data and tables to `device`."""
        self.model.to(device)
        self.objective = self.objective.to(device)
        self.observations, self.actions = self.observations.to(device), self.actions.to(device)
        self.train = self.train.to(device)
        if self.validation is not None:
            self.validation = self.validation.to(device)
        self.known = self.policy.known_mask(device)

    def batch(self, indices: Tensor) -> Batch:
        """Training windows `indices` [B]: x0 [B, horizon, channels], condition [B, n_obs_steps, O] or None."""
        return self._gather(self.train, indices)

    def validation_batch(self, indices: Tensor) -> Batch:
        """Validation windows `indices` [B]."""
        assert self.validation is not None
        return self._gather(self.validation, indices)

    def _gather(self, windows: Windows, indices: Tensor) -> Batch:
        steps = windows.indices[indices]
        counted = windows.valid[indices][:, :, None] if self.mask_padding else None
        actions = self.actions[steps]
        if self.known is None:
            return Batch(
                actions, condition=self.observations[steps[:, : self.policy.config.n_obs_steps]], counted=counted
            )
        unknown = ~self.known
        return Batch(
            torch.cat([actions, self.observations[steps]], dim=-1),
            counted=unknown if counted is None else unknown & counted,
            known=self.known,
        )

    def evaluate(self, model: nn.Module, report: Callable[[str], None]) -> dict[str, Any] | None:
        """Score `model` by rollouts, or None when the task has no environment."""
        assert isinstance(model, DiffusionPolicy)
        return None if self.evaluator is None else self.evaluator(model, report)


def _fingerprint(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
