"""From a replay buffer to resident tensors: observations and actions, normalised, with the windows into them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor

from policy_accel.data import Episodes, read_episodes, shipped_path
from policy_accel.data.split import EpisodeSplit, split_episodes
from policy_accel.data.windows import Windows, make_windows
from policy_accel.errors import UserError

SHIPPED = "shipped:"
FIELD = re.compile(r"^(?P<key>[^\[\]]+?)(\[(?P<start>-?\d*):(?P<stop>-?\d*)\])?$")


@dataclass
class TaskConfig:
    """A robot task: its demonstrations and the environment that scores a policy."""

    name: str = "custom"
    data: str = MISSING
    """Path of a replay buffer; "shipped:NAME" is a file of the package's folder datasets."""
    observation: list[str] = MISSING
    """Keys of the replay buffer that make up an observation, in the environment's order; "key[a:b]" takes columns."""
    action: str = MISSING
    """Key (or columns of a key) that holds the actions."""
    observation_normalization: str = "limits"
    """limits (to [-1, 1]), gaussian or identity."""
    action_normalization: str = "limits"
    val_ratio: float = 0.02
    max_train_episodes: int | None = None
    split_seed: int = 42
    group: str | None = None
    """Key that numbers the groups among which noise may be assigned (a task or class of each step); null for none."""
    mask_padding: bool = False
    """Leave the repeated steps at the ends of episodes out of the loss (the reference counts them)."""
    environment: str | None = None
    """gymnasium id; null for a task without a simulator, which is trained and not scored."""
    environment_module: str = "policy_accel.envs"
    """Module that registers the id when it is imported."""
    environment_options: dict[str, Any] = field(default_factory=dict)
    max_steps: int = 300
    """Environment steps of an episode."""


def data_path(config: TaskConfig) -> Path:
    """Where the demonstrations of `config` are."""
    if config.data.startswith(SHIPPED):
        return shipped_path(config.data.removeprefix(SHIPPED))
    return Path(config.data).expanduser()


def columns(episodes: Episodes, fields: list[str]) -> np.ndarray:
    """Concatenate the named fields, flattened per step, to [N, D] float32.

    Raises:
        UserError: a field that is not "key" or "key[a:b]", or that takes no column.
    """
    parts = []
    for name in fields:
        key, rows = parse_field(name)
        part = episodes.arrays[key].reshape(episodes.steps, -1)[:, rows]
        if part.shape[1] == 0:
            raise UserError(
                f"task field '{name}' takes no column of {key}, which has {episodes.arrays[key].shape[1:]}."
            )
        parts.append(part.astype(np.float32))
    return np.concatenate(parts, axis=1)


def parse_field(name: str) -> tuple[str, slice]:
    """ "state[:2]" -> ("state", slice(None, 2))."""
    match = FIELD.match(name)
    if match is None:
        raise UserError(f"task field '{name}' is not of the form key or key[a:b], for example state[:2].")
    start, stop = (int(match[part]) if match[part] else None for part in ("start", "stop"))
    return match["key"], slice(start, stop)


@dataclass(frozen=True)
class Demonstrations:
    """observations [N, O] and actions [N, A] float32 in the data's units; windows [W, horizon] into them."""

    observations: Tensor
    actions: Tensor
    train: Windows
    validation: Windows | None
    train_episodes: int
    groups: Tensor | None = None
    """[N] int64: the group of each step, when the task has groups."""


def read_task_episodes(config: TaskConfig) -> tuple[Episodes, EpisodeSplit]:
    """The fields of the task's replay buffer, and which episodes train.

    Raises:
        UserError: as the reader and the split do; no observation.
    """
    if not config.observation:
        raise UserError("task.observation is empty; name at least one key of the replay buffer.")
    fields = [*config.observation, config.action, *([] if config.group is None else [config.group])]
    episodes = read_episodes(data_path(config), keys=list(dict.fromkeys(parse_field(name)[0] for name in fields)))
    split = split_episodes(
        len(episodes),
        val_ratio=config.val_ratio,
        seed=config.split_seed,
        max_train_episodes=config.max_train_episodes,
    )
    return episodes, split


def load_demonstrations(config: TaskConfig, *, horizon: int, n_obs_steps: int, n_action_steps: int) -> Demonstrations:
    """Read and window the demonstrations of a task, padded and split as in Diffusion Policy.

    Raises:
        UserError: as the reader, the windows and the split do; a field of the task that the data does not have.
    """
    episodes, split = read_task_episodes(config)
    padding = {"pad_before": n_obs_steps - 1, "pad_after": n_action_steps - 1}
    ends = torch.from_numpy(episodes.episode_ends)
    long_enough = episodes.lengths > horizon - n_obs_steps - n_action_steps + 1
    if not (split.train & long_enough).any():
        raise UserError(
            f"{episodes.source}: none of the {split.train.sum()} training episodes is long enough for a window of "
            f"policy.horizon={horizon}; the longest has {episodes.lengths[split.train].max()} steps."
        )
    validation = None
    if (split.validation & long_enough).any():
        validation = make_windows(ends, horizon, episodes=torch.from_numpy(split.validation), **padding)
    return Demonstrations(
        observations=torch.from_numpy(columns(episodes, config.observation)),
        actions=torch.from_numpy(columns(episodes, [config.action])),
        train=make_windows(ends, horizon, episodes=torch.from_numpy(split.train), **padding),
        validation=validation,
        train_episodes=int(split.train.sum()),
        groups=None if config.group is None else _groups(episodes, config.group),
    )


def _groups(episodes: Episodes, name: str) -> Tensor:
    """The distinct rows of the field `name`, numbered: [N] int64."""
    key, rows = parse_field(name)
    values = episodes.arrays[key].reshape(episodes.steps, -1)[:, rows]
    _, numbers = np.unique(values, axis=0, return_inverse=True)
    return torch.from_numpy(numbers.reshape(-1).astype(np.int64))
