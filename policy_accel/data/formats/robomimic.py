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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policy_accel.data.formats.agreement import Agreement
from policy_accel.data.formats.base import Feature
from policy_accel.data.formats.hdf5 import attribute, damaged, datasets, json_object, native, open_hdf5
from policy_accel.data.formats.streaming import check_keys
from policy_accel.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import h5py

GROUP_MARK = "::"
OWN_ATTRIBUTE = "policy_accel"  # what has no place in robomimic's layout, as JSON
TOP_LEVEL = {
    "action": "actions",
    "action_abs": "actions_abs",
    "sim_state": "states",
    "reward": "rewards",
    "done": "dones",
}
GROUPS = ("next_obs", "action_dict", "extra", "obs")
_JSON_ATTRIBUTES = ("env_args", "env_info")


def memory_name(name: str) -> str:
    """Path of an array in a demonstration -> its key in memory: "obs/object" -> "object"."""
    for key, stored in TOP_LEVEL.items():
        if name == stored:
            return key
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


def split_group(path: Path | str) -> tuple[Path, str]:
    """ "file.hdf5::lift" -> (file.hdf5, "lift"); without a mark the group is ""."""
    text = str(path)
    if GROUP_MARK in text and not Path(text).exists():
        file, _, group = text.rpartition(GROUP_MARK)
        return Path(file), group.strip("/")
    return Path(text), ""


class RobomimicReader:
    """A robomimic HDF5 file as an `EpisodeReader`.

    Args:
        path: the file; `FILE::GROUP` takes the demonstrations below another group than `data`, as raw robosuite
            recordings of several tasks have them.

    Raises:
        UserError: missing, truncated or damaged file; no group of demonstrations (which groups there are); a
            demonstration without actions, of another make than the first, or whose arrays differ in length; env_args
            that are no JSON.
    """

    format = "robomimic"

    def __init__(self, path: Path | str) -> None:
        self.source = str(path)
        file_path, group = split_group(path)
        self._file = open_hdf5(file_path)
        try:
            self._open(group)
        except UserError:
            self._file.close()
            raise
        except (OSError, RuntimeError, KeyError) as error:
            self._file.close()
            raise damaged(file_path, error) from error

    def _open(self, group: str) -> None:
        import h5py

        self._data = self._demonstration_group(group)
        demos = [name for name, item in self._data.items() if isinstance(item, h5py.Group)]
        self._names = sorted(demos, key=_by_number)
        if not self._names:
            place = self._data.name[1:]
            raise UserError(f"{self.source}: {place}/ holds no demonstration; expected {place}/demo_0 and so on.")
        self.metadata = self._set_metadata()
        self.layout = f"robomimic HDF5, {self._version()}" + (f", in {group}/" if group else "")
        self._filters = self._read_filters() if not group else {}
        self._agreement = Agreement(self.source, "actions", memory_name, _feature, lambda _, steps: (steps,))
        self.features, self._paths = self._agreement.features, self._agreement.paths
        self._lengths = [self._look_at(name) for name in self._names]
        self.episode_ends = np.cumsum(self._lengths).astype(np.int64)

    def __enter__(self) -> RobomimicReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _demonstration_group(self, group: str) -> h5py.Group:
        import h5py

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

    def _version(self) -> str:
        env_args = self.metadata.get("env_args")
        if env_args is None:
            return "no env_args"
        return f"{env_args.get('env_name')}, env_version {env_args.get('env_version', 'not given')}"

    def _set_metadata(self) -> dict[str, Any]:
        facts = {name: attribute(value) for name, value in self._data.attrs.items() if name != "total"}
        for name in _JSON_ATTRIBUTES:
            if name in facts:
                facts[name] = json_object(self.source, f"{self._data.name[1:]}.{name}", facts[name])
        return restored(facts, self.source)

    def _read_filters(self) -> dict[str, set[str]]:
        filters = {}
        masks = datasets(self._file["mask"]) if "mask" in self._file else {}
        for name, members in masks.items():
            names = {attribute(member) for member in np.atleast_1d(members[()]).tolist()}
            missing = sorted(names - set(self._names), key=_by_number)
            if missing:
                warnings.warn(
                    f"{self.source}: mask/{name} names {len(missing)} demonstrations that are not there, as "
                    f"{missing[0]}; they are left out.",
                    stacklevel=2,
                )
            filters[name] = names
        return filters

    def _look_at(self, name: str) -> int:
        """Steps of a demonstration, after comparing what it holds with the first."""
        demo = self._data[name]
        if "actions" not in demo:
            found = ", ".join(list(demo)[:6]) or "nothing"
            raise UserError(f"{self.source}: {name} has no actions (found {found}); remove it or record it again.")
        arrays = datasets(demo)
        steps = len(arrays["actions"]) if arrays["actions"].ndim else 0
        if steps == 0:
            raise UserError(f"{self.source}: {name} has no step; remove it.")
        told = attribute(demo.attrs.get("num_samples", steps))
        if told != steps:
            raise UserError(
                f"{self.source}: {name} has {steps} actions but num_samples {told}; copy or record the file again."
            )
        self._agreement.take(name, arrays, steps)
        return steps

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        name = self._names[episode]
        facts = {key: attribute(value) for key, value in self._data[name].attrs.items()}
        filters = sorted(key for key, names in self._filters.items() if name in names)
        return restored(facts | native_facts(name, int(self._lengths[episode]), filters), f"{self.source}: {name}")

    def read(
        self, episode: int, keys: Sequence[str] | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, np.ndarray]:
        """See `EpisodeReader`."""
        chosen = list(self.features) if keys is None else keys
        check_keys(self, chosen)
        demo, values = self._data[self._names[episode]], {}
        for key in chosen:
            try:
                values[key] = demo[self._paths[key]][start:stop].astype(self.features[key].dtype, copy=False)
            except (OSError, RuntimeError, KeyError) as error:
                raise damaged(self.source, error, f"{self._names[episode]}/{self._paths[key]}") from error
        return values


def _feature(path: str, array: h5py.Dataset, steps: int) -> Feature | None:
    if array.dtype.kind not in "biuf" or (memory_name(path).startswith("extra.") and array.shape[:1] != (steps,)):
        return None
    return Feature(array.shape[1:], native(array.dtype))


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
