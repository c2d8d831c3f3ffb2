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

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.formats.hdf5 import (
    SAY_WHERE,
    Unusable,
    attribute,
    attributes,
    by_number,
    datasets,
    json_object,
    member,
    open_hdf5,
    reading,
    unknown,
)
from policy_accel.data.formats.hdf5_layout import Hdf5Layout, LayoutReader
from policy_accel.data.formats.hdf5_reader import Arrays, Hdf5Reader, Place
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
        UserError: no group of demonstrations (what there is); as `Hdf5Reader`.
    """

    format = "robomimic"

    def _key_of(self, path: str) -> str:
        return memory_name(path)

    def _arrays(self, group: h5py.Group) -> Arrays:
        return datasets(group, without=self._made)

    def _find(self) -> list[Place]:
        file, group = split_group(self.source)
        data = self._demonstration_group(self._file(file), group)
        names = sorted((name for name in data if isinstance(member(data, name), h5py.Group)), key=by_number)
        place = data.name.strip("/")
        names = [name for name in names if place or name != "mask"]
        if not names:
            raise Unusable(f"{place}/ holds no demonstration; expected {place}/demo_0 and so on. {SAY_WHERE}")
        facts = {name: value for name, value in attributes(data).items() if name != "total"}
        for name in _JSON_ATTRIBUTES:
            try:
                facts |= {name: json_object(self.source, name, facts[name])} if name in facts else {}
            except UserError as error:
                self.remarks.append(f"left out: {str(error).removeprefix(self.source)[2:]}")
                del facts[name]
        self.metadata, self._made = restored(facts, self.source)
        made_in = self.metadata.get("env_args")
        version = "no env_args"
        if isinstance(made_in, dict):
            version = f"{made_in.get('env_name')}, env_version {made_in.get('env_version', 'not given')}"
        self.layout = f"robomimic HDF5, {version}" + (f", in {place}/" if place != "data" else "")
        self._filters = {} if group else self._read_filters(set(names))
        return [Place(name, file, f"{place}/{name}") for name in names]

    def _demonstration_group(self, file: h5py.File, group: str) -> h5py.Group:
        found = member(file, group or "data")
        if isinstance(found, h5py.Group):
            return found
        groups = [name for name in file if _has_demonstrations(member(file, name))]
        if group:
            raise Unusable(f"has no group '{group}'; {did_you_mean(group, groups or file)}")
        if groups:
            raise Unusable(
                f"has no group data/, but demonstrations in {', '.join(groups)}; "
                f"give the path of one, as {self.source}{GROUP_MARK}{groups[0]}."
            )
        if _has_demonstrations(file):
            return file["/"]
        raise Unusable(f"{unknown(file)} {SAY_WHERE}")

    def _read_filters(self, known: set[str]) -> dict[str, set[str]]:
        masks = member(self._file(split_group(self.source)[0]), "mask")
        filters = {}
        for name, members in datasets(masks).items() if isinstance(masks, h5py.Group) else ():
            values: Any = [None]
            if isinstance(members, h5py.Dataset) and members.size and members.size <= len(known) + 10_000:
                values = attribute(np.atleast_1d(members[()]))
            if not all(isinstance(value, str) for value in values):
                self.remarks.append(f"mask/{name} is left out: it is no list of names of demonstrations.")
                continue
            missing = sorted(set(values) - known, key=by_number)
            if missing:
                self.remarks.append(
                    f"mask/{name} names {len(missing)} demonstrations that are not there, as {missing[0]}; they are "
                    "left out."
                )
            filters[name] = set(values)
        return filters

    def _steps(self, place: Place, group: h5py.Group, arrays: Arrays) -> int:
        steps = super()._steps(place, group, arrays)
        recorded = attributes(group, ["num_samples"]).get("num_samples", steps)
        if recorded != steps:
            raise Unusable(f"{place.name} has {steps} steps but num_samples {recorded}; record it again or remove it.")
        return steps

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        place = self._places[episode]
        steps = int(self.episode_ends[episode]) - self.first_row(episode)
        filters = sorted(key for key, names in self._filters.items() if place.name in names)
        facts = self._attributes(episode) | native_facts(place.name, steps, filters)
        return restored(facts, f"{self.source}: {place.name}")[0]


def _has_demonstrations(group: Any) -> bool:
    return isinstance(group, h5py.Group) and any(
        isinstance(demo := member(group, name), h5py.Group) and "actions" in demo for name in group
    )


def native_facts(name: str, steps: int, filters: list[str]) -> dict[str, Any]:
    """What robomimic's own layout says of an episode, apart from its attributes."""
    return {"name": name, "num_samples": steps} | ({"filters": filters} if filters else {})


def restored(facts: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """The facts as they were before writing, and the arrays that the writer made.

    Args:
        facts: as read, with our own attribute among them, if it is there.
        where: for messages.
    """
    own = facts.pop(OWN_ATTRIBUTE, None)
    if own is None:
        return facts, []
    correction = {"set": {}, "unset": [], "made": []} | json_object(where, OWN_ATTRIBUTE, own)
    if [type(correction[name]) for name in ("set", "unset", "made")] != [dict, list, list]:
        raise UserError(f"{where}: {OWN_ATTRIBUTE} is not what we write ({own[:40]!r}); convert the file again.")
    facts |= correction["set"]
    return {key: value for key, value in facts.items() if key not in correction["unset"]}, correction["made"]


def open_hdf5_demonstrations(path: Path | str) -> EpisodeReader:
    """A reader of HDF5 that is not Minari's: robomimic's file, ALOHA's file or folder of files, D4RL's file.

    Raises:
        UserError: it is none of them; as the readers do.
    """
    file, group = split_group(path)
    if file.is_dir():
        return LayoutReader(path, Hdf5Layout())
    try:
        with open_hdf5(file) as opened, reading("the HDF5 file"):
            arrays = [] if group else [name for name in opened if isinstance(member(opened, name), h5py.Dataset)]
    except Unusable as error:
        raise UserError(f"{path}: {error}") from error
    one = not {"action", "actions"}.isdisjoint(arrays)
    ended = [name for name in ("terminals", "timeouts") if name in arrays]
    return LayoutReader(path, Hdf5Layout(last=ended)) if one else RobomimicReader(path)
