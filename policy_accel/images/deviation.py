"""The deviation of the data that an image network is scaled for (diffusion.sigma_data): given, kept, or measured."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch

from policy_accel.data.images import ImageSet
from policy_accel.diffusion.processes import SIGMA_DATA
from policy_accel.images.config import ImageConfig
from policy_accel.images.latents.representation import Representation
from policy_accel.images.run import representation_of, with_sigma_data
from policy_accel.images.sets import ImageSplit
from policy_accel.training.checkpoint import Checkpoint

MEASURED = 10_000
"""Images that are looked at, evenly spaced: enough for the deviation to a percent."""
PIECE = 500
FAR = 1.25
"""Ratio of setting and data, either way, from which a mismatch is told; 0.5 and MNIST's 0.62 are still alike."""
KEY = "sigma_data"
"""In what checkpoints keep of a task."""


def measured_deviation(images: ImageSet, representation: Representation) -> float:
    """Standard deviation of all values of x0, not augmented, around their one mean."""
    rows = np.linspace(0, len(images) - 1, min(len(images), MEASURED)).round().astype(np.int64)
    count, total, squares = 0, 0.0, 0.0
    for begin in range(0, len(rows), PIECE):
        x0 = representation.encode(torch.from_numpy(np.asarray(images.images[rows[begin : begin + PIECE]]))).double()
        count, total, squares = count + x0.numel(), total + float(x0.sum()), squares + float(x0.square().sum())
    return math.sqrt(max(0.0, squares / count - (total / count) ** 2))


def kept(config: ImageConfig, checkpoint: Checkpoint | None) -> ImageConfig:
    """`config` with the number that a checkpoint keeps in place of null, if there is one."""
    value = None if checkpoint is None else (checkpoint.state.get("task") or {}).get(KEY)
    return config if value is None or config.diffusion.sigma_data is not None else with_sigma_data(config, value)


def resolved(config: ImageConfig, split: ImageSplit, checkpoint: Checkpoint | None) -> tuple[ImageConfig, str]:
    """`config` with a number in place of null, and what the heading of a run says of it, "" without.

    It is that of `checkpoint`, where the run goes on, or begins with the weights of another; else that of the training
    images. Where a given number is far from theirs, a warning says so.
    """
    given = config.diffusion.sigma_data
    if not config.diffusion.sees_sigma_data:
        return config, ""
    known = kept(config, checkpoint)
    if known is not config:
        return known, f"scaled for a deviation of {known.diffusion.sigma_data:.4g}, as its weights are"
    deviation = config.acceleration.data_scale * measured_deviation(split.train, representation_of(config, split))
    looked_at = f"{min(len(split.train), MEASURED):,} training images"
    if given is None:
        deviation = deviation or SIGMA_DATA  # of images of one grey
        return with_sigma_data(config, deviation), f"scaled for a deviation of {deviation:.4g}, that of {looked_at}"
    if not 1 / FAR <= deviation / given <= FAR:
        warnings.warn(
            f"diffusion.sigma_data={given:g}, and the deviation of {looked_at} is {deviation:.3g}; "
            "diffusion.sigma_data=null measures it.",
            stacklevel=2,
        )
    return config, ""
