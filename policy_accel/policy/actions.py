"""How actions are diffused: as recorded, or with rotations in six numbers.

An absolute action of robosuite's controller is position 3, axis-angle 3, gripper 1 for each arm. Axis-angle jumps where
the angle passes pi, so Diffusion Policy learns the first two rows of the rotation matrix instead (Zhou et al. 2019).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from policy_accel.errors import UserError, one_of
from policy_accel.policy.normalization import MODES, Normalizer, fit_normalizer
from policy_accel.policy.rotations import abs_action_from_6d, abs_action_to_6d

ROTATIONS = ("none", "rotation_6d")
ACTION_MODES = (*MODES, "position_limits")
RECORDED, DIFFUSED, POSITION = 7, 10, 3  # numbers of an arm: position, axis-angle or six numbers, gripper


def encode_actions(actions: Tensor, rotation: str) -> Tensor:
    """Recorded actions [N, A] in the form that is diffused, [N, A] or [N, 10 arms] float32.

    Raises:
        UserError: an unknown form, or actions that are not 7 numbers an arm for rotation_6d.
    """
    one_of("task.action_rotation", rotation, ROTATIONS)
    if rotation == "none":
        return actions
    if actions.shape[-1] % RECORDED:
        raise UserError(
            f"task.action_rotation=rotation_6d takes absolute actions of {RECORDED} numbers an arm (position, "
            f"axis-angle, gripper), and task.action has {actions.shape[-1]}; use action_rotation=none."
        )
    return abs_action_to_6d(actions.float())


def decode_actions(actions: Tensor, rotation: str) -> Tensor:
    """The inverse of `encode_actions`, for any leading axes."""
    return actions if rotation == "none" else abs_action_from_6d(actions)


def executed_dim(action_dim: int, rotation: str) -> int:
    """Numbers of an action that is executed, when `action_dim` are diffused."""
    return action_dim if rotation == "none" else action_dim // DIFFUSED * RECORDED


def fit_action_normalizer(actions: Tensor, mode: str, rotation: str, precision: np.ndarray | None = None) -> Normalizer:
    """Fit the normaliser of encoded actions [N, A], recorded as exactly as `precision` [A] says where none is rotated.

    `position_limits` brings the positions of every arm to [-1, 1] and leaves rotation and gripper alone, as the
    reference does for absolute actions; the other modes are those of `fit_normalizer`.

    Raises:
        UserError: an unknown mode, or position_limits without rotation_6d; what `fit_normalizer` raises.
    """
    one_of("task.action_normalization", mode, ACTION_MODES)
    if mode != "position_limits":
        return fit_normalizer(actions, mode, precision=precision if rotation == "none" else None)
    if rotation != "rotation_6d":
        raise UserError(
            f"task.action_normalization=position_limits needs task.action_rotation=rotation_6d, not {rotation}; "
            "choose both, or limits."
        )
    other = [column for column in range(actions.shape[1]) if column % DIFFUSED >= POSITION]
    return fit_normalizer(actions, "limits", untouched=other)
