"""What a rollout pool and the hosts of its environments say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from policy_accel.errors import UserError

Observation = np.ndarray | dict[str, np.ndarray]


def stack(observations: Sequence[Any]) -> Observation:
    """Observations [*O] of one kind stacked along a new first axis, key by key where they are dictionaries."""
    if isinstance(observations[0], dict):
        return {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
    return np.stack(observations)


@dataclass(frozen=True)
class EnvironmentSpec:
    """Which environment is rolled out, and how an episode in it is run.

    Attributes:
        id: gymnasium id, registered by importing `module`.
        kwargs: keyword arguments for `gymnasium.make`.
        max_steps: an episode ends after this many environment steps, at least 1. A time limit that was registered
            with the id is left out: this is the only one.
        n_obs_steps: number of newest observations that the policy sees, at least 1.
        module: dotted name of the module that registers the id.
        film_kwargs: more keyword arguments, for the environment of an episode that is filmed only; for example
            {"render_camera": "frontview"}.

    Raises:
        UserError: a number below 1, or a module name that is not a dotted name.
    """

    id: str
    kwargs: dict[str, Any]
    max_steps: int
    n_obs_steps: int
    module: str = "policy_accel.envs"
    film_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_steps", "n_obs_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not all(part.isidentifier() for part in self.module.split(".")):
            raise UserError(f"module = '{self.module}': give a dotted module name such as 'policy_accel.envs'")


@dataclass(frozen=True)
class EpisodeResult:
    """One row of an evaluation.

    Attributes:
        seed: seed of the environment's reset.
        score: largest reward of the episode; 0 when the episode failed with `error`.
        success: whether any step's info had a true `is_success`; in an environment without it, whether score >= 1.
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


@dataclass(frozen=True)
class Start:
    """Begin the episode of a seed in a slot; film it when a video path is given."""

    slot: int
    seed: int
    video: Path | None = None


@dataclass(frozen=True)
class Advance:
    """Execute a chunk of actions [n_action_steps, *A] in a slot's episode."""

    slot: int
    actions: np.ndarray


Task = Start | Advance


@dataclass(frozen=True)
class Reply:
    """What became of a slot: exactly one of the fields after `slot` is set.

    Attributes:
        slot: the slot.
        observation: the episode goes on; its last observations [n_obs_steps, *O].
        result: the episode is over.
        error: the episode failed, for this reason.
        lost: the episode shared a worker process with one that failed and must be run again.
    """

    slot: int
    observation: Observation | None = field(default=None, repr=False)
    result: EpisodeResult | None = None
    error: str | None = None
    lost: bool = False


class Host(Protocol):
    """Whoever holds the environments: this process or a group of workers."""

    def perform(self, tasks: Sequence[Task]) -> dict[int, Reply]:
        """Carry out at most one task a slot; the replies by slot, also of slots that were lost on the way.

        Raises:
            UserError: the environment cannot be made, or a video cannot be written.
        """

    def close(self, *, at_once: bool = False) -> None:
        """Release environments and processes; `at_once` does not wait for work in progress."""
