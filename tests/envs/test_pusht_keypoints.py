from __future__ import annotations

import numpy as np

from policy_accel.envs.pusht_keypoints import BLOCK_KEYPOINTS, block_keypoints, keypoint_observation


def test_points_of_the_recorded_poses_are_the_recorded_points(replay):
    error = np.abs(block_keypoints(replay["state"][:, 2:5]) - replay["keypoint"]).max((1, 2))
    contacts = replay["n_contacts"][:, 0]
    free = (contacts == 0) & (np.roll(contacts, 1) == 0)
    assert len(error) == 25650
    assert free.sum() > 13000
    assert error[free].max() < 4e-5  # float32 of 512 px; in contact the recorder saw the block a physics step later
    assert np.quantile(error, 0.99) < 0.05
    assert error.max() < 2.1


def test_every_recorded_row_is_one_rigid_copy_of_the_nine_points(replay):
    between = np.linalg.norm(BLOCK_KEYPOINTS[:, None] - BLOCK_KEYPOINTS, axis=-1)
    points = replay["keypoint"].astype(np.float64)
    recorded = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    np.testing.assert_allclose(recorded, np.broadcast_to(between, recorded.shape), atol=1e-4)


def test_quarter_turn_by_hand():
    np.testing.assert_allclose(
        block_keypoints(np.array([100.0, 200.0, np.pi / 2])),
        np.array([100.0, 200.0]) + np.stack((-BLOCK_KEYPOINTS[:, 1], BLOCK_KEYPOINTS[:, 0]), axis=-1),
    )


def test_observation_is_points_then_agent():
    states = np.array([[[10.0, 20.0, 100.0, 200.0, 0.0]], [[30.0, 40.0, 0.0, 0.0, 0.0]]])
    observed = keypoint_observation(states)
    assert observed.shape == (2, 1, 20)
    assert observed.dtype == np.float32
    np.testing.assert_allclose(observed[1, 0, :18].reshape(9, 2), BLOCK_KEYPOINTS, rtol=1e-6)
    np.testing.assert_array_equal(observed[:, 0, 18:], [[10, 20], [30, 40]])
