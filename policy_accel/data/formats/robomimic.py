"""robomimic's HDF5 files (v0.1 to v1.5, also raw robosuite recordings), read with h5py alone.

Layout (robomimic, docs/datasets/overview.md): `data/demo_<i>/{actions, actions_abs, states, rewards, dones,
obs/<key>, next_obs/<key>, action_dict/<key>}`, attributes `num_samples` and `model_file` of a demonstration, `total`
and `env_args` (JSON) of `data`, and `mask/<filter>` with names of demonstrations as bytes. Demonstrations are in the
order of their numbers: demo_2 before demo_10.

Names in memory: actions -> `action`, actions_abs -> `action_abs`, states -> `sim_state`, rewards -> `reward`,
dones -> `done`, obs/<key> -> `<key>`, next_obs/<key> -> `next_obs.<key>`, action_dict/<key> -> `action_dict.<key>`,
any other array of a demonstration -> `extra.<path>`. An observation whose name is taken is called `obs.<key>`.

Facts about an episode: `name` (demo_<i>), `num_samples`, `filters` where a mask names it, `model_file` and the other
attributes. Facts about the set: `env_args` parsed, and the other attributes of `data`.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from policy_accel.data.formats.base import Feature
from policy_accel.data.formats.hdf5 import attribute, datasets, json_object, native
from policy_accel.data.formats.hdf5_reader import Hdf5Reader
from policy_accel.data.formats.recognise import GROUP_MARK, split_group
from policy_accel.errors import UserError, did_you_mean

OWN_ATTRIBUTE = "policy_accel"  # what has no place in robomimic's layout, as JSON
TOP_LEVEL = {
    "action": "actions",
    "action_abs": "actions_abs",
    "sim_state": "states",
    "reward": "rewards",
    "done": "dones",
}
_KEYS = {stored: key for key, stored in TOP_LEVEL.items()}
GROUPS = ("next_obs", "action_dict", "extra", "obs")
_JSON_ATTRIBUTES = ("env_args", "env_info")


def memory_name(name: str) -> str:
    """Path of an array in a demonstration -> its key in memory: "obs/object" -> "object"."""
    if name in _KEYS:
        return _KEYS[name]
    group, _, rest = name.partition("/")
    if group == "obs" and rest:
        taken = rest in TOP_LEVEL or rest.startswith(tuple(f"{group}." for group in GROUPS))
        return f"obs.{rest}" if taken else rest
    if group in ("next_obs", "action_dict") and rest:
        return f"{group}.{rest}"
    return f"extra.{name}"


def stored_name(key: str) -> str:
    """The inverse of `memory_name`."""
    if key in TOP_LEVEL:
        return TOP_LEVEL[key]
    group, dot, rest = key.partition(".")
    if not dot or group not in GROUPS or not rest:
        return f"obs/{key}"
    return rest if group == "extra" else f"{group}/{rest}"


class RobomimicReader(Hdf5Reader):
    """A robomimic HDF5 file as an `EpisodeReader`.

    Args:
        path: the file; `FILE::GROUP` takes the demonstrations below another group than `data`, as raw robosuite
            recordings of several tasks have them.

    Raises:
        UserError: no group of demonstrations (which groups there are); a demonstration without actions; env_args that
            are no JSON; as `Hdf5Reader`.
    """

    format = "robomimic"
    counted = "actions"

    def __init__(self, path: Path | str) -> None:
        file, self._group = split_group(path)
        super().__init__(path, file)

    def _key_of(self, path: str) -> str:
        return memory_name(path)

    def _find(self) -> tuple[h5py.Group, list[str]]:
        data = self._demonstration_group(self._group)
        names = sorted((name for name, item in data.items() if isinstance(item, h5py.Group)), key=_by_number)
        if not names:
            place = data.name[1:]
            raise UserError(f"{self.source}: {place}/ holds no demonstration; expected {place}/demo_0 and so on.")
        self.metadata = self._set_metadata(data)
        made_in = self.metadata.get("env_args")
        version = "no env_args"
        if made_in is not None:
            version = f"{made_in.get('env_name')}, env_version {made_in.get('env_version', 'not given')}"
        self.layout = f"robomimic HDF5, {version}" + (f", in {self._group}/" if self._group else "")
        self._filters = {} if self._group else self._read_filters(set(names))
        return data, names

    def _demonstration_group(self, group: str) -> h5py.Group:
        wanted = group or "data"
        found = self._file.get(wanted)
        if isinstance(found, h5py.Group):
            return found
        groups = [
            name
            for name, item in self._file.items()
            if isinstance(item, h5py.Group)
            and any(isinstance(demo, h5py.Group) and "actions" in demo for demo in item.values())
        ]
        if group:
            raise UserError(f"{self.source}: has no group '{group}'; {did_you_mean(group, groups or self._file)}")
        if groups:
            raise UserError(
                f"{self.source}: has no group data/, but demonstrations in {', '.join(groups)}; "
                f"give the path of one, as {self.source}{GROUP_MARK}{groups[0]}."
            )
        listed = ", ".join(list(self._file)[:5]) or "nothing"
        raise UserError(
            f"{self.source}: not a robomimic file: found {listed}; expected demonstrations as data/demo_0/actions."
        )

    def _set_metadata(self, data: h5py.Group) -> dict[str, Any]:
        facts = {name: attribute(value) for name, value in data.attrs.items() if name != "total"}
        for name in _JSON_ATTRIBUTES:
            if name in facts:
                facts[name] = json_object(self.source, f"{data.name[1:]}.{name}", facts[name])
        return restored(facts, self.source)

    def _read_filters(self, known: set[str]) -> dict[str, set[str]]:
        filters = {}
        masks = datasets(self._file["mask"]) if "mask" in self._file else {}
        for name, members in masks.items():
            names = {attribute(member) for member in np.atleast_1d(members[()]).tolist()}
            missing = sorted(names - known, key=_by_number)
            if missing:
                warnings.warn(
                    f"{self.source}: mask/{name} names {len(missing)} demonstrations that are not there, as "
                    f"{missing[0]}; they are left out.",
                    stacklevel=2,
                )
            filters[name] = names
        return filters

    def _steps(self, name: str, arrays: dict[str, h5py.Dataset]) -> int:
        demo = self._demonstrations[name]
        if "actions" not in arrays:
            found = ", ".join(list(demo)[:6]) or "nothing"
            raise UserError(f"{self.source}: {name} has no actions (found {found}); remove it or record it again.")
        steps = len(arrays["actions"]) if arrays["actions"].ndim else 0
        if steps == 0:
            raise UserError(f"{self.source}: {name} has no step; remove it.")
        recorded = attribute(demo.attrs.get("num_samples", steps))
        if recorded != steps:
            raise UserError(
                f"{self.source}: {name} has {steps} actions but num_samples {recorded}; copy or record the file again."
            )
        return steps

    def _feature(self, path: str, array: h5py.Dataset, steps: int) -> Feature | None:
        other = memory_name(path).startswith("extra.") and array.shape[:1] != (steps,)
        return None if array.dtype.kind not in "biuf" or other else Feature(array.shape[1:], native(array.dtype))

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        name = self._names[episode]
        facts = {key: attribute(value) for key, value in self._demonstrations[name].attrs.items()}
        filters = sorted(key for key, names in self._filters.items() if name in names)
        return restored(facts | native_facts(name, int(self._lengths[episode]), filters), f"{self.source}: {name}")


def native_facts(name: str, steps: int, filters: list[str]) -> dict[str, Any]:
    """What robomimic's own layout says of an episode, apart from its attributes."""
    return {"name": name, "num_samples": steps} | ({"filters": filters} if filters else {})


def restored(facts: dict[str, Any], where: str) -> dict[str, Any]:
    """The facts as they were before writing: `facts` as read, corrected by our own attribute among them, if any."""
    own = facts.pop(OWN_ATTRIBUTE, None)
    if own is None:
        return facts
    correction = json_object(where, OWN_ATTRIBUTE, own)
    facts |= correction.get("set", {})
    return {key: value for key, value in facts.items() if key not in correction.get("unset", ())}


def _by_number(name: str) -> tuple[int, str]:
    number = re.search(r"(\d+)$", name)
    return (int(number.group(1)) if number else -1, name)
