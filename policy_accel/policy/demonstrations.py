"""Demonstrations of a task, read, split into training and validation episodes, and cut into windows."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor

from policy_accel.data import Episodes
from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.split import EpisodeSplit
from policy_accel.data.statistics import too_coarse
from policy_accel.errors import UserError, did_you_mean
from policy_accel.models.encoders import EncoderConfig
from policy_accel.policy.actions import decode_actions, encode_actions
from policy_accel.policy.fields import columns, columns_of, flat, keys_of, parse_field, positions, precisions
from policy_accel.policy.heading import data_heading
from policy_accel.policy.image_store import ImageStore, read_image_store
from policy_accel.policy.observations import ObservationLayout
from policy_accel.policy.policy import PolicyConfig
from policy_accel.policy.task_data import action_fields, image_ranges, open_task_data, read_numbers
from policy_accel.policy.windows import Windows, make_windows


@dataclass
class TaskConfig:
    """A robot task: its demonstrations and the environment that scores a policy."""

    name: str = "custom"
    """Names the task in the run directory and in results."""
    data: str = MISSING
    """Path of demonstrations in any known format; "shipped:NAME" is a file of the package's folder datasets."""
    filter_key: str | None = None
    """Which episodes of a robomimic file to use: a name below mask/, as train or 20_percent; null for all."""
    episodes: list[Any] | None = None
    """Which episodes to use, of those of the filter, by their number in the file from 0: [0, 2, 10:50]; null for all.
    They are split into training and validation afterwards."""
    skip_bad_episodes: bool = False
    """Leave out episodes that are damaged or hold values that are not finite, and list them; the data are read once
    more for it."""
    layout: str | None = None
    """YAML file that says where HDF5 of another make has its episodes and arrays (docs/how_to/hdf5.md)."""
    observation: list[str] = MISSING
    """Keys of the data that make up an observation, in the environment's order; "key[a:b]" takes columns."""
    images: list[str] = field(default_factory=list)
    """Keys of pictures that the policy sees through an encoder: uint8 [N, H, W, C], or what can be turned into that, as
    channels before rows and floats from 0 to 1."""
    image_ranges: dict[str, Any] = field(default_factory=dict)
    """Picture -> [low, high] of its values, which become 0 and 255, for depths and others that are not of 8 bits:
    {depth: [0, 2000]}."""
    goal: list[str] = field(default_factory=list)
    """Fields that say where to get. They follow the observation, or pin the end of the plan (conditioning=planning)."""
    goal_state: str | None = None
    """Columns of the observation that have the goal's values when it is reached, as "observation[:2]"; for planning."""
    environment_keys: dict[str, str] = field(default_factory=dict)
    """Field or picture -> entry of the environment's observation, where that has another name."""
    action: Any = MISSING
    """Key (or columns of a key) that holds the actions, or several, put side by side: [arm, "hand[:3]"]."""
    action_rotation: str = "none"
    """none, or rotation_6d: learn the rotations of absolute actions (position, axis-angle, gripper) in six numbers."""
    observation_normalization: str = "limits"
    """limits (to [-1, 1]), limits_except_quat (fields whose key ends in quat stay as they are), gaussian, max_abs (all
    divided by the largest magnitude) or identity."""
    action_normalization: str = "limits"
    """limits, gaussian, max_abs, identity, or (with rotation_6d) position_limits: only positions to [-1, 1]."""
    val_ratio: float = 0.02
    """Share of the episodes that are kept from training, for the validation loss; 0 trains on all."""
    min_val_episodes: int = 1
    """At least so many are kept from training where there are 20 or more."""
    max_train_episodes: int | None = None
    """Train on at most so many episodes, drawn by split_seed; null for all."""
    split_seed: int = 42
    """Of the choice of validation episodes, and of those that max_train_episodes leaves."""
    group: str | None = None
    """Key that numbers the groups among which noise may be assigned (a task or class of each step); null for none."""
    padding: bool = True
    """Let windows begin before and end behind their episode, whose first and last steps are then repeated; false for
    windows inside of it alone."""
    mask_padding: bool = False
    """Leave the repeated steps at the ends of episodes out of the loss (the reference counts them)."""
    environment: str | None = None
    """gymnasium id; null for a task without a simulator, which is trained and not scored."""
    environment_module: str = "policy_accel.envs"
    """Module that registers the id when it is imported."""
    environment_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments that the environment is made with."""
    environment_from_data: bool = False
    """Give the environment the data's own description of it (env_args, as robomimic's files have)."""
    max_steps: int | None = None
    """Environment steps of an episode; null for the limit that is registered with the environment, or 300 without."""
    score: str = "max_reward"
    """What scores an episode: max_reward, return (the sum of its rewards), final_reward or success (1 or 0)."""


def observation_layout(config: TaskConfig) -> ObservationLayout:
    """What a policy of this task takes from the environment's observation.

    Raises:
        UserError: task.environment_keys renames something that is neither a field nor a picture, but nearly so. Names
            that are like none may belong to a picture that task.images leaves out this time.
    """
    known = [*config.observation, *config.goal, *config.images]
    for name in config.environment_keys:
        if name not in known and difflib.get_close_matches(name, known, n=1, cutoff=0.6):
            raise UserError(
                f"task.environment_keys names '{name}', which is neither a field nor a picture of the task; "
                f"{did_you_mean(name, known)}"
            )
    return ObservationLayout(
        (*config.observation, *config.goal),
        tuple(config.images),
        dict(config.environment_keys),
        image_ranges(config),
    )


@dataclass(frozen=True)
class Demonstrations:
    """Observations [N, O] and actions [N, A], float32 or float64, and pictures; windows [W, horizon] into them.

    Actions are in the form that is diffused, the rest is in the data's units. groups: [N] int64, the group of each step
    when the task has groups. goal_columns: columns of the observation that a plan's goal pins, () without planning.
    action_range: smallest and largest value [A] of each number of the recorded actions. metadata: of the data set.
    quaternions: columns of the observation that belong to fields whose key ends in quat. heading: how many of the
    episodes are used, and what was lost when they were recorded, in words. observation_precision, action_precision: how
    exactly each column was recorded, see `precisions`.
    """

    observations: Tensor
    actions: Tensor
    train: Windows
    validation: Windows | None
    episode_ends: np.ndarray
    split: EpisodeSplit
    groups: Tensor | None = None
    images: ImageStore | None = None
    goal_columns: tuple[int, ...] = ()
    action_range: tuple[np.ndarray, np.ndarray] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    quaternions: tuple[int, ...] = ()
    heading: Mapping[str, str] = field(default_factory=dict)
    observation_precision: np.ndarray | None = None
    action_precision: np.ndarray | None = None

    def recorded_actions(self, rotation: str) -> np.ndarray:
        """The actions [N, A] float64 in the data's units, as they were before `encode_actions` with `rotation`."""
        actions: np.ndarray = decode_actions(self.actions, rotation).double().numpy()
        return actions


def load_demonstrations(
    config: TaskConfig, policy: PolicyConfig, encoder: EncoderConfig | None = None
) -> Demonstrations:
    """Read the demonstrations of a task and window them; see `windowed`.

    Raises:
        UserError: a goal that the conditioning cannot use; as `open_task_data` and `windowed`.
    """
    _check_goal(config, policy.conditioning == "planning")
    with open_task_data(config) as reader:
        return windowed(config, policy, encoder, reader)


def windowed(
    config: TaskConfig,
    policy: PolicyConfig,
    encoder: EncoderConfig | None,
    reader: EpisodeReader,
    *,
    pictures: bool = True,
) -> Demonstrations:
    """The demonstrations of `reader`, windowed, padded and split as in Diffusion Policy. Pictures are kept at the size
    of `encoder`, or at their own; without `pictures` they are left out.

    A plan may end before its last step: it then stays where it is, so windows of conditioning=planning repeat the last
    step of an episode up to horizon - n_obs_steps times; others n_action_steps - 1 times. With task.padding=false none
    repeats any.

    Raises:
        UserError: as the reader, the windows and the split do; a field of the task that the data does not have; images
            that are not pictures.
    """
    planning = policy.conditioning == "planning"
    episodes, split = read_numbers(config, reader)
    size_of = None if encoder is None else encoder.frame_size
    images = read_image_store(reader, config.images, size_of=size_of) if config.images and pictures else None
    pad_before = policy.n_obs_steps - 1
    pad_after = policy.horizon - policy.n_obs_steps if planning else policy.n_action_steps - 1
    if not config.padding:
        pad_before = pad_after = 0
    shortest = max(1, policy.horizon - pad_before - pad_after)
    long_enough = episodes.lengths >= shortest
    if not (split.train & long_enough).any():
        raise UserError(
            f"{episodes.source}: none of the {split.train.sum()} training episodes is long enough for a window of "
            f"policy.horizon={policy.horizon}; the longest has {episodes.lengths[split.train].max()} steps."
        )

    windows = partial(make_windows, episodes.episode_ends, policy.horizon, pad_before=pad_before, pad_after=pad_after)
    actions = torch.from_numpy(columns(episodes, action_fields(config)))
    observed = [*config.observation, *([] if planning else config.goal)]
    quaternions = [name for name in observed if parse_field(name)[0].endswith("quat")]
    train = windows(episodes=split.train)
    validation = windows(episodes=split.validation) if (split.validation & long_enough).any() else None
    return Demonstrations(
        observations=torch.from_numpy(columns(episodes, observed)),
        actions=encode_actions(actions, config.action_rotation),
        train=train,
        validation=validation,
        episode_ends=episodes.episode_ends,
        split=split,
        groups=None if config.group is None else _groups(episodes, config.group),
        images=images,
        goal_columns=_goal_columns(episodes, config) if planning else (),
        quaternions=tuple(place for name in quaternions for place in positions(episodes, name, observed)),
        action_range=(actions.amin(0).numpy(), actions.amax(0).numpy()),
        metadata=episodes.metadata,
        heading={
            **data_heading(episodes, split, train, validation, shortest, reader.remarks),
            "recorded": " ".join(_coarse(episodes, [*observed, *action_fields(config)])),
        },
        observation_precision=precisions(episodes, observed),
        action_precision=precisions(episodes, action_fields(config)),
    )


def _coarse(episodes: Episodes, fields: Sequence[str]) -> Iterator[str]:
    """What the fields lost when they were recorded."""
    for key in keys_of(fields):
        values = episodes.arrays[key]
        yield from too_coarse(key, values.min(0).reshape(-1), values.max(0).reshape(-1))


def _check_goal(config: TaskConfig, planning: bool) -> None:
    if planning and (not config.goal or config.goal_state is None):
        raise UserError(
            f"policy.conditioning=planning needs a goal, and task '{config.name}' has goal={config.goal} and "
            f"goal_state={config.goal_state}; set task.goal=[desired_goal] and task.goal_state='observation[:2]', say."
        )
    if planning and config.images:
        raise UserError("policy.conditioning=planning plans numbers, not pictures; set task.images=[].")


def _goal_columns(episodes: Episodes, config: TaskConfig) -> tuple[int, ...]:
    """Columns of the observation that the goal pins, as many as it has numbers."""
    pinned = positions(episodes, config.goal_state or "", config.observation)
    numbers = columns(episodes, config.goal).shape[1]
    if len(pinned) != numbers:
        raise UserError(
            f"task.goal=[{', '.join(config.goal)}] has {numbers} numbers and task.goal_state={config.goal_state} takes "
            f"{len(pinned)} columns of the observation; make them agree."
        )
    return pinned


def _groups(episodes: Episodes, name: str) -> Tensor:
    """The distinct rows of the field `name`, numbered: [N] int64."""
    values = episodes.arrays[parse_field(name)[0]]
    taken = columns_of(name, values.shape[1:])
    values = flat(values, 1)[:, taken.start : taken.stop]
    _, numbers = np.unique(values, axis=0, return_inverse=True)
    return torch.from_numpy(numbers.reshape(-1).astype(np.int64))
