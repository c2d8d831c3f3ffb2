"""robomimic's HDF5 files (v0.1 to v1.5, also raw robosuite recordings), read and written with h5py alone.

Layout (robomimic's documentation, "Datasets: Overview"): `data/demo_<i>/{actions, actions_abs, states, rewards, dones,
obs/<key>, next_obs/<key>, action_dict/<key>}`, attributes `num_samples` and `model_file` of a demonstration, `total`
and `env_args` (JSON) of `data`, and `mask/<filter>` with names of demonstrations as bytes.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from policy_accel.data.formats import hdf5, hdf5_layout
from policy_accel.data.formats.base import EpisodeReader, OnProgress, decoding, filters_of, pieces
from policy_accel.data.formats.hdf5_layout import SAY_WHERE, Hdf5Layout, Hdf5Reader, Place
from policy_accel.data.formats.recognise import GROUP_MARK, split_group
from policy_accel.data.tree import by_number
from policy_accel.errors import UserError
from policy_accel.files import new_path
from policy_accel.parsing import from_json

OWN_ATTRIBUTE = "policy_accel"  # what has no place in robomimic's layout, as JSON
_NAMES = {
    **{"actions": "action", "actions_abs": "action_abs", "states": "sim_state", "rewards": "reward", "dones": "done"},
    **{"obs": "obs", "next_obs": "next_obs", "action_dict": "action_dict"},
}
_BESIDE = ("observations", "observation", "action", "reward", "done")  # what others call groups and arrays
memory_name = partial(hdf5_layout.memory_name, names=_NAMES, other="extra.", slash="/")
_NO_ENVIRONMENT = {"env_name": "none", "type": 2, "env_kwargs": {}}  # a gymnasium environment that nobody registers
_NESTED = {"env_args", "env_info"}  # attributes that hold JSON
_NO_ATTRIBUTES = ("name", "filters", "num_samples", "total", OWN_ATTRIBUTE)  # which have another place


def memory_names(paths: Iterable[str]) -> dict[str, str]:
    """Path -> key, for all the arrays of a demonstration. `observations/NAME` is NAME too where obs/ has none of that
    name, and so is what lies beside the actions where there is neither a group of observations nor robosuite's states.
    """
    names = {path: memory_name(path) for path in paths}
    tops, taken = {path.partition("/")[0] for path in names}, {"", *names.values()}
    grouped = not tops.isdisjoint({"obs", "observations", "observation", "states"})
    for path, strict in names.items():
        if strict.startswith("extra.") and (not grouped or path.partition("/")[0] in _BESIDE):
            key = hdf5_layout.memory_name(path, slash="/")
            names[path] = strict if key in taken else key
            taken.add(key)
    return names


def stored_name(key: str) -> str:
    """The path that `memory_name` names so."""
    group, _, rest = key.partition(".")
    if rest and group in ("obs", "next_obs", "action_dict", "extra"):
        return rest if group == "extra" else f"{group}/{rest}"
    return {ours: path for path, ours in _NAMES.items()}.get(key, f"obs/{key}")


class RobomimicReader(Hdf5Reader):
    """A robomimic file as an `EpisodeReader`."""

    format = "robomimic"
    _named = staticmethod(memory_names)

    def _find(self) -> list[Place]:
        file, places = self._file(self._root), [place for place in super()._find() if place.group != "mask"]
        facts = hdf5.attributes(file[places[0].group].parent)
        facts.pop("total", None)
        for name in _NESTED & facts.keys():
            try:
                facts[name] = {**from_json(facts[name])}
            except (TypeError, ValueError):
                self.remarks.append(f"{name} is left out: it is no JSON object but {str(facts.pop(name))[:40]!r}.")
        self.metadata, self._without = restored(facts, self.source)
        made = self.metadata.get("env_args", {"env_name": "no env_args"})
        self.layout = f"robomimic HDF5, {made.get('env_name')}, env_version {made.get('env_version', 'not given')}"
        self._filters: dict[str, set[str]] = {}
        names = {place.name for place in places}
        for path in hdf5.matching(file, "mask/?*"):
            try:
                named = set(hdf5.member(file, path).asstr(errors="replace")[: len(names) + 10_000])
                self._filters[path[5:]] = named
                missing = sorted(named - names, key=by_number)
                none = f"{path} names {len(missing)} demonstrations that are not there, as {', '.join(missing[:1])}."
                self.remarks += [none] if missing else []
            except Exception:  # no array, none of text, or a damaged one
                self.remarks.append(f"{path} is left out: it is no list of names of demonstrations.")
        return places

    def ask_for(self, keys: Sequence[str]) -> None:
        """Also by what earlier versions, and the runs of them, call all that lies outside of obs/: `extra.`."""
        now = {memory_name(path): key for key, path in self._paths.items() if key in self.features}
        for key in [key for key in keys if key in now and key not in self.features]:
            self.features[key], self._paths[key] = self.features[now[key]], self._paths[now[key]]
        super().ask_for(keys)

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """Its attributes and filters, as they were before `write_robomimic`."""
        name, steps = self._places[episode].name, int(self.episode_ends[episode]) - self.first_row(episode)
        filters = sorted(key for key, names in self._filters.items() if name in names)
        facts = super().episode_metadata(episode) | native_facts(name, steps, filters)
        return restored(facts, f"{self.source}: {name}")[0]


def native_facts(name: str, steps: int, filters: list[str]) -> dict[str, Any]:
    """What robomimic's own layout says of an episode, apart from its attributes."""
    return {"name": name, "num_samples": steps} | ({"filters": filters} if filters else {})


def restored(facts: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """The facts as they were before `write_robomimic`, by its own attribute among them, and the arrays that it made."""
    with decoding(where, OWN_ATTRIBUTE):
        own = from_json(facts.pop(OWN_ATTRIBUTE, "{}"))
        facts, unset = facts | own.get("set", {}), own.get("unset", [])
        return {key: value for key, value in facts.items() if key not in unset}, list(own.get("made", []))


def open_hdf5_demonstrations(path: Path | str) -> Hdf5Reader:
    """A reader of HDF5 that is not Minari's: ALOHA's folder of files or one of them, D4RL's file, or robomimic's, where
    `FILE::GROUP` takes another group than `data`, as raw robosuite recordings of several tasks have them."""
    file, group = split_group(path)
    if file.is_dir():
        return Hdf5Reader(path, Hdf5Layout())
    with hdf5.open_hdf5(file) as opened, decoding(path, "the HDF5 file"):
        arrays = [name for name in opened if isinstance(hdf5.member(opened, name), h5py.Dataset)]
        if not group and not {"action", "actions"}.isdisjoint(arrays):
            return Hdf5Reader(path, Hdf5Layout(last=[name for name in ("terminals", "timeouts") if name in arrays]))
        where = group or "data"
        if isinstance(hdf5.member(opened, where), h5py.Group):
            return RobomimicReader(path, Hdf5Layout(episodes=f"{glob.escape(where)}/*"), file)
        groups = list(dict.fromkeys(path.partition("/")[0] for path in hdf5.matching(opened, "*/*/actions")))
        if not groups and not group and any(hdf5.matching(opened, "*/actions")):
            return RobomimicReader(path, Hdf5Layout(episodes="*"), file)
        found = [f"{path} {list(getattr(item, 'shape', ()))}" for path, item in hdf5.arrays_below(opened).items()]
    remedy = f"found {', '.join(found[:5]) or 'nothing'} ({len(found)} arrays). {SAY_WHERE}"
    if groups:
        remedy = f"found them in {', '.join(groups)}; give the path of one, as {file}{GROUP_MARK}{groups[0]}."
    raise UserError(f"{path}: has no group {where}/ of demonstrations, as {where}/demo_0/actions; {remedy}")


def write_robomimic(path: Path | str, reader: EpisodeReader, *, progress: OnProgress | None = None) -> None:
    """Write demonstrations as robomimic v1.5 files have them.

    Episodes keep their name where it is demo_<number> in ascending order, else they are numbered. Images are compressed
    (gzip) and chunked frame by frame. Other tools want `env_args`, rewards, dones and a `next_obs` of each observation:
    where there is none, env_args says that there is no environment, rewards are 0, the last step is done, and next_obs
    is the next row, the last repeated, of images as a view. What was added, and facts that have no other place, go as
    JSON into an attribute `policy_accel`, by which our reader gives back what there was. UserError for no `action`, a
    key that has no place, a path that exists, a full disk, and as the reader."""
    if "action" not in reader.features:
        raise UserError(f"{reader.source}: has no key 'action', which robomimic needs; choose it or another format.")
    with new_path(Path(path)) as temporary:
        try:
            with h5py.File(temporary, "w") as file:
                _write(file, reader, progress)
        except (OSError, RuntimeError) as error:
            number = re.search(r"errno = (\d+)", str(error))
            raise (OSError(int(number[1]), str(error)) if number else error) from error


def _write(file: h5py.File, reader: EpisodeReader, progress: OnProgress | None) -> None:
    features, paths = reader.features, {key: stored_name(key) for key in reader.features}
    made = {f"next_{path}" for path in paths.values() if path.startswith("obs/")} | {"rewards", "dones"}
    made, as_read = made - {*paths.values()}, memory_names(paths.values())
    data, number = file.create_group("data"), -1
    data.attrs["total"], data.attrs["env_args"] = int(reader.episode_ends[-1]), json.dumps(_NO_ENVIRONMENT)
    _write_facts(data, reader.metadata, {"env_args": _NO_ENVIRONMENT}, made)
    filters: dict[str, list[bytes]] = {}
    for episode, length in enumerate(np.diff(reader.episode_ends, prepend=0).tolist()):
        facts = reader.episode_metadata(episode)
        named = re.fullmatch(r"demo_(0|[1-9]\d{0,17})", str(facts.get("name")))
        number = int(named[1]) if named and int(named[1]) > number else number + 1
        name, demo = f"demo_{number}", data.create_group(f"demo_{number}")
        marks = sorted({mark for mark in filters_of(facts) if re.fullmatch(r"[^/.][^/]*", mark)})
        for mark in marks:
            filters.setdefault(mark, []).append(name.encode())
        _write_facts(demo, facts, native_facts(name, length, marks))
        demo.attrs["num_samples"] = length
        for key, path in paths.items():
            shape, image = features[key].shape, features[key].is_image
            storage = {"chunks": (1, *shape), "compression": "gzip", "compression_opts": 1} if image else {}
            try:
                if as_read[path] != key:
                    raise ValueError
                array = demo.create_dataset(path, (length, *shape), features[key].dtype, **storage)
            except (TypeError, ValueError) as error:
                why = f"key '{key}' has no place in robomimic's layout; rename it."
                raise UserError(f"{reader.source}: {why}") from error
            if (following := f"next_{path}") in made and image:
                view, source = h5py.VirtualLayout(array.shape, array.dtype), h5py.VirtualSource(array)
                view[:-1], view[-1:] = source[1:], source[-1:]
                demo.create_virtual_dataset(following, view)
            elif following in made:
                demo.create_dataset(following, array.shape, array.dtype)
        for _, start, rows, values in pieces(reader, list(features), [episode], progress=progress):
            for key, part in values.items():
                demo[paths[key]][start : start + rows] = part
                if (path := f"next_{paths[key]}") in made and not features[key].is_image:
                    demo[path][max(start - 1, 0) : start + rows - 1] = part[start == 0 :]
                    demo[path][-1:] = part[-1:]  # until the next piece comes
        for path in made & {"rewards", "dones"}:
            demo[path] = np.int64(np.arange(length) == length - 1) if path == "dones" else np.zeros(length)
    for mark, members in sorted(filters.items()):
        file[f"mask/{mark}"] = np.array(members)


def _write_facts(group: h5py.Group, facts: dict[str, Any], read: dict[str, Any], made: Iterable[str] = ()) -> None:
    """Write facts as attributes and, as JSON, how they differ from these and what else is `read`, and arrays `made`."""
    for key, value in facts.items():
        nested = key in _NESTED
        if key not in _NO_ATTRIBUTES and isinstance(value, dict if nested else str | bool | int | float):
            with suppress(TypeError, ValueError, OverflowError):  # HDF5 has no NUL in texts, and no larger integers
                group.attrs[key] = json.dumps(value, indent=4) if nested else value
                read = read | {key: value}
    told = {key: json.dumps(value) for key, value in read.items()}
    other = {key: value for key, value in facts.items() if json.dumps(value) != told.get(key)}
    own = {"set": other, "unset": sorted(read.keys() - facts.keys()), "made": sorted(made)}
    if any(own.values()):
        group.attrs[OWN_ATTRIBUTE] = json.dumps(own)
