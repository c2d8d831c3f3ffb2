"""Rotations as robot actions hold them: axis-angle, quaternion (x, y, z, w), matrix and the continuous 6-D form.

The 6-D form is that of Zhou et al. 2019, "On the Continuity of Rotation Representations in Neural Networks": here the
first two rows of the matrix one after the other, as in pytorch3d and Diffusion Policy (the paper takes columns).
All functions work on any leading shape in the precision of their input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policy_accel.errors import UserError

ARM_AXIS_ANGLE = 7
"""Numbers of an arm's absolute action: position 3, axis-angle 3, gripper 1."""
ARM_6D = 10
"""The same with a 6-D rotation."""


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    """Axis times angle in radians [..., 3] -> unit quaternion (x, y, z, w) [..., 4]."""
    angle = axis_angle.norm(dim=-1, keepdim=True)
    # sin(angle / 2) / angle = sinc(angle / 2 pi) / 2, which has no division by 0
    vector = axis_angle * (torch.sinc(angle / (2 * torch.pi)) / 2)
    return torch.cat([vector, (angle / 2).cos()], dim=-1)


def quaternion_to_axis_angle(quaternion: Tensor) -> Tensor:
    """Unit quaternion (x, y, z, w) [..., 4] -> axis times angle [..., 3], the angle in [0, pi]."""
    quaternion = torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    vector, w = quaternion[..., :3], quaternion[..., 3:]
    sine = vector.norm(dim=-1, keepdim=True)
    tiny = sine < torch.finfo(quaternion.dtype).eps
    # angle = 2 atan2(sine, w), near pi as exact as near 0; angle / sine -> 2 / w for small sines
    factor = torch.where(tiny, 2 / w.clamp(min=0.5), 2 * torch.atan2(sine, w) / torch.where(tiny, 1, sine))
    return vector * factor


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Quaternion (x, y, z, w) [..., 4] of any length but 0 -> rotation matrix [..., 3, 3]."""
    x, y, z, w = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Rotation matrix [..., 3, 3] -> unit quaternion (x, y, z, w) [..., 4] with w >= 0.

    Four times each product q_i q_j is a sum of entries; the row of the largest q_i squared is taken, so that nothing
    small is divided by (Shepperd 1978).
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrix.unbind(-2))
    products = torch.stack(
        [
            torch.stack([1 + a - e - i, b + d, c + g, h - f], dim=-1),
            torch.stack([b + d, 1 - a + e - i, f + h, c - g], dim=-1),
            torch.stack([c + g, f + h, 1 - a - e + i, d - b], dim=-1),
            torch.stack([h - f, c - g, d - b, 1 + a + e + i], dim=-1),
        ],
        dim=-2,
    )
    largest = products.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    chosen = products.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4)).squeeze(-2)
    quaternion = chosen / chosen.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    """Any two independent rows [..., 6] -> rotation matrix [..., 3, 3] by Gram-Schmidt (Zhou et al., section B).

    Rows without a direction (zero or parallel, as an untrained network may give) yield a finite matrix that is no
    rotation.
    """
    first, second = rotation_6d[..., :3], rotation_6d[..., 3:]
    x = torch.nn.functional.normalize(first, dim=-1)
    y = torch.nn.functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-2)


def axis_angle_to_rotation_6d(axis_angle: Tensor) -> Tensor:
    """Axis times angle [..., 3] -> 6-D form [..., 6]."""
    matrix = quaternion_to_matrix(axis_angle_to_quaternion(axis_angle))
    return matrix[..., :2, :].flatten(-2)


def rotation_6d_to_axis_angle(rotation_6d: Tensor) -> Tensor:
    """6-D form [..., 6] -> axis times angle [..., 3], the angle in [0, pi]."""
    return quaternion_to_axis_angle(matrix_to_quaternion(rotation_6d_to_matrix(rotation_6d)))


def abs_action_to_6d(actions: Tensor) -> Tensor:
    """Absolute actions of one or more arms (position, axis-angle, gripper) [..., 7 * arms] -> [..., 10 * arms].

    Raises:
        UserError: the actions are no whole number of arms long.
    """
    arms = _split_arms(actions, ARM_AXIS_ANGLE, "position 3, axis-angle 3, gripper 1")
    rotation = axis_angle_to_rotation_6d(arms[..., 3:6])
    return torch.cat([arms[..., :3], rotation, arms[..., 6:]], dim=-1).flatten(-2)


def abs_action_from_6d(actions: Tensor) -> Tensor:
    """Inverse of `abs_action_to_6d`: [..., 10 * arms] -> [..., 7 * arms]; rotations of a network are made orthonormal.

    Raises:
        UserError: the actions are no whole number of arms long.
    """
    arms = _split_arms(actions, ARM_6D, "position 3, rotation 6, gripper 1")
    rotation = rotation_6d_to_axis_angle(arms[..., 3:9])
    return torch.cat([arms[..., :3], rotation, arms[..., 9:]], dim=-1).flatten(-2)


def _split_arms(actions: Tensor, size: int, parts: str) -> Tensor:
    """[..., size * arms] -> [..., arms, size]."""
    if actions.shape[-1] == 0 or actions.shape[-1] % size:
        raise UserError(
            f"absolute actions have {size} numbers for each arm ({parts}), and these have {actions.shape[-1]}; "
            "set task.action_rotation to none for other actions."
        )
    return torch.unflatten(actions, -1, (-1, size))
