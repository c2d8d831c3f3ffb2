"""LeRobot's names of the features and the names of the one in-memory form."""

from __future__ import annotations

from collections.abc import Iterable

from policy_accel.data.formats.base import Feature
from policy_accel.data.formats.lerobot.layout import DERIVED

_NEXT = ("reward", "done", "success")
_PLACED = {"action": "action", "action_abs": "absolute_action", "sim_state": "sim_state"}


def to_keys(names: Iterable[str], known: dict[str, str]) -> dict[str, str]:
    """LeRobot's name -> key in memory.

    `observation.<key>` loses its prefix, `next.reward|done|success` theirs, `next.observation.<key>` becomes
    `next_obs.<key>`; every other name stays, and so does the second of two that would fall together.

    Args:
        names: of the features, in order.
        known: keys that the file itself tells.
    """
    keys: dict[str, str] = {}
    for name in names:
        key = known.get(name) or _to_key(name)
        keys[name] = name if key in keys.values() else key
    return keys


def _to_key(name: str) -> str:
    if name.startswith("next.observation."):
        return "next_obs." + name.removeprefix("next.observation.")
    if name.removeprefix("next.") in _NEXT:
        return name.removeprefix("next.")
    return name.removeprefix("observation.") or name


def to_names(features: dict[str, Feature], known: dict[str, str], *, tasks: bool) -> dict[str, str]:
    """Key in memory -> LeRobot's name: the way back of `to_keys`; what is neither action, reward nor the simulator's
    state is an observation.

    LeRobot takes every name that begins with "action" for an action of the policy, so absolute actions beside the
    relative ones are `absolute_action`. A name has no slash, and the names of the derived columns are taken, but for
    times and tasks that were recorded step by step.

    Args:
        features: of the data.
        known: names that the data had when it came from LeRobot.
        tasks: whether there are tasks in words that a key `task_index` can point to.
    """
    names: dict[str, str] = {}
    for key, feature in features.items():
        recorded = key == "timestamp" or (key == "task_index" and tasks)
        if recorded and feature.shape == () and feature.dtype == DERIVED[key]:
            names[key] = key
            continue
        name = unique = (known.get(key) or _to_name(key)).replace("/", ".")
        number = 2
        while unique in DERIVED or unique in names.values():
            unique, number = f"{name}_{number}", number + 1
        names[key] = unique
    return names


def _to_name(key: str) -> str:
    if key in _NEXT:
        return f"next.{key}"
    if key.startswith("next_obs."):
        return "next.observation." + key.removeprefix("next_obs.")
    return _PLACED.get(key) or f"observation.{key}"
