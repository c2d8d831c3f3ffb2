"""Episodes and the environments that they run in, in one process."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from policy_accel.errors import UserError
from policy_accel.evaluation.protocol import (
    Advance,
    EnvironmentSpec,
    EpisodeResult,
    Observation,
    Reply,
    Start,
    Task,
    stack,
)
from policy_accel.evaluation.video import VideoWriter

DEFAULT_FPS = 10.0


class LocalHost:
    """Hosts the slots that it is given tasks for.

    The environment's class is imported at once, with its simulator. A slot's environment is made at its first episode
    and kept; a filmed episode has an environment of its own, which can render. An environment that raised is not used
    again.

    Raises:
        UserError: the environment cannot be imported.
    """

    def __init__(self, spec: EnvironmentSpec) -> None:
        import_environment(spec)
        self._spec = spec
        self._environments: dict[tuple[int, bool], gymnasium.Env] = {}
        self._episodes: dict[int, Episode] = {}

    def perform(self, tasks: Sequence[Task]) -> dict[int, Reply]:
        """See `protocol.Host`."""
        return {task.slot: self.perform_one(task) for task in tasks}

    def perform_one(self, task: Task) -> Reply:
        """The reply to a single task; an exception of the environment is an error of the episode."""
        slot = task.slot
        try:
            match task:
                case Start():
                    self._abandon(slot)
                    environment = self._environment(slot, filmed=task.video is not None)
                    episode = Episode(environment, self._spec, task.seed, task.video)
                    self._episodes[slot] = episode
                    episode.reset()
                case Advance():
                    episode = self._episodes[slot]
                    if episode.advance(task.actions):
                        return Reply(slot, result=self._episodes.pop(slot).finish())
            return Reply(slot, observation=episode.observation())
        except UserError:
            raise
        except Exception as error:
            self._abandon(slot)
            self._drop_environments(slot)
            return Reply(slot, error=" ".join(f"{type(error).__name__}: {error}".split()))

    def close(self, *, at_once: bool = False) -> None:
        """See `protocol.Host`."""
        for slot in list(self._episodes):
            self._abandon(slot)
        for slot in {slot for slot, _ in self._environments}:
            self._drop_environments(slot)

    def _environment(self, slot: int, *, filmed: bool) -> gymnasium.Env:
        if (slot, filmed) not in self._environments:
            self._environments[slot, filmed] = make_environment(self._spec, filmed=filmed)
        return self._environments[slot, filmed]

    def _abandon(self, slot: int) -> None:
        episode = self._episodes.pop(slot, None)
        if episode is not None and episode.video is not None:
            episode.video.discard()

    def _drop_environments(self, slot: int) -> None:
        for filmed in (False, True):
            environment = self._environments.pop((slot, filmed), None)
            if environment is not None:
                with contextlib.suppress(Exception):  # it may be broken, and nobody uses it again
                    environment.close()


class Episode:
    """One episode in progress.

    Args:
        environment: belongs to this episode until it is over.
        spec: for max_steps and n_obs_steps.
        seed: of the environment's reset.
        video: where to write the film of it; the environment renders rgb_array then.
    """

    def __init__(self, environment: gymnasium.Env, spec: EnvironmentSpec, seed: int, video: Path | None) -> None:
        self.environment = environment
        self.seed = seed
        self.length = 0
        self.score = -math.inf
        self.success: bool | None = None
        self.metrics: dict[str, float] | None = None
        fps = float(environment.metadata.get("render_fps") or DEFAULT_FPS)
        self.video = None if video is None else VideoWriter(video, fps)
        self._max_steps = spec.max_steps
        self._n_obs_steps = spec.n_obs_steps
        self._history: deque[Observation] = deque()

    def reset(self) -> None:
        """Start from the seed; the first observation fills the history."""
        self._want_frames(True)
        first, _ = self.environment.reset(seed=self.seed)
        self._history = deque([_snapshot(first)] * self._n_obs_steps, maxlen=self._n_obs_steps)
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
            self.score = max(self.score, float(reward))
            if "is_success" in info:
                self.success = bool(self.success or info["is_success"])
            self._history.append(_snapshot(observation))
            self._film()
            if terminated or truncated or self.length >= self._max_steps:
                self.metrics = _metrics(info)
                return True
        return False

    def observation(self) -> Observation:
        """The last n_obs_steps observations, oldest first: [n_obs_steps, *O], or a dictionary of such arrays."""
        stacked = stack(self._history)
        for key, array in stacked.items() if isinstance(stacked, dict) else [("", stacked)]:
            if array.dtype.kind not in "biu" and not np.isfinite(array).all():
                raise ValueError(f"the observation {key} after step {self.length} has a NaN or infinite value")
        return stacked

    def finish(self) -> EpisodeResult:
        """The row of this episode, its video in place."""
        if self.video is not None:
            self.video.finish()
        success = self.score >= 1 if self.success is None else self.success
        name = None if self.video is None else self.video.path.name
        return EpisodeResult(self.seed, self.score, success, self.length, video=name, metrics=self.metrics)

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
            raise UserError(f"the environment cannot render ({error}); go without videos") from error
        self.video.add(frame)


def environment_spaces(spec: EnvironmentSpec) -> tuple[gymnasium.Space, gymnasium.Space]:
    """Observation and action space of an environment, which is made for it and closed again.

    Raises:
        UserError: it cannot be imported, or cannot be made.
    """
    import_environment(spec)
    environment = make_environment(spec, filmed=False)
    try:
        return environment.observation_space, environment.action_space
    finally:
        environment.close()


def import_environment(spec: EnvironmentSpec) -> None:
    """Import the module that registers the environment, and then the environment's class with its simulator.

    Raises:
        UserError: a module that cannot be imported; a package that is not installed, by its name; an unknown id.
    """
    try:
        importlib.import_module(spec.module)
    except ImportError as error:
        raise UserError(f"the module '{spec.module}' of environment '{spec.id}' does not import: {error}") from error
    try:
        entry_point = gymnasium.spec(spec.id).entry_point
        if isinstance(entry_point, str):
            importlib.import_module(entry_point.partition(":")[0])
    except UserError:
        raise
    except Exception as error:
        raise _explained(error, f"environment '{spec.id}'", "cannot be made") from error


def make_environment(spec: EnvironmentSpec, *, filmed: bool) -> gymnasium.Env:
    """`gymnasium.make` without time limit and checker; a filmed one renders rgb_array and gets spec.film_kwargs.

    Raises:
        UserError: it cannot be made, or cannot render, or takes no such argument.
    """
    kwargs: dict[str, Any] = spec.kwargs | ({**spec.film_kwargs, "render_mode": "rgb_array"} if filmed else {})
    try:
        environment = gymnasium.make(spec.id, max_episode_steps=-1, disable_env_checker=True, **kwargs)
    except UserError:
        raise
    except Exception as error:
        for name in spec.film_kwargs if filmed and isinstance(error, TypeError) else ():
            if f"unexpected keyword argument '{name}'" in str(error):
                value = spec.film_kwargs[name]
                raise UserError(
                    f"environment '{spec.id}' cannot be filmed with {name}={value!r}: it does not take {name}; film it "
                    "without."
                ) from error
        what = "cannot be made to be filmed" if filmed else "cannot be made"
        raise _explained(error, f"environment '{spec.id}' with {spec.kwargs}", what) from error
    if filmed and "rgb_array" not in environment.metadata.get("render_modes", []):
        raise UserError(f"environment '{spec.id}' cannot be filmed: it has no render mode rgb_array; go without videos")
    return environment


def _explained(error: Exception, environment: str, what: str) -> UserError:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return UserError(f"{environment} needs the Python package '{package}', which is not installed; install it.")
    return UserError(f"{environment} {what}: {' '.join(str(error).split()) or type(error).__name__}")


def _metrics(info: dict[str, Any]) -> dict[str, float] | None:
    if "metrics" not in info:
        return None
    metrics = {str(name): float(value) for name, value in info["metrics"].items()}
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"the metric {name} at the end of the episode is {value}")
    return metrics


def _snapshot(observation: Any) -> Observation:
    if isinstance(observation, dict):
        return {key: np.array(value) for key, value in observation.items()}
    return np.array(observation)
