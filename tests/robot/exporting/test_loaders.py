"""What the files beside an export take of an observation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policy_accel.robot.exporting.onnx_policy import OnnxPolicy
from policy_accel.robot.exporting.torch_policy import TorchPolicy

LOADERS = [OnnxPolicy, TorchPolicy]


def loader(kind: Any, fields: list[str], width: int, *pictures: str) -> Any:
    """One without its file."""
    made = kind.__new__(kind)
    state = {"fields": fields, "shape": ["batch", 2, width]}
    made.about = {"inputs": {"state": state, **{name: {} for name in pictures}, "noise": {}}}
    return made


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize(
    ("fields", "given", "state"),
    [
        (["qpos", "grip"], {"grip": [3], "qpos": [[1, 2]]}, [1, 2, 3]),
        (["pose[1:3]", "pose[-1:]"], {"pose": [1, 2, 3, 4]}, [2, 3, 4]),
        (["qpos", "grip"], {"state": [1, 2, 3]}, [1, 2, 3]),
        (["state[1:4]"], {"state": [0, 1, 2, 3]}, [1, 2, 3]),
        (["state[1:4]"], {"state": [1, 2, 3]}, [1, 2, 3]),
        (["state[:2]", "grip"], {"state": [1, 2, 9], "grip": 3}, [1, 2, 3]),
        ([], {}, []),
    ],
)
def test_fields_are_taken_by_name(kind: Any, fields: list[str], given: dict[str, Any], state: list[float]) -> None:
    frame = np.ones((2, 2, 3), np.uint8)
    values = {name: torch.tensor(value) if kind is TorchPolicy else value for name, value in given.items()}
    taken = loader(kind, fields, len(state), "front").taken({**values, "front": frame, "other": 1})
    assert set(taken) == {"state", "front"}
    np.testing.assert_array_equal(taken["state"], state)
    np.testing.assert_array_equal(taken["front"], frame)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"grip": [3]}, r"no qpos, front, which the policy takes; it has \['grip'\]"),
        ({"qpos": [1, 2], "grip": [3]}, "no front, which"),
        ({"qpos": [1, 2], "grip": [3, 4], "front": 0}, "has 4 numbers, and the policy takes 3"),
        ({"state": [1, 2], "front": 0}, "has 2 numbers, and the policy takes 3"),
    ],
)
def test_what_is_missing_is_told(kind: Any, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        loader(kind, ["qpos", "grip"], 3, "front").taken(given)
