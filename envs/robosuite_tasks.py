"""The robomimic benchmark's five tasks in robosuite: names, sizes, cameras, controllers.

Facts from robomimic (`robomimic/__init__.py`, `exps/templates`), Diffusion Policy (`config/task/*_abs.yaml`) and
robosuite 1.5 (`environments/manipulation`, `controllers/config`).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

from policy_accel.errors import one_of

CONTROL_FREQUENCY = 20
"""Actions a second in robomimic's data."""
ARM_ACTION = 7
"""Numbers of one arm's action: position 3, axis-angle 3, gripper 1."""


@dataclass(frozen=True)
class RobosuiteTask:
    """Facts about one task.

    Attributes:
        name: robomimic's short name.
        env_name: robosuite's environment.
        arms: number of Panda arms, one robot each.
        object_size: length of the observation `object`.
        cameras: those of the image policies of robomimic and Diffusion Policy.
        varies: what differs in the MuJoCo model from episode to episode: nothing, the size of a cube, or a whole object
            (Transport's hammer), for which alone a reset has to build the model again.
    """

    name: str
    env_name: str
    arms: int
    object_size: int
    cameras: tuple[str, ...]
    varies: Literal["nothing", "cube", "object"]


_HAND = "robot0_eye_in_hand"
_BOTH_SIDES = ("shouldercamera0", _HAND, "shouldercamera1", "robot1_eye_in_hand")
TASKS = {
    task.name: task
    for task in (
        RobosuiteTask("lift", "Lift", 1, 10, ("agentview", _HAND), "cube"),
        RobosuiteTask("can", "PickPlaceCan", 1, 14, ("agentview", _HAND), "nothing"),
        RobosuiteTask("square", "NutAssemblySquare", 1, 14, ("agentview", _HAND), "nothing"),
        RobosuiteTask("tool_hang", "ToolHang", 1, 44, ("sideview", _HAND), "nothing"),
        RobosuiteTask("transport", "TwoArmTransport", 2, 41, _BOTH_SIDES, "object"),
    )
}


def find_task(name: str) -> RobosuiteTask:
    """The task of a short name; raises UserError with the nearest when there is none."""
    return TASKS[one_of("robosuite task", name, TASKS)]


def task_of_environment(env_name: str) -> RobosuiteTask | None:
    """The task that uses robosuite's environment `env_name`; None for one that is not among the five."""
    return next((task for task in TASKS.values() if task.env_name == env_name), None)


ARM_CONTROLLER: dict[str, Any] = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 150,
    "damping_ratio": 1,
    "impedance_mode": "fixed",
    "kp_limits": [0, 300],
    "damping_ratio_limits": [0, 10],
    "position_limits": None,
    "orientation_limits": None,
    "uncouple_pos_ori": True,
    "input_type": "delta",
    "input_ref_frame": "world",
    "interpolation": None,
    "ramp_ratio": 0.2,
    "gripper": {"type": "GRIP"},
}
"""The operational-space controller of an arm, in full."""


def default_env_args(task: RobosuiteTask, version: str) -> dict[str, Any]:
    """The robomimic metadata of our own environment for a task: env_name, env_version, type 1, env_kwargs.

    The controller is operational-space control at 20 Hz with actions in the world's frame, as in robomimic's data of
    robosuite 1.5; the world's frame is that of the recorded gripper positions.
    """
    return {
        "env_name": task.env_name,
        "env_version": version,
        "type": 1,
        "env_kwargs": {
            "robots": ["Panda"] * task.arms,
            "controller_configs": {"type": "BASIC", "body_parts": {"right": deepcopy(ARM_CONTROLLER)}},
            "control_freq": CONTROL_FREQUENCY,
            "lite_physics": False,
            "reward_shaping": False,
            **({"env_configuration": "opposed"} if task.arms == 2 else {}),
        },
    }
