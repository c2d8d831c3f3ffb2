"""What a robot run says before its first update; see `policy_accel.training.heading`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import gymnasium
import numpy as np

from policy_accel.data import Episodes
from policy_accel.data.split import EpisodeSplit
from policy_accel.policy.windows import Windows
from policy_accel.training.heading import method_of, sampled_by

if TYPE_CHECKING:  # the settings of a task lie in the module that calls this one
    from policy_accel.evaluation import EnvironmentSpec
    from policy_accel.policy.config import RobotConfig
    from policy_accel.policy.policy import DiffusionPolicy

LISTED = 8
SKIPPED = re.compile(r"episode \d+ is left out: ")


def data_heading(
    episodes: Episodes,
    split: EpisodeSplit,
    train: Windows,
    validation: Windows | None,
    shortest: int,
    remarks: Sequence[str] = (),
) -> dict[str, str]:
    """What the data are and what is used of them: "data" and "left out".

    Args:
        episodes: of the task.
        split: which of them train.
        train: windows to train on.
        validation: windows of the others, or None.
        shortest: steps that an episode needs to give a window.
        remarks: of the reader, which say which episodes were skipped.
    """
    usable = episodes.lengths >= shortest
    horizon = train.indices.shape[1]
    held = "none validates"
    if validation is not None:
        held = f"{(split.validation & usable).sum():,} validate in {len(validation.indices):,}"
    short = np.flatnonzero(~usable)
    left_out = [remark.rstrip(".") for remark in remarks if SKIPPED.match(remark)]
    if len(left_out) > LISTED:
        left_out[LISTED:] = [f"... ({len(left_out)} episodes)"]
    if len(short):
        listed = ", ".join(f"{episode} ({episodes.lengths[episode]})" for episode in short[:LISTED])
        more = ", ..." if len(short) > LISTED else ""
        plural = "s" * (len(short) != 1)
        left_out.append(
            f"{len(short)} episode{plural} shorter than the {shortest} steps a window needs: {listed}{more}"
        )
    return {
        "data": f"{episodes.source}: {_counted(len(episodes), 'episode')}, {episodes.steps:,} steps; "
        f"{(split.train & usable).sum():,} train in {len(train.indices):,} windows of {horizon} steps, {held}",
        "left out": "; ".join(left_out),
    }


def robot_heading(config: RobotConfig, policy: DiffusionPolicy, data: Mapping[str, str]) -> dict[str, str]:
    """All of the heading but what the training core knows; `data` is what `data_heading` gave."""
    task, shape = config.task, config.policy
    fields = ", ".join([*task.observation, *(task.goal if not policy.goal_columns else ())])
    actions = task.action if isinstance(task.action, str) else ", ".join(task.action)
    seen = [f"{fields} ({policy.observation_dim} numbers)"] if fields else []
    if policy.encoder is not None:
        for (camera, (height, width, _)), size in zip(policy.images.items(), policy.encoder.sizes, strict=True):
            kept = policy.resized.get(camera, (height, width))
            small = "" if kept == (height, width) else f" resized to {kept[0]} x {kept[1]}"
            part = "" if size == kept else f", of which {size[0]} x {size[1]} at a time"
            seen.append(f"{camera} ({height} x {width} px{small}{part})")
    return {
        **data,
        "sees": f"{_counted(shape.n_obs_steps, 'step')} of {' and '.join(seen)}",
        "predicts": f"{_counted(shape.horizon, 'step')} of {actions} ({policy.action_dim} numbers), of which "
        f"{shape.n_action_steps} are executed",
        "method": method_of(config),
        "score": score_heading(config, None),
    }


def score_heading(config: RobotConfig, spec: EnvironmentSpec | None) -> str:
    """How the run is scored, in this environment, which has been imported; None where it has not been made yet."""
    evaluation, every = config.evaluation, config.training.evaluate_every
    if not config.is_scored():
        if config.task.environment is None:
            return "none: task.environment=null; after the last update its actions are compared with held-out ones"
        return "none: evaluation.episodes=0"
    when = f"every {every:,} updates and " if 0 < every < config.training.steps else ""
    steps = config.task.max_steps if spec is None else spec.max_steps
    limit = "its own number of steps" if steps is None else f"at most {_counted(steps, 'step')}"
    if spec is not None and config.task.max_steps is None:
        whose = "that it is registered with" if gymnasium.spec(spec.id).max_episode_steps else "none is registered"
        limit += f" ({whose}; task.max_steps sets others)"
    return (
        f"{config.task.environment}, {evaluation.episodes} episodes of {limit} "
        f"from seed {evaluation.start_seed:,} {when}after the last update; {sampled_by(config.sampling)}"
    )


def _counted(count: int, unit: str) -> str:
    return f"{count:,} {unit}" + "s" * (count != 1)
