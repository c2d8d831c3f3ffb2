"""Fetch: a mobile arm's gripper pushes or carries a cube to a goal (Plappert et al. 2018, arXiv:1802.09464)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policy_accel.errors import one_of

from .planning import GoalEnv, mujoco, quiet_make, vector

TASKS = ("push", "pick_and_place")
SUCCESS_DISTANCE = 0.05  # m
_STATE = (
    mujoco.mjtState.mjSTATE_FULLPHYSICS
    | mujoco.mjtState.mjSTATE_WARMSTART
    | mujoco.mjtState.mjSTATE_CTRL
    | mujoco.mjtState.mjSTATE_MOCAP_POS
    | mujoco.mjtState.mjSTATE_MOCAP_QUAT
)


class Fetch(GoalEnv):
    """Bring a cube within 5 cm of a goal, 25 actions a second: FetchPush-v4 or FetchPickAndPlace-v4.

    observation: {"observation" [25] float32: positions of gripper and cube in m, the cube relative to the gripper,
    the fingers, the cube's rotation, velocities; "achieved_goal" [3]: the cube; "desired_goal" [3]: where it shall be,
    on the table, or with pick_and_place also in the air}.
    action [4] in [-1, 1]: the gripper's way in x, y, z, of at most 5 cm, and the opening of its fingers (which
    push leaves shut).
    reward: 1 within 5 cm of the goal, where the episode terminates; else 0.

    Args:
        task: "push" or "pick_and_place".
        goal: x, y, z of a fixed goal in m; None for a drawn one.
        render_mode: None or "rgb_array".
        render_camera: a camera of the model, or None for the free view.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(
        self,
        task: str = "pick_and_place",
        goal: Any = None,
        render_mode: str | None = None,
        render_camera: str | None = None,
    ) -> None:
        from gymnasium_robotics.envs.fetch import pick_and_place, push

        self.task = one_of("task", task, TASKS)
        simulators = {"push": push.MujocoFetchPushEnv, "pick_and_place": pick_and_place.MujocoFetchPickAndPlaceEnv}
        super().__init__(quiet_make(simulators[task], render_mode=render_mode), goal, render_camera)

    def state(self) -> np.ndarray:
        """The state of the simulation [D] float64, for the option "state" of a reset."""
        model = self.simulator.model
        values = np.empty(mujoco.mj_stateSize(model, _STATE))
        mujoco.mj_getState(model, self.simulator.data, values, _STATE)
        return values

    def place(self, state: Any) -> None:
        """Put the simulation into what `state` returned.

        A start goes on as it did; a later state to about 1 mm, since the gripper's target follows positions that the
        simulator computed one physics step of 2 ms before.
        """
        model, data = self.simulator.model, self.simulator.data
        values = vector(state, (mujoco.mj_stateSize(model, _STATE),), "state")
        mujoco.mj_setState(model, data, values, _STATE)
        mujoco.mj_forward(model, data)
        mujoco.mj_setState(model, data, values, _STATE)

    def aim(self, goal: np.ndarray) -> None:
        """See `GoalEnv`."""
        self.simulator.goal = goal.copy()

    def observe(self) -> Mapping[str, np.ndarray]:
        """See `GoalEnv`."""
        observation: Mapping[str, np.ndarray] = self.simulator._get_obs()
        return observation

    def is_success(self, observation: Mapping[str, np.ndarray]) -> bool:
        """See `GoalEnv`."""
        return bool(np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"]) < SUCCESS_DISTANCE)
