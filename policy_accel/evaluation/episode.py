"""One episode of an environment: its steps, what a policy sees of them, its score and its film."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from policy_accel.errors import UserError
from policy_accel.evaluation.environments import EnvironmentSpec
from policy_accel.evaluation.video import VideoWriter

Observation = np.ndarray | dict[str, np.ndarray]

SUCCESS_KEYS = ("is_success", "success")
"""Where the info of a step says whether the task is done; the first one counts that an environment has."""
SCORES: dict[str, Callable[[Sequence[float], bool], float]] = {
    "max_reward": lambda rewards, success: max(rewards),
    "return": lambda rewards, success: math.fsum(rewards),
    "final_reward": lambda rewards, success: rewards[-1],
    "success": lambda rewards, success: float(success),
}
"""What an episode's score may be, of its rewards and its success."""
DEFAULT_FPS = 10.0


@dataclass(frozen=True)
class EpisodeResult:
    """One row of an evaluation.

    Attributes:
        seed: seed of the environment's reset.
        score: of the episode, as `EnvironmentSpec.score` says; 0 when the episode failed with `error`.
        success: whether any step's info had a true `success_from`.
        success_from: "info.is_success", "info.success", or "reward >= 1" in an environment whose info has neither.
        length: environment steps; 0 when the episode failed with `error`.
        video: name of the mp4 file in the video directory, when the episode was filmed.
        error: why the episode could not be run, twice, in one line.
        metrics: the numbers in info["metrics"] of the last step, by name, in an environment that has such.
    """

    seed: int
    score: float
    success: bool
    length: int
    video: str | None = None
    error: str | None = None
    metrics: dict[str, float] | None = None
    success_from: str | None = None


class Episode:
    """One episode in progress, from reset(seed=`seed`); `environment` belongs to it until it is over.

    It is filmed to `video` when that is a path, and the environment must render rgb_array then.
    """

    def __init__(self, environment: gymnasium.Env, spec: EnvironmentSpec, seed: int, video: Path | None) -> None:
        self.environment = environment
        self.seed = seed
        self.length = 0
        self.rewards: list[float] = []
        self.successes: dict[str, bool] = {}
        self.metrics: dict[str, float] | None = None
        fps = float(environment.metadata.get("render_fps") or DEFAULT_FPS)
        self.video = None if video is None else VideoWriter(video, fps)
        self._max_steps = spec.max_steps
        self._n_obs_steps = spec.n_obs_steps
        self._score, self._entries = SCORES[spec.score], spec.entries
        self._history: deque[Observation] = deque()

    def reset(self) -> None:
        """Start from the seed; the first observation fills the history."""
        self._want_frames(True)
        first, _ = self.environment.reset(seed=self.seed)
        self._history = deque([self._snapshot(first)] * self._n_obs_steps, maxlen=self._n_obs_steps)
        self._film()

    def advance(self, actions: np.ndarray) -> bool:
        """Execute actions [n_action_steps, *A] one after the other; true when the episode ended with one of them.

        An environment with an attribute `frames_wanted` is told before each step whether a policy will see the frames
        that follow it, and may leave out drawing them otherwise: a policy sees the last n_obs_steps observations of a
        chunk, and none of the chunk that reaches max_steps.
        """
        unseen = len(actions) if self.length + len(actions) >= self._max_steps else len(actions) - self._n_obs_steps
        for step, action in enumerate(actions):
            self._want_frames(step >= unseen)
            observation, reward, terminated, truncated, info = self.environment.step(action)
            self.length += 1
            if not math.isfinite(reward):
                raise ValueError(f"the reward of step {self.length} is {reward}")
            self.rewards.append(float(reward))
            for key in SUCCESS_KEYS:
                if key in info:
                    self.successes[key] = self.successes.get(key, False) or _true(info[key])
            self._history.append(self._snapshot(observation))
            self._film()
            if terminated or truncated or self.length >= self._max_steps:
                self.metrics = _metrics(info)
                return True
        return False

    def observation(self) -> Observation:
        """The last n_obs_steps observations, oldest first: [n_obs_steps, *O], or a dictionary of such arrays."""
        stacked = stack(self._history)
        for key, array in stacked.items() if isinstance(stacked, dict) else [("", stacked)]:
            if array.dtype.kind in "fc" and not np.isfinite(array).all():
                raise ValueError(f"the observation {key} after step {self.length} has a NaN or infinite value")
        return stacked

    def finish(self) -> EpisodeResult:
        """The row of this episode, its video in place."""
        if self.video is not None:
            try:
                self.video.finish()
            except UserError as error:
                self._no_film(error)
        key = next((key for key in SUCCESS_KEYS if key in self.successes), None)
        success = max(self.rewards) >= 1 if key is None else self.successes[key]
        return EpisodeResult(
            self.seed,
            self._score(self.rewards, success),
            success,
            self.length,
            video=None if self.video is None else self.video.path.name,
            metrics=self.metrics,
            success_from="reward >= 1" if key is None else f"info.{key}",
        )

    def _snapshot(self, observation: Any) -> Observation:
        """A copy of an observation: an array, or arrays by name, of the entries that a policy takes."""
        if not isinstance(observation, Mapping):
            return np.array(observation)
        parts = named_parts(observation)
        return {key: np.array(value) for key, value in parts.items() if not self._entries or key in self._entries}

    def _want_frames(self, wanted: bool) -> None:
        environment: Any = self.environment.unwrapped
        if hasattr(environment, "frames_wanted"):
            environment.frames_wanted = wanted

    def _film(self) -> None:
        if self.video is None:
            return
        try:
            frame = np.asarray(self.environment.render())
        except Exception as error:
            self.video.discard()
            return self._no_film(f"the environment cannot render ({str(error) or type(error).__name__}).")
        try:
            self.video.add(frame)
        except UserError as error:
            self._no_film(error)

    def _no_film(self, why: object) -> None:
        """The episode goes on without its film: its score is worth more."""
        print(f"No film of the episode of seed {self.seed}: {why}", file=sys.stderr)
        self.video = None


def _metrics(info: dict[str, Any]) -> dict[str, float] | None:
    if "metrics" not in info:
        return None
    metrics = {str(name): float(value) for name, value in info["metrics"].items()}
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"the metric {name} at the end of the episode is {value}")
    return metrics


def _true(value: Any) -> bool:
    """What an environment says of success: a truth value, a number or an array of one; NaN and None are no success."""
    return bool(np.nan_to_num(np.asarray(value, dtype=float)).any())


def named_parts(observation: Mapping[str, Any]) -> dict[str, Any]:
    """{"robot": {"joints": x}} -> {"robot.joints": x}, for a dictionary of observations or of their spaces."""
    parts: dict[str, Any] = {}
    for key, value in observation.items():
        if isinstance(value, Mapping):
            parts |= {f"{key}.{name}": part for name, part in named_parts(value).items()}
        else:
            parts[key] = value
    return parts


def stack(observations: Sequence[Any]) -> Observation:
    """Observations [*O] of one kind stacked along a new first axis, key by key where they are dictionaries."""
    if isinstance(observations[0], dict):
        return {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
    return np.stack(observations)
