"""The demonstrations of a task: which episodes and keys of the file it uses, checked before a step is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from policy_accel.data import Episodes
from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.images import image_path
from policy_accel.data.readers import gather, open_episodes, without_unreadable
from policy_accel.data.split import EpisodeSplit, split_episodes
from policy_accel.errors import UserError, did_you_mean
from policy_accel.parsing import is_number
from policy_accel.policy.fields import columns_of, keys_of, parse_field
from policy_accel.policy.pictures import PictureView

if TYPE_CHECKING:  # the settings of a task lie in a module that calls this one
    from policy_accel.policy.demonstrations import TaskConfig


def action_fields(config: TaskConfig) -> list[str]:
    """The fields of task.action, which is one or a list.

    Raises:
        UserError: it is neither, or none at all.
    """
    fields = [config.action] if isinstance(config.action, str) else config.action
    if not isinstance(fields, list | tuple) or not fields or not all(isinstance(name, str) for name in fields):
        raise UserError(f"task.action={config.action} names no actions; give a key, or several, as [arm, hand[:3]].")
    return list(fields)


def image_ranges(config: TaskConfig) -> dict[str, tuple[float, float]]:
    """Picture -> the values that become 0 and 255.

    Raises:
        UserError: a range of no picture of the task; no two different finite numbers.
    """
    for name, ends in config.image_ranges.items():
        if name not in config.images:
            known = did_you_mean(name, config.images) if config.images else "task.images is empty."
            raise UserError(f"task.image_ranges names '{name}', which is no picture of the task; {known}")
        if not isinstance(ends, list | tuple) or len(ends) != 2 or not all(map(is_number, ends)) or ends[0] == ends[1]:
            raise UserError(f"task.image_ranges.{name}={ends} is no range; give two numbers, as [0, 2000].")
    return {name: (float(low), float(high)) for name, (low, high) in config.image_ranges.items()}


@contextmanager
def open_task_data(config: TaskConfig) -> Iterator[EpisodeReader]:
    """The task's episodes, which are the same for numbers and pictures.

    Raises:
        UserError: as `check_task_data`; with task.skip_bad_episodes, no episode is left.
    """
    keys = [*_keys(config), *config.images]
    with _opened(config) as reader:
        yield without_unreadable(reader, keys) if config.skip_bad_episodes else reader


def read_task_episodes(config: TaskConfig) -> tuple[Episodes, EpisodeSplit]:
    """The fields of the task's demonstrations, and which episodes train.

    Raises:
        UserError: as `open_task_data` and the split do.
    """
    with open_task_data(config) as reader:
        return read_numbers(config, reader)


def check_task_data(config: TaskConfig) -> None:
    """Raise UserError unless the task's demonstrations are there and have what its fields name; no step is read."""
    _opened(config).close()


def _opened(config: TaskConfig) -> EpisodeReader:
    if not config.observation and not config.images:
        raise UserError("task.observation is empty; name at least one key of the demonstrations.")
    reader = open_episodes(
        image_path(config.data),
        [*_keys(config), *config.images],
        filter_key=config.filter_key,
        episodes=config.episodes,
        skip_bad_episodes=config.skip_bad_episodes,
        layout=config.layout,
    )
    try:
        for name in (*config.observation, *config.goal, *action_fields(config)):
            feature = reader.features[parse_field(name)[0]]
            columns_of(name, feature.shape)
            if feature.is_image:
                raise UserError(
                    f"task field '{name}' is no row of numbers but a picture of {list(feature.shape)}; name it in "
                    "task.images."
                )
        return PictureView(reader, config.images, image_ranges(config)) if config.images else reader
    except BaseException:
        reader.close()
        raise


def read_numbers(config: TaskConfig, reader: EpisodeReader) -> tuple[Episodes, EpisodeSplit]:
    """`read_task_episodes` from the open data."""
    episodes = gather(reader, _keys(config))
    split = split_episodes(
        len(episodes),
        val_ratio=config.val_ratio,
        seed=config.split_seed,
        max_train_episodes=config.max_train_episodes,
        least=config.min_val_episodes,
    )
    return episodes, split


def _keys(config: TaskConfig) -> list[str]:
    group = [] if config.group is None else [config.group]
    return keys_of([*config.observation, *config.goal, *action_fields(config), *group])
