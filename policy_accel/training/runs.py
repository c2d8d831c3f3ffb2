"""What the runs of every track have in common: reading them again, and settings that only a whole run can check."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf.errors import OmegaConfBaseException

from policy_accel.acceleration.config import NoiseConfig
from policy_accel.errors import UserError
from policy_accel.groups import typed
from policy_accel.training.checkpoint import best_checkpoint, checkpoint_steps
from policy_accel.training.loop import TrainingConfig
from policy_accel.training.randomness import derive_seed
from policy_accel.training.run_directory import read_config


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Weights initialised in the block follow from `seed` alone, and torch's own generator stays where it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        yield


def read_typed_config(run_dir: Path, schema: type, track: str) -> Any:
    """The configuration of a run of a track as its dataclass.

    Raises:
        UserError: not a run directory, one of another track or of an earlier version, or values that do not fit.
    """
    values = read_config(run_dir)
    if "track" not in values:
        raise UserError(f"{run_dir / 'config.yaml'} names no track: it is of an earlier version; train the run again.")
    if values["track"] != track:
        raise UserError(f"{run_dir} is a run of the track {values['track']}; give one of the track {track}.")
    try:
        return typed(schema, values, track)
    except (OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{run_dir / 'config.yaml'} cannot be read as a configuration ({reason}).") from error


def checkpoint_path(run_dir: Path, checkpoint: str) -> Path:
    """The directory of a checkpoint of a run: "last", "best" (highest score) or a step.

    Raises:
        UserError: there is none of that name.
    """
    folder = run_dir / "checkpoints"
    steps = checkpoint_steps(folder)
    if not steps:
        raise UserError(f"{run_dir} has no checkpoint yet; train it first.")
    if checkpoint == "last":
        return folder / f"{steps[-1]:08d}"
    if checkpoint == "best":
        best = best_checkpoint(folder)
        if best is None:
            raise UserError(f"No checkpoint of {run_dir} has a score; use --checkpoint last, or one of {steps}.")
        return best
    if not checkpoint.isdigit() or int(checkpoint) not in steps:
        raise UserError(f"{run_dir} has no checkpoint '{checkpoint}'; there are last, best and the steps {steps}.")
    return folder / f"{int(checkpoint):08d}"


def check_noise_schedule(noise: NoiseConfig, training: TrainingConfig, *, scored: bool, to_score: str) -> None:
    """Raise UserError when the choice of noise could never begin, or never move a noise, in this run.

    Args:
        noise: the choice.
        training: of the run.
        scored: whether the task has a score.
        to_score: settings that give it one.
    """
    steps, every = training.steps, training.evaluate_every
    if noise.start_score is not None and not (scored and 0 < every < steps):
        raise UserError(
            f"acceleration.noise.start_score={noise.start_score} waits for an evaluation during training; give "
            f"training.evaluate_every (below training.steps), {to_score}, or use start_step."
        )
    if noise.start_step >= steps:
        raise UserError(
            f"acceleration.noise.start_step={noise.start_step} lies beyond the run of training.steps={steps}; lower it."
        )
    own_share = 1 / training.batch_size
    if noise.within == "condition" and noise.condition_ratio <= own_share:
        raise UserError(
            f"acceleration.noise.condition_ratio={noise.condition_ratio} is no more than the share of a batch's own "
            f"pairs, 1 / training.batch_size = {own_share:.3g}, so no noise could move; raise it, or the batch size."
        )
