from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from policy_accel.errors import UserError
from policy_accel.policy.actions import decode_actions, encode_actions, executed_dim, fit_action_normalizer


def recorded(arms: int, count: int = 50) -> np.ndarray:
    generator = np.random.default_rng(arms)
    rotations = Rotation.random(arms * count, random_state=generator).as_rotvec().reshape(count, arms, 3)
    positions = generator.uniform(-0.5, 1.5, (count, arms, 3))
    gripper = generator.choice([-1.0, 1.0], (count, arms, 1))
    return np.concatenate([positions, rotations, gripper], axis=2).reshape(count, 7 * arms).astype(np.float32)


@pytest.mark.parametrize("arms", [1, 2])
def test_rotations_are_learnt_as_the_first_two_rows_of_their_matrix(arms: int) -> None:
    actions = recorded(arms)
    encoded = encode_actions(torch.from_numpy(actions), "rotation_6d")
    assert encoded.shape == (50, 10 * arms)
    for arm in range(arms):
        own = actions.reshape(50, arms, 7)[:, arm]
        matrices = Rotation.from_rotvec(own[:, 3:6]).as_matrix()
        expected = np.concatenate([own[:, :3], matrices[:, :2].reshape(50, 6), own[:, 6:]], axis=1)
        np.testing.assert_allclose(encoded[:, 10 * arm : 10 * arm + 10], expected, atol=1e-5)
    decoded = decode_actions(encoded, "rotation_6d")
    np.testing.assert_allclose(decoded, actions, atol=1e-3)
    assert executed_dim(10 * arms, "rotation_6d") == 7 * arms
    assert executed_dim(7, "none") == 7
    assert torch.equal(encode_actions(torch.from_numpy(actions), "none"), torch.from_numpy(actions))


def test_position_limits_leave_rotation_and_gripper_alone() -> None:
    encoded = encode_actions(torch.from_numpy(recorded(2)), "rotation_6d")
    normalized = fit_action_normalizer(encoded, "position_limits", "rotation_6d")(encoded)
    for arm in range(2):
        positions = normalized[:, 10 * arm : 10 * arm + 3]
        torch.testing.assert_close(positions.amin(0), torch.full((3,), -1.0))
        torch.testing.assert_close(positions.amax(0), torch.ones(3))
        rest = slice(10 * arm + 3, 10 * arm + 10)
        assert torch.equal(normalized[:, rest], encoded[:, rest])
    everything = fit_action_normalizer(encoded, "limits", "rotation_6d")(encoded)
    torch.testing.assert_close(everything.amax(0), torch.ones(20))


def test_wrong_forms_are_refused() -> None:
    actions = torch.zeros(4, 6)
    with pytest.raises(UserError, match=r"takes absolute actions of 7 numbers an arm .* task.action has 6"):
        encode_actions(actions, "rotation_6d")
    with pytest.raises(UserError, match=r"task.action_rotation 'euler' is unknown"):
        encode_actions(actions, "euler")
    with pytest.raises(UserError, match=r"position_limits needs task.action_rotation=rotation_6d, not none"):
        fit_action_normalizer(torch.rand(4, 7), "position_limits", "none")
    with pytest.raises(UserError, match="did you mean 'limits'"):
        fit_action_normalizer(torch.rand(4, 7), "limit", "none")
