"""What the planning tasks share: gymnasium-robotics' environments with float32 observations, ended by success."""

from __future__ import annotations

import contextlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from policy_accel.errors import UserError, did_you_mean
from policy_accel.extras import to_install

from .rendering import opengl_errors, set_up_rendering

LAST_MUJOCO = (3, 10)

try:
    with (
        opengl_errors("MuJoCo cannot be imported", ImportError),
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        import gymnasium_robotics
        import mujoco as mujoco  # the simulators of this folder take it from here
except ImportError as error:
    raise UserError(
        f"the planning tasks need gymnasium-robotics and MuJoCo ({error}); {to_install('planning')}"
    ) from error

if tuple(int(part) for part in mujoco.__version__.split(".")[:2]) > LAST_MUJOCO:
    raise UserError(
        f"gymnasium-robotics {gymnasium_robotics.__version__} cannot drive MuJoCo {mujoco.__version__}; "
        "install an older one with: pip install 'mujoco<3.10'"
    )


class PlanningEnv(gymnasium.Env):
    """A simulator of gymnasium-robotics whose observations are a flat dictionary of named float32 vectors.

    An episode is fixed by the seed of its reset. It terminates at success and has no time limit of its own. The reward
    is within [0, 1], success is 1; `info` has `is_success`.

    Args:
        simulator: has `model` and `data` of MuJoCo; made without rendering or with render_mode "rgb_array".
        render_camera: name of a camera of the model; None for the simulator's own view.
        drawn_by: whose `mujoco_renderer` draws; None for the simulator.

    Raises:
        UserError: a camera that the model does not have.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012, gymnasium's declaration

    def __init__(self, simulator: Any, render_camera: str | None = None, drawn_by: Any = None) -> None:
        self.simulator = simulator
        observed = simulator.observation_space
        named = observed if isinstance(observed, spaces.Dict) else spaces.Dict({"observation": observed})
        self.observation_space: spaces.Dict = as_float32_space(named)
        self.action_space = self.simulator.action_space
        self.render_mode = self.simulator.render_mode
        if self.render_mode is not None:
            set_up_rendering()
        if render_camera is not None:
            renderer = (simulator if drawn_by is None else drawn_by).mujoco_renderer
            renderer.camera_id = camera_number(self.simulator.model, render_camera)

    def render(self) -> np.ndarray | None:
        """A picture [480, 480, 3] uint8; None without a render mode. Drawing does not change the episode."""
        if self.render_mode is None:
            return None
        model, data = self.simulator.model, self.simulator.data
        before = copy(data)  # some simulators compute positions and forces anew to draw, and go on from them
        with opengl_errors(f"{type(self).__name__} cannot be drawn"):
            picture: np.ndarray = self.simulator.render()
        mujoco.mj_copyData(data, model, before)
        return picture

    def close(self) -> None:
        """Free the simulator and its renderer."""
        self.simulator.close()


class GoalEnv(PlanningEnv, ABC):
    """A `PlanningEnv` with the observation keys observation, achieved_goal and desired_goal.

    Subclasses say how a state and a goal are set (`place`, `aim`), and what the simulator observes then (`observe`).

    Args:
        simulator: a goal environment of gymnasium-robotics.
        goal: the desired goal of every episode; None for the goal that the simulator draws.
        render_camera: see `PlanningEnv`.
        drawn_by: see `PlanningEnv`.
    """

    def __init__(
        self, simulator: Any, goal: Any = None, render_camera: str | None = None, drawn_by: Any = None
    ) -> None:
        super().__init__(simulator, render_camera, drawn_by)
        self.goal = None if goal is None else vector(goal, self.observation_space["desired_goal"].shape, "goal")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode from the seed's start and goal.

        Args:
            seed: draws both; without one the simulator's generator goes on.
            options: "goal" takes the place of the drawn goal and of the fixed one, "state" of the drawn start.

        Raises:
            UserError: an unknown option, or a value of a wrong shape, not finite or impossible in this task.
        """
        super().reset(seed=seed)
        chosen = known_options(options, ("goal", "state"))
        self.simulator.reset(seed=seed)
        goal = self.goal if chosen.get("goal") is None else chosen["goal"]
        if goal is not None:
            self.aim(vector(goal, self.observation_space["desired_goal"].shape, "goal"))
        if chosen.get("state") is not None:
            self.place(chosen["state"])
        observation = self.observe()
        return as_float32(observation), {"is_success": self.is_success(observation)}

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Take an action, cut to [-1, 1]. Raises UserError when it is not finite or has a wrong shape."""
        wanted = vector(action, self.action_space.shape, "action")
        observation = self.simulator.step(wanted)[0]
        success = self.is_success(observation)
        return as_float32(observation), float(success), success, False, {"is_success": success}

    @abstractmethod
    def place(self, state: Any) -> None:
        """Put the simulator into a recorded state."""

    @abstractmethod
    def aim(self, goal: np.ndarray) -> None:
        """Set the desired goal."""

    @abstractmethod
    def observe(self) -> Mapping[str, np.ndarray]:
        """The simulator's observation of the present state."""

    @abstractmethod
    def is_success(self, observation: Mapping[str, np.ndarray]) -> bool:
        """Whether the achieved goal of the simulator's observation is as near to the desired one as the task asks."""


def env_args(name: str, /, **options: Any) -> dict[str, Any]:
    """What robomimic files say of the environment that episodes were recorded in; type 2 is a gymnasium environment."""
    return {"env_name": name, "type": 2, "env_version": gymnasium_robotics.__version__, "env_kwargs": options}


def quiet_make(make: Any, /, **arguments: Any) -> Any:
    """Make a simulator; what it says about versions of itself is not for the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(**arguments)


def as_float32(observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every value of an observation as float32; nested dictionaries become keys with a dot between the names."""
    flat: dict[str, np.ndarray] = {}
    for key, value in observation.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": part for name, part in as_float32(value).items()}
        else:
            flat[key] = np.array(value, dtype=np.float32)
    return flat


def as_float32_space(space: Any) -> spaces.Dict:
    """The space of `as_float32` of a dictionary space's observations."""
    boxes: dict[str, spaces.Space[Any]] = {}
    for key, part in space.spaces.items():
        if isinstance(part, spaces.Dict):
            boxes |= {f"{key}.{name}": box for name, box in as_float32_space(part).spaces.items()}
        else:
            boxes[key] = spaces.Box(-np.inf, np.inf, part.shape, np.float32)
    return spaces.Dict(boxes)


def known_options(options: dict[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """The options of a reset; raises UserError for an unknown one."""
    for name in options or {}:
        if name not in known:
            raise UserError(f"reset has no option '{name}'; {did_you_mean(name, known)}")
    return dict(options or {})


def vector(values: Any, shape: tuple[int, ...] | None, name: str) -> np.ndarray:
    """Finite numbers of a given shape as float64; raises UserError otherwise."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise UserError(f"{name} is {values!r}; give finite numbers of shape {shape}.")
    return array


def camera_number(model: Any, name: str) -> int:
    """The number of a camera of a MuJoCo model; raises UserError with the known names."""
    names = [model.camera(number).name for number in range(model.ncam)]
    if name not in names:
        remedy = did_you_mean(name, names) if names else "the model of this task has none: leave render_camera out."
        raise UserError(f"render_camera '{name}' is unknown; {remedy}")
    return names.index(name)
