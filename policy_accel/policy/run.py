"""Robot runs: build everything from a configuration, train it, load it again, score it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from policy_accel.acceleration.assigned_noise import ConditionalAssignmentConfig
from policy_accel.acceleration.build import build_objective
from policy_accel.configuration import ROBOT, compose_config, plain
from policy_accel.diffusion import Objective
from policy_accel.errors import UserError, refuse_idle
from policy_accel.policy.config import RobotConfig, register
from policy_accel.policy.demonstrations import Demonstrations, load_demonstrations, observation_layout
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.observations import Observations
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.policy.task import ChunkTask
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.loop import Trained, train
from policy_accel.training.randomness import seeded_weights
from policy_accel.training.run_directory import checkpoint_path, read_typed_config


def robot_config(overrides: list[str]) -> RobotConfig:
    """The typed configuration for command-line `overrides`.

    Raises:
        UserError: as `compose_config` does.
    """
    register()
    config = OmegaConf.to_object(compose_config(ROBOT, overrides))
    assert isinstance(config, RobotConfig)
    return config


def config_record(config: RobotConfig) -> dict[str, Any]:
    """The configuration as plain values, as it is kept in a run directory."""
    return plain(OmegaConf.structured(config))


def build_policy(
    config: RobotConfig,
    observation_dim: int,
    action_dim: int,
    *,
    images: Mapping[str, Sequence[int]] | None = None,
    goal_columns: Sequence[int] = (),
) -> DiffusionPolicy:
    """A freshly initialised policy; its weights follow from `config.seed` alone.

    Args:
        config: of the run.
        observation_dim: numbers per observation.
        action_dim: numbers per action in the form that is diffused.
        images: picture -> (H, W, C) of its whole frames.
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
            encoder=config.encoder,
            goal_columns=goal_columns,
            action_rotation=config.task.action_rotation,
        )


def build_evaluator(config: RobotConfig, run_dir: Path) -> PolicyEvaluator | None:
    """What scores a policy of this configuration, or None without an environment or episodes."""
    if config.task.environment is None or config.evaluation.episodes == 0:
        config.evaluation.check()
        return None
    return PolicyEvaluator(
        config.task,
        n_obs_steps=config.policy.n_obs_steps,
        objective=build_objective(config.diffusion, config.acceleration),
        clip_sample=config.diffusion.clip_sample,
        sampling=config.sampling,
        config=config.evaluation,
        video_dir=run_dir / "videos",
    )


def build_task(config: RobotConfig, evaluator: PolicyEvaluator | None = None) -> ChunkTask:
    """Data, policy and objective for the training core."""
    config.policy.check()
    objective = build_objective(config.diffusion, config.acceleration)
    config.sampling.check(objective.process)
    _check_combinations(config)
    demonstrations: Demonstrations = load_demonstrations(config.task, config.policy)
    policy = build_policy(
        config,
        demonstrations.observations.shape[1],
        demonstrations.actions.shape[1],
        images=None if demonstrations.images is None else demonstrations.images.shapes,
        goal_columns=demonstrations.goal_columns,
    )
    return ChunkTask(
        policy,
        objective,
        demonstrations,
        normalization=(config.task.observation_normalization, config.task.action_normalization),
        mask_padding=config.task.mask_padding,
        evaluator=evaluator,
        noise=config.acceleration.noise,
        seed=config.seed,
        crop=config.encoder.crop,
    )


def _check_combinations(config: RobotConfig) -> None:
    observation_layout(config.task)
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
    if (
        config.policy.conditioning != "global"
        and config.task.observation_normalization == "gaussian"
        and config.diffusion.clip_sample is not None
    ):
        raise UserError(
            f"diffusion.clip_sample={config.diffusion.clip_sample} would cut the observations in the trajectory "
            f"(policy.conditioning={config.policy.conditioning}) at that many deviations; use "
            "task.observation_normalization=limits, or diffusion.clip_sample=null."
        )
    scored = config.evaluation.episodes > 0 and config.task.environment is not None
    config.check_noise(scored=scored, to_score="task.environment and evaluation.episodes")


def train_run(config: RobotConfig, after_update: Callable[[int], None] | None = None) -> Trained:
    """Train the policy of `config` in its run directory, or continue it, and score it."""
    run_dir = Path(config.run_dir)
    evaluator = build_evaluator(config, run_dir)
    try:
        task = build_task(config, evaluator)
        if evaluator is not None:
            evaluator.recorded_in(task.description["env_args"])
            evaluator.check_fits(task.policy, task.action_range)
        return train(
            task,
            config.training,
            seed=config.seed,
            run_dir=run_dir,
            run_config=config_record(config),
            after_update=after_update,
        )
    finally:
        if evaluator is not None:
            evaluator.close()


@dataclass(frozen=True)
class LoadedRun:
    """A trained policy (EMA weights, eval mode) with its configuration and the step of its checkpoint."""

    policy: DiffusionPolicy
    config: RobotConfig
    step: int
    objective: Objective
    env_args: dict[str, Any] | None = None
    """The data's description of the environment that they were recorded in."""

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
        shape = (len(numbers), *self.policy.noise_shape(self.config.sampling))
        return self.policy.predict(
            observations,
            torch.randn(shape, generator=generator, device=numbers.device),
            objective=self.objective,
            clip_sample=self.config.diffusion.clip_sample,
            sampling=self.config.sampling,
        )


def load_run(run_dir: Path, checkpoint: str = "last", device: torch.device | str = "cpu") -> LoadedRun:
    """Load the policy of a run directory.

    Args:
        run_dir: made by `train_run`.
        checkpoint: "last", "best" (highest score during training) or a step.
        device: where the policy goes.

    Raises:
        UserError: not a run directory, no such checkpoint, a damaged file.
    """
    config = _read_config(run_dir)
    saved = load_checkpoint(checkpoint_path(run_dir, checkpoint), ("ema",))
    tensors = saved.tensors["ema"]
    data = saved.state.get("task") or {}
    policy = build_policy(
        config,
        tensors["observation_normalizer.scale"].shape[0],
        tensors["action_normalizer.scale"].shape[0],
        images=data.get("images"),
        goal_columns=data.get("goal_columns", ()),
    )
    policy.load_state_dict(tensors)
    policy.to(device).eval().requires_grad_(False)
    objective = build_objective(config.diffusion, config.acceleration)
    return LoadedRun(policy, config, saved.step, objective, data.get("env_args"))


def _read_config(run_dir: Path) -> RobotConfig:
    register()
    config = read_typed_config(run_dir, RobotConfig, ROBOT.name)
    assert isinstance(config, RobotConfig)
    return config
