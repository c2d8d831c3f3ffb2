"""Which robosuite recorded a data set, and whether its environment can be rebuilt with the one installed.

Controllers, robots and contacts changed between robosuite's generations: a policy trained on data of one scores near
zero in another (ARISE-Initiative/robomimic issues 157, 206, 230). Pairs of data and simulator: robomimic
`docs/datasets/robomimic_v0.1.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from policy_accel.errors import UserError
from policy_accel.extras import to_install

from .robosuite_tasks import ARM_CONTROLLER

ROBOSUITE_TYPE = 1
"""robomimic's number for robosuite among the types of environments (`robomimic/envs/env_base.py`)."""


FILES = {
    "1.2": "robomimic_datasets v0.1, low_dim.hdf5, of the branch offline_study",
    "1.4": "robomimic_datasets v0.3, low_dim_v141.hdf5, of robosuite 1.4.1",
    "1.5": "robomimic_datasets v1.5, low_dim_v15.hdf5, of robosuite 1.5.1",
}
"""Generation of robosuite -> where robomimic's demonstrations of it are, and the exact version."""
SUPPORTED = ("1.5.0", "1.5.1")


def installed_version() -> str:
    """The installed robosuite's version; raises UserError without one."""
    try:
        return version("robosuite")
    except PackageNotFoundError as error:
        raise UserError(f"robot tasks need robosuite, which is not installed; {to_install('robosuite')}") from error


def check_generation(env_args: Mapping[str, Any], source: str) -> None:
    """See that the environment of a data set can be rebuilt with the installed robosuite.

    Args:
        env_args: robomimic's environment metadata (`data.attrs["env_args"]`), parsed.
        source: the file, for messages.

    Raises:
        UserError: no robosuite environment; a version of another generation than the installed one, with both versions
            and the remedy; no robosuite installed, or one that is not supported.
    """
    kind = env_args.get("type", ROBOSUITE_TYPE)
    if kind != ROBOSUITE_TYPE or "env_name" not in env_args:
        raise UserError(
            f"{source}: env_args describes no robosuite environment (type {kind}, env_name "
            f"{env_args.get('env_name')}); set task.environment to null to train without a simulator."
        )
    installed = installed_version()
    recorded = str(env_args.get("env_version") or "")  # the first files (v0.1, CoRL 2021) have none
    if installed not in SUPPORTED:
        raise UserError(
            f"robosuite {installed} is installed, and these tasks are made for {SUPPORTED[-1]} (later ones draw other "
            f"starts); install it with: pip install 'robosuite=={SUPPORTED[-1]}'"
        )
    wanted, present = generation(recorded), generation(installed)
    if wanted == present:
        return
    said = f"robosuite {recorded}" if recorded else "robosuite 1.2 (env_args has no env_version)"
    remedy = f"use the demonstrations of {present} ({FILES[present]})"
    if wanted in FILES:
        remedy += f" in place of those of {wanted} ({FILES[wanted]})"
    raise UserError(
        f"{source}: recorded with {said}, and robosuite {installed} is installed, in which a policy learned from it "
        f"fails; {remedy}, or set task.environment to null to train without a score."
    )


def generation(recorded: str) -> str:
    """The generation of a version: "1.4.1" -> "1.4"; 1.0 to 1.3, and "", are "1.2"."""
    minor = ".".join(recorded.split(".")[:2])
    return "1.2" if minor in ("", "1.0", "1.1", "1.2", "1.3") else minor


_NEEDED = {"input_max", "input_min", "output_max", "output_min", "kp", "damping_ratio", "impedance_mode"}
_TRANSLATED = {"damping": "damping_ratio", "damping_limits": "damping_ratio_limits"}


def composite_controllers(configs: Any, robots: int, source: str) -> list[dict[str, Any]]:
    """One composite controller of robosuite 1.5 for each robot, from the `controller_configs` of a data set.

    Configurations of 1.5 (type BASIC with `body_parts`) are kept. One of 1.4 and before describes an arm alone; its
    operational-space controller with fixed gains and no interpolation is the same in 1.5 with `input_ref_frame: world`
    and is translated: `control_delta` -> `input_type`, `damping` -> `damping_ratio`.

    Args:
        configs: a dictionary, or a list with one for each robot.
        robots: how many robots there are.
        source: the file, for messages.

    Raises:
        UserError: a configuration whose meaning in 1.5 is another or unknown; none at all.
    """
    listed = list(configs) if isinstance(configs, list | tuple) else [configs] * robots
    if len(listed) != robots or not all(isinstance(config, Mapping) for config in listed):
        raise UserError(
            f"{source}: env_args has no controller_configs for each of its {robots} robots; record it again with them."
        )
    return [_composite(deepcopy(dict(config)), source) for config in listed]


def _composite(config: dict[str, Any], source: str) -> dict[str, Any]:
    if "body_parts" not in config:
        return {"type": "BASIC", "body_parts": {"right": _translated_arm(config, source)}}
    for part in config["body_parts"].values():
        if not part.get("control_delta", True) and "input_type" not in part:
            raise UserError(
                f"{source}: env_args sets control_delta to false, which robosuite 1.5 does not read, so it is not "
                "known whether its actions are absolute; put input_type ('absolute' or 'delta') in its place."
            )
    return config


def _translated_arm(config: dict[str, Any], source: str) -> dict[str, Any]:
    """An arm's controller of robosuite 1.4 as one of 1.5."""
    arm = {_TRANSLATED.get(key, key): value for key, value in config.items()}
    unknown = sorted(set(arm) - {*ARM_CONTROLLER, "control_delta"})
    missing = sorted(_NEEDED - set(arm))
    if missing:
        raise UserError(
            f"{source}: the controller of env_args lacks {', '.join(missing)}, without which robosuite cannot make it; "
            "add them, as the data was recorded, or leave the controller out for robosuite's own."
        )
    exact = {"type": "OSC_POSE", "impedance_mode": "fixed", "interpolation": None, "position_limits": None}
    exact["orientation_limits"] = None
    other = [f"{key}={arm.get(key)}" for key, value in exact.items() if arm.get(key, value) != value]
    if unknown or other:
        raise UserError(
            f"{source}: the controller of env_args ({', '.join(unknown + other)}) has no exact counterpart in "
            "robosuite 1.5; use demonstrations recorded there with OSC_POSE, fixed impedance and no interpolation."
        )
    # What is left out is of no effect with fixed impedance and no interpolation, or is what robosuite 1.4 does.
    input_type = "delta" if arm.pop("control_delta", True) else "absolute"
    return deepcopy(ARM_CONTROLLER) | {"input_type": input_type} | arm
