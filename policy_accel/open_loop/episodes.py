"""Which demonstrations a policy is measured on: those that did not train it, which is told by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from policy_accel.data.formats.base import EpisodeReader, EpisodeView
from policy_accel.data.formats.recognise import recognised_format
from policy_accel.data.images import image_path
from policy_accel.errors import UserError
from policy_accel.open_loop.errors import ActionStatistics
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.demonstrations import Demonstrations, windowed
from policy_accel.policy.fields import columns_of, parse_field
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.policy.task import fingerprint_of_numbers
from policy_accel.policy.task_data import action_fields, open_task_data
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.first_weights import source_of
from policy_accel.training.run_directory import read_typed_config

MOST = 64
"""Episodes that are read, evenly spaced, where nobody names any: pictures of all would take long."""
VALIDATION = "valid"
"""Filter of a data set's own validation episodes, as robomimic's files have it."""
TRAINING, THESE = "training", "measured"


@dataclass(frozen=True)
class Measured:
    """The episodes that a policy is measured on.

    Attributes:
        demonstrations: of these episodes alone.
        episodes: their numbers in the file.
        dimensions: names of the numbers of an action: action[0], ...
        trained: how many of them trained the run; None where that is not known.
        which: what they are, in words.
        unit: mean and spread of the actions that errors are compared with.
        unit_of: whose they are: `TRAINING`, or `THESE` where the run's own data are gone or changed.
    """

    demonstrations: Demonstrations
    episodes: tuple[int, ...]
    dimensions: tuple[str, ...]
    trained: int | None
    which: str
    unit: ActionStatistics
    unit_of: str


def measured_episodes(
    config: RobotConfig,
    policy: DiffusionPolicy,
    fingerprint: str,
    path: str | None = None,
    chosen: Sequence[str] | None = None,
    layout: Path | None = None,
) -> Measured:
    """Episodes that did not train a run, of its own data or of others.

    Of the data's own validation split (a filter "valid"), where it has one, else of all. Episodes that somebody chose
    are taken whatever they are, and `which` says how many of them trained the run.

    Args:
        config: of the run.
        policy: of the run, which the data must fit.
        fingerprint: of what the run was trained on, as its checkpoints have it.
        path: demonstrations in any format; None for those of the run.
        chosen: numbers and ranges of episodes in `path`, as task.episodes; None for those that did not train it.
        layout: of the data, as task.layout; None for that of the run.

    Raises:
        UserError: as the readers do; data of other sizes than the policy's; no episode that did not train the run; the
            run's own data have changed, and nobody chose.
    """
    own = path is None or image_path(path).resolve() == image_path(config.task.data).resolve()
    task = config.task if own else replace(config.task, data=str(path), filter_key=None, episodes=None)
    if layout is not None:
        task = replace(task, layout=str(layout))
    elif not own and recognised_format(task.data) != "robomimic":  # a layout is of HDF5
        task = replace(task, layout=None)
    if chosen is not None:
        task = replace(task, filter_key=None, episodes=list(chosen))
    task = replace(task, val_ratio=0.0, max_train_episodes=None)
    known, unknown, found, unit = set[bytes](), "", None, None
    rotation = config.task.action_rotation
    try:
        trained_on = _own_demonstrations(config, fingerprint)
        digests, trains = _digests(trained_on), trained_on.split.train
        known, unit = _trained(digests, trains), _unit(trained_on, trains, rotation)
        found = digests if own and chosen is None else None
    except UserError as error:
        if own and chosen is None:
            raise
        unknown = str(error).rstrip(".")
    try:
        known |= _before(config)
    except UserError as error:
        unknown = unknown or str(error).rstrip(".")
    with open_task_data(task) as reader:
        # The fields of all episodes; pictures are read of those alone that are measured.
        found = found or _digests(windowed(task, config.policy, None, reader, pictures=False))
        seen = np.array([digest in known for digest in found])
        kept = np.arange(len(found)) if chosen is not None else _unseen(reader, seen, config.task.val_ratio)
        data = windowed(task, config.policy, config.encoder, EpisodeView(reader, episodes=kept.tolist()))
        names = [(parse_field(name)[0], name) for name in action_fields(task)]
        dimensions = [f"{key}[{i}]" for key, name in names for i in columns_of(name, reader.features[key].shape)]
        _check_fits(policy, data, reader.source)
        numbers = tuple(reader.origin(episode)[1] for episode in kept.tolist())
        which = _words(reader.source, kept, seen, unknown)
    trained = None if unknown else int(seen[kept].sum())
    unit_of = THESE if unit is None else TRAINING
    unit = unit or _unit(data, np.ones(len(kept), bool), rotation)
    return Measured(data, numbers, tuple(dimensions), trained, which, unit, unit_of)


def _unit(data: Demonstrations, episodes: np.ndarray, rotation: str) -> ActionStatistics:
    """Of the actions of some episodes [E] bool, as they are executed."""
    rotated = rotation != "none"
    precision = float(np.finfo(np.float32).eps) if rotated else data.action_precision
    assert precision is not None
    lengths = np.diff(data.episode_ends, prepend=0)
    return ActionStatistics.of(data.recorded_actions(rotation)[np.repeat(episodes, lengths)], precision)


def _own_demonstrations(config: RobotConfig, fingerprint: str) -> Demonstrations:
    """Those of the run, without pictures; raises UserError where it cannot be told any more which trained it."""
    with open_task_data(config.task) as reader:
        data = windowed(config.task, config.policy, None, reader, pictures=False)
    own = fingerprint_of_numbers(data)
    if not fingerprint.startswith(own):
        raise UserError(
            f"task.data={config.task.data} is not what the run was trained on any more, so that it is not known which "
            "episodes trained it; put the data back, or choose episodes that did not with --data-episodes."
        )
    return data


def _trained(digests: Sequence[bytes], trains: np.ndarray) -> set[bytes]:
    return {digest for digest, train in zip(digests, trains, strict=True) if train}


def _before(config: RobotConfig) -> set[bytes]:
    """The content of the episodes that trained the run whose weights this one began with, and so on; raises as
    `_own_demonstrations`."""
    if config.init_from is None:
        return set()
    path = source_of(config.init_from)
    if path.is_file():
        raise UserError(f"init_from={config.init_from} does not say which episodes trained it.")
    first: RobotConfig = read_typed_config(path.resolve().parent.parent, RobotConfig, config.track)
    data = _own_demonstrations(first, str(load_checkpoint(path, ()).state["data"]))
    return _trained(_digests(data), data.split.train) | _before(first)


def _digests(data: Demonstrations) -> list[bytes]:
    """The content of each episode, whatever format it is in."""
    rows = [tensor.float().contiguous().numpy() for tensor in (data.observations, data.actions)]
    ends = data.episode_ends.tolist()
    return [
        hashlib.sha256(b"".join(part[begin:end].tobytes() for part in rows)).digest()
        for begin, end in zip([0, *ends], ends, strict=False)
    ]


def _unseen(reader: EpisodeReader, seen: np.ndarray, val_ratio: float) -> np.ndarray:
    """At most `MOST` episodes that did not train the run."""
    free = np.flatnonzero(~seen)
    if not len(free):
        raise UserError(
            f"{reader.source}: all of its {len(seen)} episodes trained the run (task.val_ratio={val_ratio:g}); measure "
            "on other data with --data PATH, or on some of these with --data-episodes 0:5."
        )
    validation = [i for i in free.tolist() if VALIDATION in reader.episode_metadata(i).get("filters", ())]
    free = np.array(validation) if validation else free
    return free[:: -(-len(free) // MOST)]


def _words(source: str, kept: np.ndarray, seen: np.ndarray, unknown: str) -> str:
    count, trained, of_run = len(kept), int(seen[kept].sum()), int(seen.sum())
    named = f"{count} episode{'s' * (count != 1)} of {source}"
    if unknown:
        return f"{named}; whether they trained the run is not known ({unknown})"
    if trained:
        return f"{named}, of which {trained} TRAINED the run: errors on those say little about new ones"
    others = f" ({of_run} others did)" if of_run else ""
    return f"{named} that did not train the run{others}"


def _check_fits(policy: DiffusionPolicy, data: Demonstrations, source: str) -> None:
    """Raise UserError unless the policy takes what the data hold."""
    sizes = (
        ("task.observation", data.observations.shape[1], policy.observation_dim),
        ("task.action", data.actions.shape[1], policy.action_dim),
    )
    for field, given, taken in sizes:
        if given != taken:
            raise UserError(
                f"{source}: {field} has {given} numbers a step, and the policy was trained on {taken}; give data with "
                "the same fields."
            )
    shapes = {} if data.images is None else data.images.shapes
    for name, shape in policy.images.items():
        wanted = (*policy.resized.get(name, shape[:2]), shape[2])
        if shapes[name] != wanted:
            raise UserError(
                f"{source}: pictures of {name} are {list(shapes[name])} (height, width, channels), and the policy was "
                f"trained on {list(wanted)}; give frames of that size."
            )
