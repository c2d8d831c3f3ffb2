"""Mazes of gymnasium-robotics: a point mass or an ant goes from a drawn cell to a drawn goal.

PointMaze is Maze2D of D4RL (Fu et al. 2020, arXiv:2004.07219) on current MuJoCo, the task of whole-trajectory planning
in Janner et al. 2022 (arXiv:2205.09991).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from policy_accel.errors import UserError, one_of

from .planning import GoalEnv, as_float32, mujoco, quiet_make, vector

SUCCESS_DISTANCE = 0.45  # in the units of the maze, for both bodies

MAZES = {"umaze": "U_MAZE", "medium": "MEDIUM_MAZE", "large": "LARGE_MAZE", "open": "OPEN"}
"""Name of a maze -> its map in `gymnasium_robotics.envs.maze.maps`, 1 for a wall."""


def maze_map(maze: str) -> list[list[int | str]]:
    """The map of a named maze, rows from +y to -y; raises UserError for an unknown name."""
    from gymnasium_robotics.envs.maze import maps

    layout: list[list[int | str]] = getattr(maps, MAZES[one_of("maze", maze, MAZES)])
    return layout


class MazeEnv(GoalEnv):
    """What both mazes share; a seed draws a goal cell, another start cell, and an offset in each.

    Args:
        simulator: of gymnasium-robotics.
        body: its MuJoCo environment of the body in the maze.
        goal: see `GoalEnv`.
        render_camera: see `PlanningEnv`.
    """

    def __init__(self, simulator: Any, body: Any, goal: Any = None, render_camera: str | None = None) -> None:
        self.body = body
        super().__init__(simulator, goal, render_camera, drawn_by=body)

    @property
    def maze(self) -> Any:
        """gymnasium-robotics' description: `maze_map`, `cell_rowcol_to_xy`, `cell_xy_to_rowcol`."""
        return self.simulator.maze

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """See `GoalEnv`; a start too near to a goal that the seed did not draw is drawn again."""
        observation, info = super().reset(seed=seed, options=options)
        if (options or {}).get("state") is None:
            # The simulator's own goals and starts are at least half a cell apart.
            while np.linalg.norm(observation["achieved_goal"] - self.simulator.goal) <= SUCCESS_DISTANCE:
                start = self.simulator.add_xy_position_noise(self.simulator.generate_reset_pos())
                self.place(np.concatenate((start, self.body.init_qpos[2:], self.body.init_qvel)))
                observation = as_float32(self.observe())
            info = {"is_success": False}
        return observation, info

    def place(self, state: Any) -> None:
        """Put the body at positions and velocities [nq + nv]."""
        size = self.body.model.nq
        values = vector(state, (size + self.body.model.nv,), "state")
        mujoco.mj_resetData(self.body.model, self.body.data)  # nothing of the drawn start is left in the solver
        self.body.set_state(values[:size], values[size:])

    def aim(self, goal: np.ndarray) -> None:
        """Set the goal x, y; raises UserError when it is in a wall or outside the maze."""
        row, column = self.maze.cell_xy_to_rowcol(goal)
        inside = 0 <= row < self.maze.map_length and 0 <= column < self.maze.map_width
        if not inside or self.maze.maze_map[row][column] == 1:
            raise UserError(f"goal {goal.tolist()} is in a wall or outside the maze; give x, y in a free cell.")
        self.simulator.goal = goal.copy()
        self.simulator.update_target_site_pos()

    def is_success(self, observation: Mapping[str, np.ndarray]) -> bool:
        """Whether the body is within SUCCESS_DISTANCE of the goal."""
        return bool(np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"]) <= SUCCESS_DISTANCE)


class PointMaze(MazeEnv):
    """A ball that is pushed by a force through a maze, 100 actions a second.

    observation: {"observation" [4] float32: x, y in m, velocities in m/s; "achieved_goal" [2]: x, y;
    "desired_goal" [2]: the goal's x, y}. A cell is 1 m wide, the middle of the maze is (0, 0).
    action [2] in [-1, 1]: the force along x and y, of at most 100 N (24 m/s^2). Speed is cut to 5 m/s an axis.
    reward: 1 within 0.45 m of the goal, where the episode terminates; else 0.

    Args:
        maze: "umaze", "medium", "large" or "open".
        goal: x, y of a fixed goal; None for a drawn one.
        render_mode: None or "rgb_array".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012

    def __init__(self, maze: str = "medium", goal: Any = None, render_mode: str | None = None) -> None:
        from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

        simulator = _make(PointMazeEnv, maze, render_mode)
        super().__init__(simulator, simulator.point_env, goal)

    def observe(self) -> Mapping[str, np.ndarray]:
        """See `GoalEnv`."""
        observation: Mapping[str, np.ndarray] = self.simulator._get_obs(self.body._get_obs()[0])
        return observation


class AntMaze(MazeEnv):
    """MuJoCo's four-legged ant in a maze with cells of 4 m, 20 actions a second.

    observation: {"observation" [27] float32: height, orientation, joint angles, then all velocities;
    "achieved_goal" [2]: x, y of the torso in m; "desired_goal" [2]}, as in the sets D4RL/antmaze of Minari.
    action [8] in [-1, 1]: torques of the joints. reward: 1 within 0.45 m of the goal (success), else 0.

    Args:
        maze: as for `PointMaze`.
        goal: x, y of a fixed goal in m; None for a drawn one.
        render_mode: None or "rgb_array".
        render_camera: "track", or None for the view of the whole maze.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self, maze: str = "umaze", goal: Any = None, render_mode: str | None = None, render_camera: str | None = None
    ) -> None:
        from gymnasium_robotics.envs.maze.ant_maze_v4 import AntMazeEnv

        simulator = _make(AntMazeEnv, maze, render_mode)
        super().__init__(simulator, simulator.ant_env, goal, render_camera)

    def observe(self) -> Mapping[str, np.ndarray]:
        """See `GoalEnv`."""
        observation: Mapping[str, np.ndarray] = self.simulator._get_obs(self.body._get_obs())
        return observation


def _make(simulator: Any, maze: str, render_mode: str | None) -> Any:
    made = quiet_make(simulator, maze_map=maze_map(maze), continuing_task=False, render_mode=render_mode)
    os.unlink(made.tmp_xml_file_path)  # the model is loaded; the simulator leaves its file behind
    return made
