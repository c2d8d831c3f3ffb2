"""The parts of a robot run: the policy, what scores it, and settings that only a whole run can check."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.acceleration.assigned_noise import ConditionalAssignmentConfig
from policy_accel.acceleration.build import build_objective
from policy_accel.diffusion import Objective, Sampler
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.errors import UserError, one_of, refuse_idle
from policy_accel.evaluation.episode import SCORES
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.demonstrations import observation_layout
from policy_accel.policy.observations import Observations
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.training.randomness import seeded_weights

ROUNDING = 1e-4
"""By which normalised numbers may leave a bound."""


def build_sampler(config: RobotConfig) -> Sampler:
    """The objective with the settings by which it is sampled.

    Raises:
        UserError: a value out of range, settings that would do nothing, or a combination that makes no sense.
    """
    return Sampler(build_objective(config.diffusion, config.acceleration), config.sampling)


def check_config(config: RobotConfig) -> Objective:
    """The objective of `config`, after everything that can be refused without its data."""
    config.policy.check()
    config.evaluation.check()
    config.check_init()
    objective = build_sampler(config).objective
    if config.diffusion.learn_sigma:
        raise UserError("diffusion.learn_sigma=true is for images; leave it at false.")
    config.check_distillation()
    observation_layout(config.task)
    if config.task.images:
        config.encoder.check()
    noise = config.acceleration.noise
    if isinstance(noise, ConditionalAssignmentConfig):
        if config.policy.conditioning != "global":
            raise UserError(
                f"acceleration.noise.name={noise.name} compares the conditions of the denoiser, and with "
                f"policy.conditioning={config.policy.conditioning} it has none; use "
                "acceleration/noise=assignment_in_groups."
            )
        if config.task.images:
            raise UserError(
                f"acceleration.noise.name={noise.name} compares numbers, and this task's conditions are pictures "
                f"(task.images={config.task.images}); use acceleration/noise=assignment_in_groups."
            )
    if config.task.action_rotation != "none" and config.task.environment_options.get("actions") == "relative":
        raise UserError(
            f"task.action_rotation={config.task.action_rotation} is for absolute poses, and "
            "task.environment_options.actions=relative takes changes of them; use action_rotation=none."
        )
    one_of("task.score", config.task.score, SCORES)
    config.check_scores(
        scored=config.is_scored(),
        overlap=config.evaluation.overlap,
        to_score="task.environment and evaluation.episodes",
    )
    return objective


def fit_bound(config: RobotConfig, largest: float) -> str | None:
    """Make sampling.clip_sample hold normalised demonstrations, whose values reach `largest`; a note where it had to be
    changed. Checkpoints keep the bound then, so that a run is sampled with it wherever it is loaded.

    Raises:
        UserError: a bound was chosen that they leave.
    """
    clip = config.sampling.clip_sample
    if clip is None or largest <= clip * (1 + ROUNDING):
        return None
    wider = math.ceil(1000 * largest) / 1000
    cause = (
        f"the normalised demonstrations reach {largest:.4g} (task.action_normalization="
        f"{config.task.action_normalization}"
    )
    if config.policy.conditioning != "global":
        cause += f", task.observation_normalization={config.task.observation_normalization}"
    if clip != SamplingConfig.clip_sample:
        raise UserError(
            f"sampling.clip_sample={clip} would cut what is sampled, since {cause}); set "
            f"sampling.clip_sample={wider:g} or null."
        )
    config.sampling.clip_sample = wider
    return f"sampling.clip_sample is widened from {clip:g} to {wider:g}: {cause})."


def build_policy(
    config: RobotConfig,
    observation_dim: int,
    action_dim: int,
    *,
    images: Mapping[str, Sequence[int]] | None = None,
    resized: Mapping[str, Sequence[int]] | None = None,
    goal_columns: Sequence[int] = (),
) -> DiffusionPolicy:
    """A freshly initialised policy; its weights follow from `config.seed` alone.

    Args:
        config: of the run.
        observation_dim: numbers per observation.
        action_dim: numbers per action in the form that is diffused.
        images: picture -> (H, W, C) of its whole frames.
        resized: picture -> (H, W) that they are brought to first, of those that are.
        goal_columns: columns of the observation that the goal of a plan pins.

    Raises:
        UserError: sizes that do not fit together; settings of an encoder that there are no pictures for.
    """
    if not images:
        refuse_idle(config.encoder, "encoder", set(), "a task without pictures (task.images=[])")
    shapes = {name: (height, width, channels) for name, (height, width, channels) in (images or {}).items()}
    with seeded_weights(config.seed):
        return DiffusionPolicy(
            config.policy,
            config.model,
            observation_dim=observation_dim,
            action_dim=action_dim,
            images=shapes,
            resized={name: (height, width) for name, (height, width) in (resized or {}).items()},
            encoder=config.encoder,
            goal_columns=goal_columns,
            action_rotation=config.task.action_rotation,
        )


@dataclass(frozen=True)
class LoadedRun:
    """A trained policy (EMA weights, eval mode) with its configuration and the step of its checkpoint."""

    policy: DiffusionPolicy
    config: RobotConfig
    step: int
    sampler: Sampler
    env_args: dict[str, Any] | None = None
    """The data's description of the environment that they were recorded in."""
    sampling_note: str | None = None
    """A sentence on the sampling where that is not the run's own, but tuned."""
    source: Path | None = None
    """The run directory or the file that it was read from."""

    @property
    def model(self) -> DiffusionPolicy:
        """The network, as other tracks call it."""
        return self.policy

    def act(self, observations: Observations, generator: torch.Generator | None = None) -> Tensor:
        """Predict the actions to execute next, sampled as the run's configuration says.

        Args:
            observations: [B, n_obs_steps, input_dim], oldest first, in the data's units, on the policy's device; with
                pictures a dictionary, see `DiffusionPolicy.predict`.
            generator: draws the noise, on the same device; None for torch's own.

        Returns:
            Actions [B, n_action_steps, executed_dim] in the data's units.
        """
        numbers = observations["state"] if isinstance(observations, dict) else observations
        shape = (len(numbers), *self.policy.noise_shape(self.sampler))
        return self.policy.predict(
            observations,
            torch.randn(shape, generator=generator, device=numbers.device),
            sampler=self.sampler,
        )
