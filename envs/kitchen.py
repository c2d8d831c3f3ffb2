"""Franka Kitchen: a robot arm does several things in a kitchen in one episode (Gupta et al. 2019, arXiv:1910.11956)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policy_accel.errors import UserError, one_of

from .planning import PlanningEnv, as_float32, known_options, quiet_make, vector

COMPLETE = ("microwave", "kettle", "light switch", "slide cabinet")
"""The subtasks of D4RL's and Minari's kitchen/complete."""


class Kitchen(PlanningEnv):
    """Do `needed` of the subtasks in any order, 12.5 actions a second, from state observations.

    observation: {"observation" [59] float32: 9 joint angles and velocities of the arm, positions and velocities of
    the kitchen's objects, with the noise that the simulator adds; for each subtask "achieved_goal.<subtask>" and
    "desired_goal.<subtask>"}, as in Minari's D4RL/kitchen.
    action [9] in [-1, 1]: joint velocities of arm and fingers.
    reward: subtasks done so far over `needed`, at most 1, where the episode terminates with success.
    `info` has `is_success`, `completed` (the subtasks in the order in which they were done) and
    `metrics`: p1, p2, ... up to `needed`, 1 when at least so many were done, else 0.

    Args:
        tasks: subtasks that count: bottom burner, top burner, light switch, slide cabinet, hinge cabinet, microwave,
            kettle.
        needed: how many of them make a success; all when None.
        render_mode: None or "rgb_array".
        render_camera: a camera of the model, or None for the free view.

    Raises:
        UserError: an unknown or repeated subtask; `needed` not between 1 and their number.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012

    def __init__(
        self,
        tasks: Sequence[str] = COMPLETE,
        needed: int | None = None,
        render_mode: str | None = None,
        render_camera: str | None = None,
    ) -> None:
        from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_GOALS, KitchenEnv

        self.tasks = [one_of("kitchen subtask", task, OBS_ELEMENT_GOALS) for task in tasks]
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UserError(f"tasks is {self.tasks}; give at least one subtask, each once.")
        self.needed = len(self.tasks) if needed is None else needed
        if not 1 <= self.needed <= len(self.tasks):
            raise UserError(f"needed is {needed}; give a number from 1 to {len(self.tasks)}, the number of subtasks.")
        simulator = quiet_make(
            KitchenEnv, tasks_to_complete=self.tasks, terminate_on_tasks_completed=False, render_mode=render_mode
        )
        super().__init__(simulator, render_camera, drawn_by=simulator.robot_env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode: the start is always the same, the seed draws the noise of the observations.

        Args:
            seed: of the noise; without one the simulator's generator goes on.
            options: "state": qpos [30] and qvel [29] end to end, in the place of the start.

        Raises:
            UserError: an unknown option, or a state that is not finite or has a wrong shape.
        """
        super().reset(seed=seed)
        chosen = known_options(options, ("state",))
        observation, _ = self.simulator.reset(seed=seed)
        if chosen.get("state") is not None:
            model, robot = self.simulator.model, self.simulator.robot_env
            state = vector(chosen["state"], (model.nq + model.nv,), "state")
            robot.set_state(state[: model.nq], state[model.nq :])
            observation = self.simulator._get_obs(robot._get_obs())
        return as_float32(observation), self._info([])

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Take an action, cut to [-1, 1]. Raises UserError when it is not finite or has a wrong shape."""
        wanted = vector(action, self.action_space.shape, "action")
        observation, *_, facts = self.simulator.step(wanted)
        info = self._info(facts["episode_task_completions"])
        reward = min(len(info["completed"]) / self.needed, 1.0)
        return as_float32(observation), reward, info["is_success"], False, info

    def _info(self, completed: list[str]) -> dict[str, Any]:
        count = len(completed)
        metrics = {f"p{number}": float(count >= number) for number in range(1, self.needed + 1)}
        return {"is_success": count >= self.needed, "completed": list(completed), "metrics": metrics}
