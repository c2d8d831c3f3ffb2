"""Scoring a policy: rollouts from fixed seeds, with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from policy_accel.diffusion import Objective
from policy_accel.diffusion.sampling import SamplingConfig
from policy_accel.errors import UserError
from policy_accel.evaluation import EnvironmentSpec, RolloutPool
from policy_accel.evaluation.environments import environment_spaces
from policy_accel.evaluation.host import Observation
from policy_accel.evaluation.latency import LatencyMeter
from policy_accel.evaluation.rollouts import Act
from policy_accel.evaluation.statistics import summarize
from policy_accel.policy.demonstrations import TaskConfig, observation_layout
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.progress import Progress
from policy_accel.training.devices import available_cores
from policy_accel.training.randomness import named_generator

OUTSIDE = 0.25
"""Share of an action's range by which demonstrations may leave it; environments clip what people's hands overdo."""


@dataclass
class EvaluationConfig:
    """Which episodes score a policy; the defaults are Diffusion Policy's test protocol."""

    episodes: int = 50
    start_seed: int = 100_000
    """Episodes start from the seeds start_seed, start_seed + 1, ..."""
    noise_seed: int = 0
    """Seed of the sampler's noise, which is drawn for each (episode seed, chunk)."""
    slots: int = 50
    """Episodes that run side by side: the batch size of the policy."""
    workers: int = -1
    """Processes for the environments; 0 runs them in this one, -1 takes one for each core. Does not change results."""
    videos: int = 4
    """Number of the first episodes that are filmed."""
    camera: str | None = None
    """Camera that films, where the environment has several; null for its own choice."""
    confidence: float = 0.95

    def check(self) -> None:
        """Raise UserError unless the numbers make sense."""
        for name, least in (("episodes", 0), ("start_seed", 0), ("slots", 1), ("workers", -1), ("videos", 0)):
            if getattr(self, name) < least:
                raise UserError(f"evaluation.{name}={getattr(self, name)} must be at least {least}.")
        if self.camera is not None and self.videos == 0:
            raise UserError(f"evaluation.camera={self.camera} films nothing with evaluation.videos=0; raise videos.")
        if not 0 < self.confidence < 1:
            raise UserError(f"evaluation.confidence={self.confidence} must lie between 0 and 1.")


class PolicyEvaluator:
    """Rolls a policy out in its task's environment; the workers stay alive between calls.

    Args:
        task: names the environment.
        n_obs_steps: newest observations that the policy sees.
        objective: of the training.
        clip_sample: bound of the normalised sample, or None.
        sampling: sampler, steps and grid.
        config: which episodes.
        video_dir: where the films go.
    """

    def __init__(
        self,
        task: TaskConfig,
        *,
        n_obs_steps: int,
        objective: Objective,
        clip_sample: float | None,
        sampling: SamplingConfig,
        config: EvaluationConfig,
        video_dir: Path,
    ) -> None:
        config.check()
        sampling.check(objective.process)
        if task.environment is None:
            raise UserError(f"task '{task.name}' has no environment to score a policy in; set task.environment.")
        self.task = task
        self._described_by: str | None = None
        self.objective, self.clip_sample, self.sampling, self.config = objective, clip_sample, sampling, config
        self.video_dir = video_dir
        self.layout = observation_layout(task)
        spec = EnvironmentSpec(
            task.environment,
            dict(task.environment_options),
            task.max_steps,
            n_obs_steps,
            task.environment_module,
            film_kwargs={} if config.camera is None else {"render_camera": config.camera},
        )
        self.latency = LatencyMeter()
        workers = available_cores() if config.workers < 0 else config.workers
        self.pool = RolloutPool(spec, slots=max(1, min(config.slots, config.episodes)), workers=workers)

    def recorded_in(self, env_args: dict[str, Any] | None) -> None:
        """Give the environment the data's description of it, where the task says so and names none itself.

        Raises:
            UserError: the task says so and the data has no description.
        """
        if not self.task.environment_from_data or "env_args" in self.task.environment_options:
            return
        if env_args is None:
            raise UserError(
                f"task '{self.task.name}' has environment_from_data=true, and its data does not say in which "
                "environment it was recorded (env_args); set task.environment_from_data=false."
            )
        spec = self.pool.spec
        self.pool.spec = replace(spec, kwargs={**spec.kwargs, "env_args": env_args})
        self._described_by = self.task.data

    def check_fits(self, policy: DiffusionPolicy, action_range: tuple[np.ndarray, np.ndarray] | None = None) -> None:
        """Raise UserError unless the environment gives what the policy takes, and takes what it returns.

        action_range: smallest and largest value [A] of the demonstrations' actions, to compare with the environment's.
        """
        try:
            observations, actions = environment_spaces(self.pool.spec)
        except UserError as error:
            if self._described_by is None:
                raise
            raise UserError(f"{self._described_by}: {error}") from error
        self.layout.check(observations, policy.input_dim, policy.images, self.pool.spec.id)
        if actions.shape != (policy.executed_dim,):
            raise UserError(
                f"the action of environment '{self.pool.spec.id}' is {actions}, the demonstrations have "
                f"{policy.executed_dim} numbers a step; make task.action, task.environment and "
                "task.environment_options agree."
            )
        if isinstance(actions, gymnasium.spaces.Box) and action_range is not None:
            low, high = actions.low.astype(np.float64), actions.high.astype(np.float64)
            margin = OUTSIDE * np.where(np.isfinite(high - low), high - low, 0.0)
            for column in np.flatnonzero((action_range[0] < low - margin) | (action_range[1] > high + margin)):
                raise UserError(
                    f"number {column} of the demonstrations' actions ({self.task.action}) goes from "
                    f"{action_range[0][column]:.4g} to {action_range[1][column]:.4g}, and environment "
                    f"'{self.pool.spec.id}' takes {low[column]:.4g} to {high[column]:.4g}; choose the actions that it "
                    "takes (relative or absolute ones, for instance) in task.action or task.environment_options."
                )

    def close(self) -> None:
        """End the workers."""
        self.pool.close()

    def __call__(self, policy: DiffusionPolicy, report: Callable[[str], None]) -> dict[str, Any]:
        """Score `policy`; see `policy_accel.evaluation.statistics.summarize` for the keys.

        Raises:
            UserError: observations of another size than the policy's; an environment that cannot be made.
        """
        began = time.perf_counter()
        config = self.config
        seeds = range(config.start_seed, config.start_seed + config.episodes)
        progress = Progress("score", config.episodes, unit="episode")
        try:
            results = self.pool.run(
                self._act(policy),
                seeds,
                video_dir=self.video_dir,
                videos=config.videos,
                progress=lambda done, _: progress.to(done),
            )
        finally:
            progress.close()
        for failed in (result for result in results if result.error):
            report(f"The episode of seed {failed.seed} failed twice and counts as score 0: {failed.error}")
        return {
            **summarize(results, confidence=config.confidence),
            **{
                f"sampling_{name}" if name != "sampler" else name: value
                for name, value in asdict(self.sampling).items()
            },
            "network_evaluations": self.sampling.network_evaluations,
            "max_steps": self.pool.spec.max_steps,
            "chunk_milliseconds": self.latency.milliseconds(),
            "start_seed": config.start_seed,
            "noise_seed": config.noise_seed,
            "seconds": time.perf_counter() - began,
        }

    def _act(self, policy: DiffusionPolicy) -> Act:
        policy.eval()
        device = next(policy.parameters()).device
        meter = self.latency = LatencyMeter(device)
        objective = self.objective.to("cpu")
        shape = policy.noise_shape(self.sampling)

        def act(observations: Observation, seeds: np.ndarray, chunk_index: np.ndarray) -> np.ndarray:
            noise = torch.zeros(len(seeds), *shape)
            for row, (seed, chunk) in enumerate(zip(seeds.tolist(), chunk_index.tolist(), strict=True)):
                if seed >= 0:
                    generator = named_generator(self.config.noise_seed, "rollout", seed, chunk)
                    torch.randn(shape, generator=generator, out=noise[row])
            with meter:
                actions = policy.predict(
                    self.layout.tensors(observations, device),
                    noise.to(device),
                    objective=objective,
                    clip_sample=self.clip_sample,
                    sampling=self.sampling,
                )
                return actions.cpu().numpy()

        return act
