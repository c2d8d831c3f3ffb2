"""Absolute actions for demonstrations that were recorded with relative ones.

The form of Diffusion Policy's `*_abs.hdf5` and of robomimic's `actions_abs`: the pose that the arm's controller steers
to, for every step, and the gripper's command unchanged.
"""

from __future__ import annotations

import numpy as np

from policy_accel.errors import UserError

from .robosuite_env import Robosuite
from .robosuite_tasks import ARM_ACTION


def absolute_actions(environment: Robosuite, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The goals that the controllers take from every recorded action in its recorded state; nothing is simulated.

    Args:
        environment: of the data set, with relative actions; its episode is lost.
        states: [T, D], the simulator's state before each action (robomimic's `states`).
        actions: [T, 7 * arms] relative actions.

    Returns:
        [T, 7 * arms] float64: position (m), axis-angle (rad) in the controller's frame and gripper of each arm.

    Raises:
        UserError: an environment with absolute actions; states or actions of another shape.
    """
    if environment.actions != "relative":
        raise UserError("absolute_actions replays relative actions; make the environment with actions='relative'.")
    arms = environment.arms
    if actions.ndim != 2 or actions.shape[1] != arms * ARM_ACTION or len(states) != len(actions):
        raise UserError(
            f"absolute_actions takes one state and {arms * ARM_ACTION} numbers for each step, got states "
            f"{np.shape(states)} and actions {np.shape(actions)}."
        )
    commands = np.asarray(actions, dtype=np.float64).reshape(len(actions), arms, ARM_ACTION)
    found = commands.copy()
    for step, state in enumerate(states):
        if step == 0:
            environment.reset(seed=0, options={"state": state})
        found[step, :, :-1] = environment.goals_in(state, commands[step, :, :-1])
    return found.reshape(len(actions), -1)
