"""Every method of both tracks as CUDA graphs."""

from __future__ import annotations

import pytest
from support.captured import check_captured, check_resumed
from support.methods import METHODS, NOT_FOR_IMAGES, images, robot

from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT


@pytest.mark.parametrize("method", METHODS)
def test_of_policies(method: str) -> None:
    check_captured(ROBOT, ROBOT.config(robot(method)))


@pytest.mark.parametrize("method", [method for method in METHODS if method not in NOT_FOR_IMAGES])
def test_of_images(method: str) -> None:
    check_captured(IMAGES, IMAGES.config(images(method)))


@pytest.mark.parametrize("method", ["everything", "loss_second_moment", "fdm_cap", "immiscible_denoiser"])
def test_a_policy_goes_on_where_it_was(method: str) -> None:
    check_resumed(ROBOT, ROBOT.config(robot(method)))
