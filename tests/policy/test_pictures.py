"""Pictures as people have them: channels first, floats, without a channel; and what is none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from policy_accel.data import Episodes, MemoryReader
from policy_accel.data.formats.streaming import gather
from policy_accel.errors import UserError
from policy_accel.policy.pictures import PictureView

PICTURES = np.random.default_rng(0).integers(0, 256, size=(10, 12, 15, 3), dtype=np.uint8)
FIRST = PICTURES.transpose(0, 3, 1, 2)


def view(values: np.ndarray) -> PictureView:
    return PictureView(MemoryReader(Episodes({"top": values, "action": np.zeros((10, 2))}, [4, 10], "demos")), ["top"])


@pytest.mark.parametrize(
    ("values", "expected", "remark"),
    [
        (PICTURES.astype(np.int64), PICTURES, ""),
        (PICTURES.astype(np.float32), PICTURES, ""),
        (FIRST, PICTURES, "top has its channels first, which are moved last"),
        (PICTURES / np.float32(255), PICTURES, "top holds values from 0 to 1, which are read times 255"),
        (FIRST / 255, PICTURES, "top holds values from 0 to 1"),
        (PICTURES[..., 0], PICTURES[..., :1], "top has no axis of channels"),
    ],
)
def test_pictures_are_converted_with_a_warning(values: np.ndarray, expected: np.ndarray, remark: str) -> None:
    if not remark:
        with warnings.catch_warnings(action="error"):
            np.testing.assert_array_equal(gather(view(values)).arrays["top"], expected)
        return
    with pytest.warns(UserWarning, match=rf"demos: {remark}"):
        read = gather(view(values))
    np.testing.assert_array_equal(read.arrays["top"], expected)
    np.testing.assert_array_equal(read.arrays["action"], np.zeros((10, 2)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (PICTURES.astype(np.float32) - 1, r"top holds -1.0, and frames are whole numbers from 0 to 255, or floats"),
        (PICTURES + 0.5, r"top holds \d+\.5, and frames"),
        (PICTURES / -255.0, r"top holds -0\.\d+, and frames"),
        (
            np.full((10, 12, 15, 1), 4000, np.uint16),
            r"top holds 4000, .* in task\.observation, as numbers",
        ),
        (np.zeros((10, 12, 15), np.uint16), r"top holds uint16 \[12, 15\] per step, which are no frames"),
        (PICTURES > 5, r"top holds bool"),
    ],
)
def test_what_is_no_picture(values: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=rf"demos: {words}"):
        view(values).read(1)


@pytest.mark.filterwarnings("error")
def test_float_pictures_that_are_black_at_first_are_scaled_alike() -> None:
    """The whole set tells whether 1 is white."""
    values = PICTURES.astype(np.float32)
    values[:4] = 1
    assert view(values).read(0)["top"].max() == 1
