"""robosuite's manipulation tasks as a gymnasium environment, with the names and conventions of robomimic's data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from scipy.spatial.transform import Rotation

from policy_accel.errors import UserError

from .rendering import opengl_errors, set_up_rendering
from .robosuite_cube import redraw_cube
from .robosuite_frames import draw_when, keep_contexts_apart
from .robosuite_make import (
    INPUT_TYPES,
    add_render_context,
    check_cameras,
    complete_env_args,
    make_robosuite,
    seeded,
)
from .robosuite_tasks import ARM_ACTION, CONTROL_FREQUENCY, default_env_args, find_task, task_of_environment
from .robosuite_versions import installed_version

REACH = 3.0
"""m: bound of the positions in the space of absolute actions; the controllers take any."""
DRAWN_SEEDS = 2**31


class Robosuite(gymnasium.Env):
    """Lift, Can, Square, Tool Hang or Transport with Panda arms at 20 Hz, or the environment of a robomimic file.

    observation: Dict of float32 arrays under robomimic's names: `object` (poses of the objects and of the hand relative
        to them), `robot0_eef_pos` [3] m, `robot0_eef_quat` [4] (x, y, z, w), `robot0_gripper_qpos` [2],
        `robot0_joint_pos` [7], ... and the same of `robot1_`; `<camera>_image` uint8 [size, size, 3], upright, for
        every camera asked for.
    action, for each arm 7 numbers. "relative": [-1, 1], position change of up to 5 cm, rotation (axis-angle) of up to
        0.5 rad, gripper (-1 open, 1 close). "absolute": position in m and axis-angle in rad in the controller's frame
        (the world's, unless env_args says otherwise), gripper.
    reward: 1 at success, else 0. The episode terminates at success and has no time limit of its own.
    `info` has `is_success`.

    Attributes:
        env_args: robomimic's metadata of this environment, as a data set of it should hold it.
        robosuite: robosuite's own environment, for experts.
        actions: "relative" or "absolute".
        arms: how many arms there are.
        varies: what differs in the model from episode to episode ("nothing", "cube", "object"); only for a whole object
            does a reset build the model again, because the others give the same numbers without.
        frames_wanted: whether the frames that `step` observes are looked at; while False they are the last ones drawn,
            which saves the time of drawing. `reset` and `render` always draw.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_FREQUENCY}  # noqa: RUF012

    def __init__(
        self,
        task: str = "lift",
        actions: str | None = None,
        cameras: Sequence[str] = (),
        image_size: int = 84,
        env_args: dict[str, Any] | None = None,
        render_mode: str | None = None,
        render_camera: str = "agentview",
        render_size: int = 256,
    ) -> None:
        """Make the environment.

        Args:
            task: lift, can, square, tool_hang or transport; `env_args`, when given, names the environment itself.
            actions: "relative" or "absolute"; None for those of `env_args`, and relative without it.
            cameras: cameras to observe.
            image_size: px, of an observed frame's sides.
            env_args: robomimic's environment metadata of a data set (`env_name`, `env_version`, `env_kwargs`), of
                which exactly that environment is made.
            render_mode: "rgb_array" or None.
            render_camera: camera of `render()`.
            render_size: px, of a rendered frame's sides.

        Raises:
            UserError: an unknown task, camera or kind of actions; robosuite is missing or of another generation than
                `env_args`; no OpenGL for cameras; observations of another size than the task's data has.
        """
        known = find_task(task) if env_args is None else task_of_environment(str(env_args.get("env_name")))
        if env_args is None:
            env_args = default_env_args(find_task(task), installed_version())
            actions = actions or "relative"
        self.cameras = tuple(cameras)
        self.render_mode, self.render_camera, self.render_size = render_mode, render_camera, render_size
        self.env_args = complete_env_args(env_args, actions=actions, cameras=self.cameras, image_size=image_size)
        self.varies = "object" if known is None else known.varies
        self._model_file: str | None = None
        self.frames_wanted = True
        keep_contexts_apart()
        with seeded(0):
            self.robosuite = make_robosuite(self.env_args)
        draw_when(self.robosuite, lambda: self.frames_wanted)
        check_cameras(self.robosuite, [render_camera] if render_mode else [])
        arms = self._arm_controllers()
        self.arms = len(arms)
        self.actions = next(name for name, kind in INPUT_TYPES.items() if kind == arms[0].input_type)
        self.action_space = self._action_space()
        first = self._observe(self.robosuite._get_observations(force_update=True))
        self.observation_space = spaces.Dict({name: _space(value) for name, value in first.items()})
        if known is not None and first["object"].shape != (known.object_size,):
            raise UserError(
                f"robosuite {installed_version()} observes {first['object'].size} numbers as object in {known.env_name}"
                f" and robomimic's data has {known.object_size}; install it with: pip install 'robosuite==1.5.1'"
            )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: 0 to 2**32 - 1, fixes the start (as in Diffusion Policy's runner, for the same robosuite); None draws
                one.
            options: `state`, the simulator's state to start from (time, positions, velocities: robomimic's `states`),
                and `model`, the MuJoCo XML of its episode (`model_file`), without which the objects have the sizes that
                the seed draws.

        Raises:
            UserError: a state of another length than the model's; a model that MuJoCo cannot read.
        """
        super().reset(seed=seed)
        model, state = (options or {}).get("model"), (options or {}).get("state")
        wanted, self.frames_wanted = self.frames_wanted, False
        try:
            with seeded(int(self.np_random.integers(DRAWN_SEEDS)) if seed is None else seed):
                self._restart()
                if model is not None:
                    self._load_model(model)
                if state is not None:
                    self._set_state(state)
                self.frames_wanted = True
                # A reset of robosuite's own observes before its cache of the objects' poses is filled: 7 of Can's 14
                # numbers would be zero. Counted as the first time, so that steps are sampled at their ends as there.
                for observable in self.robosuite._observables.values():
                    observable.reset()
                observation = self.robosuite._get_observations(force_update=True)
        finally:
            self.frames_wanted = wanted
        return self._observe(observation), {"is_success": self._success()}

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Control for 0.05 s. Raises UserError when the action is not the right number of finite numbers."""
        command = np.asarray(action, dtype=np.float64)
        size = self.arms * ARM_ACTION
        if command.shape != (size,) or not np.isfinite(command).all():
            raise UserError(
                f"an action of robosuite's {self._name} is {size} finite numbers ({ARM_ACTION} for each arm), got "
                f"{action!r}"
            )
        observation, _, _, _ = self.robosuite.step(command)
        success = self._success()
        return self._observe(observation), float(success), success, False, {"is_success": success}

    def sim_state(self) -> np.ndarray:
        """The simulator's state (time, positions, velocities) [D] float64: robomimic's `states`."""
        return np.asarray(self.robosuite.sim.get_state().flatten())

    def model_xml(self) -> str:
        """The MuJoCo model of this episode: robomimic's `model_file`; meshes are named from robosuite's folder on."""
        if self._model_file is not None:
            return self._model_file
        import robosuite

        xml: str = self.robosuite.model.get_xml()
        return xml.replace(f"{Path(robosuite.__file__).parents[1]}/", "")

    def goals(self) -> np.ndarray:
        """What the arms' controllers steer to since the last step: position and axis-angle of each [arms, 6] float64.

        With the gripper's command behind, this is the absolute action that the last relative one stood for.
        """
        return np.array(
            [
                np.concatenate([arm.goal_pos, Rotation.from_matrix(arm.goal_ori).as_rotvec()])
                for arm in self._arm_controllers()
            ]
        )

    def goals_in(self, state: np.ndarray, commands: np.ndarray) -> np.ndarray:
        """What the arms' controllers would steer to when they took a command in a state; nothing is simulated.

        Args:
            state: [D], the simulator's state; it stays in the simulator.
            commands: [arms, 6], the arms' part of an action.

        Returns:
            [arms, 6] float64, as `goals`.
        """
        self.robosuite.sim.set_state_from_flattened(np.asarray(state, dtype=np.float64))
        self.robosuite.sim.forward()
        for robot in self.robosuite.robots:
            robot.composite_controller.update_state()
        for controller, command in zip(self._arm_controllers(), commands, strict=True):
            controller.update(force=True)
            controller.set_goal(command)
        return self.goals()

    def render(self) -> np.ndarray | None:
        """The view of `render_camera` as [render_size, render_size, 3] uint8; None without a render mode.

        Raises:
            UserError: no OpenGL.
        """
        if self.render_mode is None:
            return None
        sim = self.robosuite.sim
        if sim._render_context_offscreen is None:
            set_up_rendering()
            with opengl_errors(f"robosuite's camera {self.render_camera} cannot be drawn"):
                add_render_context(sim)
        size = self.render_size
        frame: np.ndarray = sim.render(camera_name=self.render_camera, width=size, height=size)
        return frame[::-1].copy()

    def close(self) -> None:
        """Free the simulator and its OpenGL context."""
        if self.robosuite is not None:
            self.robosuite.close()
            self.robosuite = None

    def _arm_controllers(self) -> list[Any]:
        """One for each arm, in the order of the actions; robosuite makes new ones at every reset."""
        return [robot.part_controllers[arm] for robot in self.robosuite.robots for arm in robot.arms]

    def _action_space(self) -> spaces.Box:
        if self.actions == "relative":
            return spaces.Box(-1.0, 1.0, (self.arms * ARM_ACTION,), np.float32)
        bound = np.tile(np.array([REACH] * 3 + [np.pi] * 3 + [1.0], np.float32), self.arms)
        return spaces.Box(-bound, bound, dtype=np.float32)

    def _restart(self) -> None:
        """A new episode of the environment's own."""
        environment = self.robosuite
        environment.hard_reset = self.varies == "object" or self._model_file is not None
        self._model_file = None
        if self.varies == "cube" and not environment.hard_reset:
            redraw_cube(environment)
        environment.reset()

    def _load_model(self, xml: str) -> None:
        """Replace the model by a recorded one, as robomimic's reset_to does."""
        environment = self.robosuite
        self._model_file = xml
        try:
            environment.reset_from_xml_string(environment.edit_model_xml(xml))
        except Exception as error:
            environment.deterministic_reset = False
            reason = " ".join(str(error).split())
            raise UserError(f"options['model'] is not a model of robosuite's {self._name} ({reason})") from error
        environment.sim.reset()
        environment.sim.forward()

    def _set_state(self, state: Any) -> None:
        """Put the simulator into a recorded state; controllers start anew, as in robomimic's reset_to."""
        environment = self.robosuite
        values = np.asarray(state, dtype=np.float64)
        size = 1 + environment.sim.model.nq + environment.sim.model.nv
        if values.shape != (size,) or not np.isfinite(values).all():
            raise UserError(
                f"a state of robosuite's {self._name} is {size} finite numbers (time, positions, velocities), got "
                f"shape {values.shape}; take it from demonstrations of the same task and robosuite"
            )
        if self._model_file is None:
            environment.deterministic_reset = True
            environment.reset()
            environment.deterministic_reset = False
        environment.sim.reset()
        environment.sim.set_state_from_flattened(values)
        environment.sim.forward()
        for controller in self._arm_controllers():
            # The null space pulls the joints to where they were at the reset; here they begin in the recorded state.
            controller.update(force=True)
            controller.update_initial_joints(np.array(controller.joint_pos))

    @property
    def _name(self) -> str:
        return type(self.robosuite).__name__

    def _observe(self, raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """robosuite's observation under robomimic's names; frames the right way up."""
        observation = {"object": np.asarray(raw["object-state"], dtype=np.float32)}
        for camera in self.cameras:
            observation[f"{camera}_image"] = np.ascontiguousarray(raw[f"{camera}_image"][::-1])
        for robot in self.robosuite.robots:
            prefix = robot.robot_model.naming_prefix
            for name, value in raw.items():
                if name.startswith(prefix) and not name.endswith(("-state", "_image")):
                    observation[name] = np.asarray(value, dtype=np.float32)
        return observation

    def _success(self) -> bool:
        found = self.robosuite._check_success()
        return bool(found["task"] if isinstance(found, dict) else found)


def _space(value: np.ndarray) -> spaces.Box:
    if value.dtype == np.uint8:
        return spaces.Box(0, 255, value.shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, value.shape, np.float32)
