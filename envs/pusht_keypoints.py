"""Key-points of the Push-T block: nine fixed points of the body, seen in the window.

The points are those of `data/keypoint` of the Push-T replay buffer of Diffusion Policy (Columbia AI and Robotics Lab).
"""

from __future__ import annotations

import numpy as np

from .pusht_pushes import to_window

BLOCK_KEYPOINTS = np.array(
    (
        (9.2697865, 90.0409737),
        (-60.9834720, -1.1867298),
        (60.9127557, -1.3933642),
        (-0.2705035, 25.5436251),
        (-14.0649275, 122.8158535),
        (39.0027381, 32.8574042),
        (-39.9664145, 32.7296555),
        (-16.8243443, 62.8631791),
        (23.5414611, -1.7002880),
    )
)
"""[9, 2] px in the frame of the block's body: x along the bar, y down the stem, origin amid the top edge."""


def block_keypoints(block_pose: np.ndarray) -> np.ndarray:
    """Key-points of the block in window pixels, in float64.

    block_pose [..., 3]: x, y in px (the body's position, not its centre of gravity) and angle in radians.
    Returns [..., 9, 2].
    """
    return to_window(BLOCK_KEYPOINTS, np.asarray(block_pose, dtype=np.float64)[..., None, :])


def keypoint_observation(state: np.ndarray) -> np.ndarray:
    """The 20 numbers that a key-point policy sees: nine block points (x, y each), then the agent, in px, float32.

    state [..., 5]: agent x, y, block x, y, angle. Returns [..., 20].
    """
    state = np.asarray(state, dtype=np.float64)
    points = block_keypoints(state[..., 2:5])
    return np.concatenate((points.reshape(*points.shape[:-2], 18), state[..., :2]), axis=-1).astype(np.float32)
