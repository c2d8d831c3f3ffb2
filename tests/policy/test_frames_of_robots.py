"""Pictures of environments and robots in the forms of the data: depths, floats, channels first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policy_accel.errors import UserError
from policy_accel.policy.demonstrations import TaskConfig, observation_layout

RNG = np.random.default_rng(0)
TOP, DEPTH = (
    RNG.integers(0, 256, size=(8, 10, 3), dtype=np.uint8),
    RNG.integers(0, 4000, size=(8, 10)).astype(np.uint16),
)
SHAPES = {"top": (8, 10, 3), "depth": (8, 10, 1)}
EXPECTED = np.round(np.clip(DEPTH / 2000, 0, 1) * 255).astype(np.uint8)[..., None]


def _task(**settings: object) -> TaskConfig:
    given = {"observation": ["q"], "images": ["top", "depth"], "action": "action", "image_ranges": {"depth": [0, 2000]}}
    return TaskConfig(**(given | settings))


@pytest.mark.parametrize("top", [TOP, TOP.transpose(2, 0, 1), TOP / np.float32(255)])
def test_a_robot_s_and_an_environment_s_pictures_are_read_alike(top: np.ndarray) -> None:
    layout = observation_layout(_task())
    one = layout.taken({"q": np.ones(2), "top": top, "depth": DEPTH}, 2, SHAPES)
    batch = {"q": np.ones((1, 2, 2)), "top": np.stack([top] * 2)[None], "depth": np.stack([DEPTH] * 2)[None]}
    many = layout.tensors(batch, torch.device("cpu"), images=SHAPES, sizes={})
    for name, expected in (("top", TOP), ("depth", EXPECTED)):
        np.testing.assert_array_equal(one[name], expected)
        np.testing.assert_array_equal(many[name][0, 1].numpy(), expected)
        assert many[name].dtype == torch.uint8


def test_an_environment_may_have_its_channels_first() -> None:
    layout = observation_layout(_task())
    entries = {"q": spaces.Box(0, 1, (2,)), "top": spaces.Box(0, 1, (3, 8, 10)), "depth": spaces.Box(0, 9, (8, 10))}
    layout.check(spaces.Dict(entries), 2, SHAPES, "Mine-v0")
    entries["top"] = spaces.Box(0, 1, (10, 8, 3))
    with pytest.raises(UserError, match=r"'Mine-v0' gives pictures 'top' of shape \(10, 8, 3\), the demonstrations"):
        layout.check(spaces.Dict(entries), 2, SHAPES, "Mine-v0")


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"dept": [0, 1]}, r"task\.image_ranges names 'dept', which is no picture of the task; did you mean 'depth'"),
        ({"depth": 5}, r"task\.image_ranges\.depth=5 is no range; give two numbers"),
        ({"depth": [1, 1]}, r"task\.image_ranges\.depth=\[1, 1\] is no range"),
        ({"depth": [0, float("nan")]}, r"is no range"),
    ],
)
def test_ranges_that_make_no_sense(ranges: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        observation_layout(_task(image_ranges=ranges))
