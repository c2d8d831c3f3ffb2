"""What an image run says before its first update; see `policy_accel.training.heading`."""

from __future__ import annotations

from policy_accel.images.config import ImageConfig
from policy_accel.images.sets import ImageSplit
from policy_accel.training.heading import method_of, sampled_by


def image_heading(config: ImageConfig, split: ImageSplit) -> dict[str, str]:
    """All of the heading but what the training core knows."""
    task, evaluation, train = config.task, config.evaluation, split.train
    held_out = "none" if split.held_out is None else f"{len(split.held_out):,}"
    kind = "latents" if train.latents else "images"
    anew = ", drawn anew each time" if train.encoding is not None and train.encoding.moments else ""
    channels, height, width = train.shape
    told = "no classes"
    if task.conditional:
        dropped = f", none for {task.label_dropout:.0%}" if task.label_dropout else ""
        told = f"one of {len(split.classes)} classes{dropped}"
    every = config.training.evaluate_every
    curve = (
        f"{evaluation.curve_samples:,} images every {every:,} updates, " if 0 < every < config.training.steps else ""
    )
    return {
        "data": f"{config.task.data}: {len(train):,} {kind} train, {held_out} are held out",
        "left out": f"all training images but the first {task.limit:,} (task.limit)" if task.limit else "",
        "sees": f"{kind} of {channels} x {height} x {width}{anew}, augmentation {task.augmentation}; it is told {told}",
        "method": method_of(config),
        "score": f"{curve}{evaluation.samples:,} images at the end; {sampled_by(config.sampling)}"
        if evaluation.samples
        else "none: evaluation.samples=0",
    }
