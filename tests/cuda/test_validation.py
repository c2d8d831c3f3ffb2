"""The validation loss on a CUDA device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.captured import CPU, update_of
from support.methods import DIT, IMAGES_COMMON, MLP, ROBOT_COMMON
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.training.update import Update


@pytest.mark.parametrize(
    ("track", "overrides"),
    [
        (ROBOT, [*ROBOT_COMMON, *MLP, "task.mask_padding=true", "task.val_ratio=0.02"]),
        (IMAGES, [*IMAGES_COMMON, *DIT, "task.validation_images=12"]),
        (IMAGES, [*IMAGES_COMMON, *DIT, "task.validation_images=12", "task.residence=disk"]),
    ],
)
def test_it_is_the_cpus_and_does_not_wait(track: Any, overrides: list[str]) -> None:
    def losses(update: Update) -> list[torch.Tensor]:
        """Two, the first of which makes whatever is made at a first call."""
        task, place = update.task, update.feed.order.device
        parts = torch.arange(min(task.validation_samples, 12), device=place).split(8)
        found = []
        for phase in ("first", "validation"):
            with cuda.phase(phase):
                found.append(update.validation_loss((task.validation_batch(part) for part in parts), seed=3))
        return [loss.cpu() for loss in found]

    config = track.config(overrides)
    with SimulatedCuda() as cuda:
        found = losses(update_of(track, config, CUDA, captured=True))
        assert not cuda.waits["validation"]
        assert not cuda.hazards
        expected = losses(update_of(track, config, CPU, captured=False))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
