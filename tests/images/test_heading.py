"""What an image run says before its first update."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from policy_accel.data.images import ImageSet
from policy_accel.images.heading import image_heading
from policy_accel.images.sets import ImageSplit
from policy_accel.images.track import IMAGES


def a_set(count: int) -> ImageSet:
    return ImageSet(np.zeros((count, 3, 8, 6), np.uint8), np.arange(count) % 4, tuple("abcd"), "x")


def test_images_classes_and_score_are_said() -> None:
    config = IMAGES.config(["task=custom_images", "task.data=x.npz", "training.evaluate_every=10", "training.steps=30"])
    config.task = replace(config.task, conditional=True, label_dropout=0.1, limit=1000)
    config.evaluation = replace(config.evaluation, curve_samples=20, samples=40)
    parts = image_heading(config, ImageSplit(a_set(1000), a_set(50), 1000))
    assert parts["data"] == "x.npz: 1,000 images train, 50 are held out"
    assert parts["left out"] == "all training images but the first 1,000 (task.limit)"
    assert parts["sees"] == "images of 3 x 8 x 6, augmentation flip; it is told one of 4 classes, none for 10%"
    assert parts["score"].startswith("20 images every 10 updates, 40 images at the end; sampled by ")
    config.evaluation.samples, config.task.conditional, config.task.limit = 0, False, None
    parts = image_heading(config, ImageSplit(a_set(1000), None, 1000))
    assert parts["data"].endswith("1,000 images train, none are held out")
    assert (parts["left out"], parts["score"]) == ("", "none: evaluation.samples=0")
    assert parts["sees"].endswith("it is told no classes")
