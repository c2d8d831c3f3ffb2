"""The variants of robosuite's tasks: beside `lift` there are `lift_abs`, `lift_image` and `lift_image_abs`, and so on.

Each is the task's YAML file with one or both overlays (`configs/task/overlay`): absolute actions, pictures of cameras.
"""

from __future__ import annotations

from typing import Any

from policy_accel.envs.robosuite_tasks import TASKS

OVERLAYS = {"_abs": ("absolute",), "_image": ("image",), "_image_abs": ("image", "absolute")}
HAND = ("eef_pos", "eef_quat", "gripper_qpos")


def robosuite_variants() -> dict[str, dict[str, Any]]:
    """What Hydra composes for every variant, by its name."""
    nodes: dict[str, dict[str, Any]] = {}
    for task in TASKS.values():
        for suffix, overlays in OVERLAYS.items():
            name = f"{task.name}{suffix}"
            files = [f"overlay/{overlay}" for overlay in overlays]
            nodes[name] = {"defaults": [task.name, *files, "_self_"], "name": name}
            if "image" in overlays:
                nodes[name] |= {
                    "observation": [f"robot{arm}_{part}" for arm in range(task.arms) for part in HAND],
                    "images": [f"{camera}_image" for camera in task.cameras],
                    "environment_options": {"cameras": list(task.cameras)},
                }
    return nodes
