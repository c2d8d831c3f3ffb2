from __future__ import annotations

import numpy as np
import pytest

from policy_accel.data import Episodes
from policy_accel.errors import UserError
from policy_accel.policy.fields import columns, keys_of, positions

POSES = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
STATES = -np.arange(20, dtype=np.float64).reshape(4, 5)
DATA = Episodes({"pose": POSES, "state": STATES, "reward": np.arange(4.0)}, np.array([1, 4]))


def test_fields_stand_side_by_side_in_the_order_given() -> None:
    taken = columns(DATA, ["state[1:3]", "pose", "reward"])
    assert taken.dtype == np.float64  # of a field that is
    assert columns(DATA, ["pose"]).dtype == np.float32
    np.testing.assert_array_equal(taken[:, :2], STATES[:, 1:3])
    np.testing.assert_array_equal(taken[:, 2:8], POSES.reshape(4, 6))
    np.testing.assert_array_equal(taken[:, 8], np.arange(4))
    assert columns(DATA, []).shape == (4, 0)
    assert keys_of(["state[1:3]", "pose", "state[:1]"]) == ["state", "pose"]


@pytest.mark.parametrize("name", ["state[1:3]", "state[-1:]", "pose[2:4]", "reward"])
def test_positions_find_the_columns_of_a_field(name: str) -> None:
    fields = ["pose[1:5]", "reward", "state"]
    found = columns(DATA, fields)[:, list(positions(DATA, name, fields))]
    np.testing.assert_array_equal(found, columns(DATA, [name]))


def test_a_column_that_is_not_observed_is_named() -> None:
    with pytest.raises(UserError, match=r"'pose\[:2\]' takes column 0 of pose, which task.observation=\[pose\[1:5\]\]"):
        positions(DATA, "pose[:2]", ["pose[1:5]"])
    for name in ("state[5:]", "state[2:2]", "state[3:1]"):
        with pytest.raises(UserError, match=r"takes none of the columns of state, which has 5, from 0 to 4\."):
            columns(DATA, [name])
    for name in ("state[:6]", "state[-6:]", "pose[3:7]"):
        with pytest.raises(UserError, match=r"goes past the columns of (state, which has 5|pose, which has 6), from 0"):
            columns(DATA, [name])
    with pytest.raises(UserError, match="not of the form key or key"):
        columns(DATA, ["state[1]"])
