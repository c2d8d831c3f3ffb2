"""Scoring a policy: rollouts from fixed seeds, with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from policy_accel.errors import UserError
from policy_accel.evaluation import EnvironmentSpec, RolloutPool
from policy_accel.evaluation.environments import DEFAULT_STEPS, examine_environment, step_limit
from policy_accel.evaluation.episode import Observation
from policy_accel.evaluation.latency import LatencyMeter
from policy_accel.evaluation.rollouts import Act
from policy_accel.evaluation.statistics import summarize
from policy_accel.plugins import imported_plugins, search_current_folder
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.demonstrations import TaskConfig, observation_layout
from policy_accel.policy.planner import Planner, chunk_noise
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.policy.run import build_sampler
from policy_accel.policy.task_data import action_fields
from policy_accel.progress import Progress
from policy_accel.run_sampling import sampling_record
from policy_accel.training.devices import available_cores
from policy_accel.training.ranks import ALONE, Ranks

OUTSIDE = 0.25
"""Share of an action's range by which demonstrations may leave it; environments clip what people's hands overdo."""


class PolicyEvaluator:
    """Rolls a policy out in its task's environment; the workers stay alive between calls.

    Args:
        config: of a run that is scored.
        policy: that the environment must fit, by its sizes.
        run_dir: the films go to its folder videos.
        env_args: the data's description of the environment that they were recorded in, if any.
        action_range: smallest and largest value [A] of the data's actions, to compare with the environment's; None when
            only a trained policy is at hand.
        start: whether the workers start at once, and not at the first call.
        ranks: the processes that run the episodes together.

    Attributes:
        not_filmed: why the environment cannot be filmed, so that evaluation.videos has no effect; None where it can.

    Raises:
        UserError: settings that make no sense; an environment that cannot be made, that does not give what the policy
            takes, or does not take what it returns.
    """

    def __init__(
        self,
        config: RobotConfig,
        policy: DiffusionPolicy,
        run_dir: Path,
        env_args: dict[str, Any] | None = None,
        *,
        action_range: tuple[np.ndarray, np.ndarray] | None = None,
        start: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        config.evaluation.check()
        self.ranks = ranks
        self.sampler, self.config, self.video_dir = build_sampler(config), config.evaluation, run_dir / "videos"
        self.training = config.training
        self.layout = observation_layout(config.task)
        self.latency = LatencyMeter()
        self.pool = RolloutPool(
            environment_spec(config.task, policy.config.n_obs_steps, self.config.camera, env_args),
            slots=max(1, min(self.config.slots, self.config.episodes)),
            workers=available_cores() if self.config.workers < 0 else self.config.workers,
        )
        try:
            if start:
                self.pool.start()
            self._check_fits(config.task, policy, action_range)
        except BaseException:
            self.pool.close()
            raise

    def _check_fits(
        self, task: TaskConfig, policy: DiffusionPolicy, action_range: tuple[np.ndarray, np.ndarray] | None
    ) -> None:
        environment = self.pool.spec
        try:
            observations, actions, self.not_filmed = examine_environment(environment)
        except UserError as error:
            if "env_args" not in environment.kwargs or "env_args" in task.environment_options:
                raise
            raise UserError(f"{task.data}: {error}") from error
        if self.config.videos and self.not_filmed:
            self.config = replace(self.config, videos=0, camera=None)
        self.layout.check(observations, policy.input_dim, policy.images, environment.id)
        if actions.shape != (policy.executed_dim,):
            raise UserError(
                f"the action of environment '{environment.id}' is {actions}, the demonstrations have "
                f"{policy.executed_dim} numbers a step; make task.action, task.environment and "
                "task.environment_options agree."
            )
        if isinstance(actions, gymnasium.spaces.Box) and action_range is not None:
            (lowest, highest), low, high = action_range, actions.low.astype(float), actions.high.astype(float)
            margin = OUTSIDE * np.where(np.isfinite(high - low), high - low, 0.0)
            for column in np.flatnonzero((lowest < low - margin) | (highest > high + margin)):
                raise UserError(
                    f"number {column} of the demonstrations' actions ({', '.join(action_fields(task))}) goes from "
                    f"{lowest[column]:.4g} to {highest[column]:.4g}, and environment "
                    f"'{environment.id}' takes {low[column]:.4g} to {high[column]:.4g}; choose the actions that it "
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
        ranks = self.ranks
        own = seeds[ranks.rank :: ranks.count]
        with closing(Progress("score", len(own), unit="episode")) as progress:
            done = ranks.together(
                lambda: self.pool.run(
                    self._act(policy),
                    own,
                    video_dir=self.video_dir,
                    videos=len(range(ranks.rank, config.videos, ranks.count)),
                    progress=lambda done, _: progress.to(done),
                )
            )
        results = sorted((result for part in ranks.collect(done) for result in part), key=lambda result: result.seed)
        worst = min([0.0, *(result.score for result in results)])  # of negative scores, 0 would be the best
        for place, failed in enumerate(results):
            if failed.error:
                report(f"The episode of seed {failed.seed} failed twice and counts as score {worst:g}: {failed.error}")
                results[place] = replace(failed, score=worst)
        return {
            **summarize(results, confidence=config.confidence),
            "score_from": self.pool.spec.score,
            **sampling_record(self.sampler.config),
            "network_evaluations": self.sampler.network_evaluations(),
            "max_steps": self.pool.spec.max_steps,
            "chunk_milliseconds": self.latency.milliseconds(),
            "start_seed": config.start_seed,
            "noise_seed": config.noise_seed,
            "seconds": time.perf_counter() - began,
        }

    def _act(self, policy: DiffusionPolicy) -> Act:
        policy.eval()
        device = policy.device
        meter = self.latency = LatencyMeter(device)
        shape = policy.noise_shape(self.sampler)
        plan = Planner(policy, self.sampler, self.training)

        def act(observations: Observation, seeds: np.ndarray, chunk_index: np.ndarray) -> np.ndarray:
            noise = chunk_noise(shape, self.config.noise_seed, seeds.tolist(), chunk_index.tolist())
            with meter.call():
                tensors = self.layout.tensors(observations, device, images=policy.images, sizes=policy.resized)
                return policy.executed(plan(tensors, noise)).cpu().numpy()

        return act


def environment_spec(
    task: TaskConfig, n_obs_steps: int, camera: str | None, env_args: dict[str, Any] | None
) -> EnvironmentSpec:
    """The task's environment, with the data's description of it where the task says so and names none itself.

    Raises:
        UserError: the task has no environment; its data do not describe the one that they were recorded in; without
            task.max_steps, as `step_limit`.
    """
    if task.environment is None:
        raise UserError(f"task '{task.name}' has no environment to score a policy in; set task.environment.")
    if task.environment_module != TaskConfig.environment_module:
        search_current_folder()
    kwargs = dict(task.environment_options)
    if task.environment_from_data and "env_args" not in kwargs:
        if env_args is None:
            raise UserError(
                f"task '{task.name}' has environment_from_data=true, and its data does not say in which "
                "environment it was recorded (env_args); set task.environment_from_data=false."
            )
        kwargs["env_args"] = env_args
    spec = EnvironmentSpec(
        task.environment,
        kwargs,
        DEFAULT_STEPS if task.max_steps is None else task.max_steps,
        n_obs_steps,
        task.environment_module,
        film_kwargs={} if camera is None else {"render_camera": camera},
        plugins=imported_plugins(),
        score=task.score,
        entries=observation_layout(task).entries,
    )
    return spec if task.max_steps is not None else replace(spec, max_steps=step_limit(spec))
