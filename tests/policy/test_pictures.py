"""Pictures as people have them: channels first, floats, without a channel; and what is none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from policy_accel.data import Episodes, MemoryReader
from policy_accel.data.readers import gather
from policy_accel.errors import UserError
from policy_accel.policy.frames import as_frames
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
            r"top holds 4000, .*; for depths give their range in task\.image_ranges\.",
        ),
        (
            np.zeros((10, 12, 15), np.uint16),
            r"top holds uint16 \[12, 15\] per step, which are no frames .*; for depths .* task\.image_ranges",
        ),
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


@pytest.mark.parametrize("shape", [(10, 12, 15), (10, 12, 15, 1), (10, 1, 12, 15)])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32])
def test_depths_become_bytes_by_their_range(shape: tuple[int, ...], dtype: type) -> None:
    """500 becomes 0, 1,500 becomes 255; what lies outside counts as the nearer end, holes as the first."""
    depths = np.random.default_rng(1).integers(0, 2000, size=shape).astype(dtype)
    expected = np.round((np.clip(depths.astype(float), 500, 1500) - 500) / 1000 * 255).astype(np.uint8)
    reader = MemoryReader(Episodes({"top": depths, "action": np.zeros((10, 2))}, [4, 10], "demos"))
    with warnings.catch_warnings(action="ignore"):
        found = gather(PictureView(reader, ["top"], {"top": (500, 1500)})).arrays["top"]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected.reshape(10, 12, 15, 1))
    if dtype == np.float32:
        depths.flat[:3] = np.nan, np.inf, -np.inf
        assert not as_frames(depths, (12, 15, 1), (500, 1500)).flat[:3].any()


def test_white_of_floats_is_told_by_each_picture() -> None:
    """Where there is no set to look through: a robot's pictures, one batch of several environments."""
    unit, whole = PICTURES[:1] / np.float32(255), PICTURES[1:2].astype(np.float32)
    np.testing.assert_array_equal(as_frames(np.concatenate([unit, whole]), (12, 15, 3)), PICTURES[:2])
    np.testing.assert_array_equal(as_frames(unit, (12, 15, 3), white=255, span=(0, 1)), PICTURES[:1])
    with pytest.raises(ValueError, match=r"is uint8 of shape \(15, 12, 3\); this policy takes uint8 of shape"):
        as_frames(PICTURES.swapaxes(1, 2), (12, 15, 3))
