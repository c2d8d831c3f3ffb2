from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from policy_accel.errors import UserError
from policy_accel.policy.rotations import (
    abs_action_from_6d,
    abs_action_to_6d,
    axis_angle_to_quaternion,
    axis_angle_to_rotation_6d,
    matrix_to_quaternion,
    quaternion_to_axis_angle,
    quaternion_to_matrix,
    rotation_6d_to_axis_angle,
    rotation_6d_to_matrix,
)

ANGLES = [0.0, 1e-12, 1e-8, 1e-5, 1e-3, 0.1, 1.0, np.pi / 2, 2.0, np.pi - 1e-3, np.pi - 1e-6, np.pi - 1e-9]


@pytest.fixture(scope="module")
def rotations() -> Rotation:
    """Every angle about random axes and about the coordinate axes, where matrices have zeros."""
    generator = np.random.default_rng(0)
    axes = generator.normal(size=(50, 3))
    axes = np.concatenate([axes / np.linalg.norm(axes, axis=1, keepdims=True), np.eye(3), -np.eye(3)])
    return Rotation.from_rotvec(np.concatenate([axes * angle for angle in ANGLES]))


def same_rotation(quaternions: torch.Tensor, reference: Rotation) -> float:
    """Largest difference to scipy's quaternions, whose sign is free."""
    expected = torch.from_numpy(reference.as_quat())
    difference = torch.minimum((quaternions - expected).norm(dim=-1), (quaternions + expected).norm(dim=-1))
    return float(difference.max())


def test_every_form_agrees_with_scipy(rotations):
    axis_angle = torch.from_numpy(rotations.as_rotvec())
    matrix = torch.from_numpy(rotations.as_matrix())
    assert same_rotation(axis_angle_to_quaternion(axis_angle), rotations) < 1e-14
    assert same_rotation(matrix_to_quaternion(matrix), rotations) < 1e-14
    torch.testing.assert_close(quaternion_to_matrix(axis_angle_to_quaternion(axis_angle)), matrix, rtol=0, atol=1e-14)
    torch.testing.assert_close(quaternion_to_matrix(torch.from_numpy(rotations.as_quat())), matrix, rtol=0, atol=1e-14)
    torch.testing.assert_close(quaternion_to_axis_angle(matrix_to_quaternion(matrix)), axis_angle, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        quaternion_to_axis_angle(torch.from_numpy(rotations.as_quat())), axis_angle, rtol=0, atol=1e-13
    )


def test_single_precision_is_kept_and_accurate(rotations):
    axis_angle = torch.from_numpy(rotations.as_rotvec()).float()
    again = rotation_6d_to_axis_angle(axis_angle_to_rotation_6d(axis_angle))
    assert again.dtype == torch.float32
    assert again.isfinite().all()
    difference = Rotation.from_rotvec(again.double().numpy()) * Rotation.from_rotvec(axis_angle.double().numpy()).inv()
    assert difference.magnitude().max() < 2e-6


def test_small_angles_survive_single_precision():
    tiny = torch.tensor([[1e-4, -2e-4, 3e-4], [1e-20, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(quaternion_to_axis_angle(axis_angle_to_quaternion(tiny)), tiny, rtol=1e-5, atol=0)


def test_half_turns_come_back_as_the_same_rotation():
    generator = np.random.default_rng(1)
    axes = generator.normal(size=(100, 3))
    turns = Rotation.from_rotvec(np.pi * np.concatenate([axes / np.linalg.norm(axes, axis=1)[:, None], np.eye(3)]))
    found = quaternion_to_axis_angle(matrix_to_quaternion(torch.from_numpy(turns.as_matrix())))
    np.testing.assert_allclose(found.norm(dim=-1).numpy(), np.pi, atol=1e-12)
    assert (Rotation.from_rotvec(found.numpy()) * turns.inv()).magnitude().max() < 1e-7


def test_angles_beyond_half_a_turn_and_unnormalised_quaternions_are_understood():
    long_way = torch.tensor([[0.0, 0.0, 1.5 * np.pi]], dtype=torch.float64)
    expected = Rotation.from_rotvec(long_way.numpy()).as_matrix()
    np.testing.assert_allclose(quaternion_to_matrix(axis_angle_to_quaternion(long_way)).numpy(), expected, atol=1e-14)
    np.testing.assert_allclose(
        quaternion_to_matrix(5 * axis_angle_to_quaternion(long_way)).numpy(), expected, atol=1e-14
    )


def test_six_numbers_are_the_first_two_rows(rotations):
    matrix = torch.from_numpy(rotations.as_matrix())
    six = matrix.reshape(-1, 9)[:, :6]
    found = axis_angle_to_rotation_6d(torch.from_numpy(rotations.as_rotvec()))
    torch.testing.assert_close(found, six, rtol=0, atol=1e-14)
    torch.testing.assert_close(rotation_6d_to_matrix(six), matrix, rtol=0, atol=1e-14)


def test_any_six_numbers_become_a_rotation():
    six = torch.randn(200, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = rotation_6d_to_matrix(six)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3).double().expand_as(matrix), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(200).double())
    # Gram-Schmidt keeps the direction of the first row and the plane of both
    torch.testing.assert_close(matrix[:, 0], six[:, :3] / six[:, :3].norm(dim=-1, keepdim=True))
    torch.testing.assert_close((matrix[:, 2] * six[:, 3:]).sum(-1), torch.zeros(200).double(), rtol=0, atol=1e-12)
    assert rotation_6d_to_matrix(torch.zeros(6)).isfinite().all()


@pytest.mark.parametrize("arms", [1, 2])
def test_absolute_actions_keep_position_and_gripper(arms):
    generator = np.random.default_rng(arms)
    actions = torch.from_numpy(generator.uniform(-1, 1, size=(5, 4, arms, 7)))
    six = abs_action_to_6d(actions.flatten(-2))
    assert six.shape == (5, 4, 10 * arms)
    parts = six.unflatten(-1, (arms, 10))
    assert torch.equal(parts[..., :3], actions[..., :3])
    assert torch.equal(parts[..., 9:], actions[..., 6:])
    expected = Rotation.from_rotvec(actions[..., 3:6].reshape(-1, 3).numpy()).as_matrix()[:, :2].reshape(-1, 6)
    np.testing.assert_allclose(parts[..., 3:9].reshape(-1, 6).numpy(), expected, atol=1e-14)
    torch.testing.assert_close(abs_action_from_6d(six), actions.flatten(-2), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("convert", "size"), [(abs_action_to_6d, 8), (abs_action_from_6d, 7), (abs_action_to_6d, 0)])
def test_actions_of_another_size_are_refused(convert, size):
    with pytest.raises(UserError, match=f"these have {size};"):
        convert(torch.zeros(3, size))
