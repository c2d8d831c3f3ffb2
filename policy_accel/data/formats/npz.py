"""Demonstrations in an NPZ, whose arrays have one row per step, episode after episode; each is read when it is wanted.

Their ends are `episode_ends` [E], cumulative; or `traj_lengths` [E] tell them, as in DPPO's files (Ren et al. 2024,
script/dataset/process_robomimic_dataset.py: `states` [N, O], `actions` [N, A], `rewards` [N], `terminals` [N], `images`
[N, 3 * cameras, H, W] uint8); or flags of the last steps, as D4RL's `terminals` and `timeouts` [N]. In memory states
are `state`, observations `observation`, actions `action`, rewards `reward`, terminals `done`, images `image` or
`image_0`, `image_1`, ..., channels last. Arrays of E rows are facts about the episodes, other small ones about the set.

Our writer adds `policy_accel.json`, which says which columns of `states` and which channels of `images` are which key,
and `policy_accel_episodes.jsonl`, the facts about the episodes; other tools do not look at them.
"""

from __future__ import annotations

import json
import math
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.episodes import sound_ends, whole
from policy_accel.data.formats.base import EpisodeReader, Feature, OnProgress, as_json, decoding
from policy_accel.data.formats.recognise import ENDS, FLAGS, LENGTHS
from policy_accel.data.readers import gather
from policy_accel.errors import refusing
from policy_accel.files import new_path, zip_entry
from policy_accel.memory import check_fits
from policy_accel.parsing import from_json

_DESCRIPTION, _FACTS = "policy_accel.json", "policy_accel_episodes.jsonl"
_STANDARD = {"action": "actions", "reward": "rewards", "done": "terminals"}
_NAMES = {"states": "state", "observations": "observation", **{name: key for key, name in _STANDARD.items()}}
_STEPS = {*_NAMES, *_NAMES.values(), "obs", "images", *FLAGS}  # arrays that are meant to have a row for every step
_LARGEST_FACT = 1_000_000  # numbers
_MOST_COLUMNS = 1024  # of one key; a larger one, as a point cloud, stands alone
_NO_OBSERVATIONS = ("action", "action_abs", "reward", "done", "sim_state")
_NO_OBSERVATION_PREFIXES = ("next_obs.", "action_dict.", "extra.", "info.")
_PICKLED = "is pickled (Python objects), and pickles are never opened, since they can run code; save it as numbers."


Place = dict[str, Any]
"""Where a key lies: `member`, an array; maybe `columns` or `channels` of it, (first, end); shape of a step, dtype."""


class NpzReader(EpisodeReader):
    """An NPZ of demonstrations; UserError when it is damaged or nothing in it says where episodes end."""

    format, layout = "npz", "NPZ"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.metadata, self._content = {}, lru_cache(maxsize=None)(self._read_member)
        self._opened.callback(self._content.cache_clear)
        with decoding(path, "the zip"):
            self._archive = self._opened.enter_context(zipfile.ZipFile(path))
        self._stored = self._headers()
        with refusing(path):
            self.episode_ends = self._find_ends()
        with decoding(path, _FACTS):
            lines = self._content(_FACTS) or b"{}\n" * len(self.episode_ends)
            self._facts = [dict(from_json(line)) for line in lines.splitlines()]
            if len(self._facts) != len(self.episode_ends):
                raise ValueError(f"{len(self._facts)} lines for {len(self.episode_ends)} episodes")
        with decoding(path, _DESCRIPTION):
            own, arrays = self._content(_DESCRIPTION), {}
            described = from_json(own) if own else {"keys": self._find_places(), "metadata": self.metadata}
            self._places, self.metadata = described["keys"], dict(described["metadata"])
            for key, place in self._places.items():
                self._paths[key] = name = str(place["member"])
                if name in self._stored:
                    one = _placed(self._stored[name][:1], place)
                    arrays[key] = name, np.broadcast_to(one, (len(self._stored[name]), *one.shape[1:]))
                else:
                    missing = f"{name} is missing; copy the file again."
                    self.damaged[key] = self.damaged.get(_NAMES.get(name, name), missing)
        self._settle(arrays)

    def _headers(self) -> dict[str, np.ndarray]:
        """For each array one of its shape and dtype that takes no memory; what is wrong with others is noted."""
        found = {}
        for entry in self._archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename:
                continue
            key = _NAMES.get(name, name)
            with self.noting(self.damaged, key), decoding(self.source, name), self._archive.open(entry) as file:
                first = np.lib.format.read_magic(file) == (1, 0)
                read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                if dtype.hasobject:
                    self.left_out[key] = f"{name} {_PICKLED}"
                elif file.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
                    raise ValueError(f"it does not hold the {list(shape)} {dtype} that it says")
                else:
                    found[name] = np.broadcast_to(np.zeros((), dtype.newbyteorder("=")), shape)
        return found

    def _read_member(self, name: str) -> Any:
        """An array in the byte order of this machine, or bytes of a file of ours, which need not be there."""
        if name in (_DESCRIPTION, _FACTS) and name not in self._archive.namelist():
            return b""
        entry = self._archive.getinfo(f"{name}.npy" if name in self._stored else name)
        check_fits(entry.file_size, f"{self.source}: {name}", stored=entry.compress_size)
        with decoding(self.source, name), self._archive.open(entry) as file:
            if name not in self._stored:
                return file.read()
            values = np.lib.format.read_array(file, allow_pickle=False)
            return values.astype(values.dtype.newbyteorder("="), copy=False)

    def _find_ends(self) -> np.ndarray:
        """Cumulative ends [E] int64, told by themselves, by lengths or by flags; ValueError when nothing tells them."""
        stored, wrong = self._stored, self.left_out | self.damaged
        for name in (LENGTHS, ENDS, *(() if stored else wrong)):
            if name in wrong:
                raise ValueError(wrong[name])
        if LENGTHS in stored:
            lengths = self._content(LENGTHS).reshape(-1)
            rows = {name: len(values) for name, values in stored.items() if name != LENGTHS and values.ndim}
            told = f"{lengths.sum():.0f}" if whole(lengths) else str(lengths.dtype)
            if told not in map(str, rows.values()) or lengths.min() < 0:
                listed = ", ".join(f"{name} {count}" for name, count in rows.items())
                needed = f"it needs the number of steps of every episode, of all rows ({listed})"
                raise ValueError(f"{LENGTHS} is {lengths[:8].tolist()}, in all {told}; {needed}.")
            return np.cumsum(lengths.astype(np.int64))
        if ENDS in stored:
            return sound_ends(self._content(ENDS))
        flags = {name: self._content(name).reshape(-1) for name in FLAGS if name in stored}
        steps, said = max(map(len, flags.values()), default=0), " or ".join(flags) or "terminals"
        sound = flags and all(len(values) == steps and np.isin(values, (0, 1)).all() for values in flags.values())
        last = np.any([values != 0 for values in flags.values()], axis=0) if sound else np.zeros(1, bool)
        if not last.any():
            listed = ", ".join(f"{name} {values.dtype} {list(values.shape)}" for name, values in stored.items())
            remedy = (
                f"{ENDS}, the cumulative number of steps at the end of each, {LENGTHS}, or 1 at last steps in {said}"
            )
            raise ValueError(f"holds demonstrations without the lengths of their episodes ({listed}); save {remedy}.")
        ends = np.union1d(np.flatnonzero(last) + 1, [steps]).astype(np.int64)
        lengths, rest = np.diff(ends, prepend=0), "" if last[-1] else " and after the last step"
        made = f"{len(ends)} of {lengths.min()} to {lengths.max()} steps, the last of {lengths[-1]}"
        self.remarks.append(f"an episode ends where {said} is 1{rest}, which makes {made}.")
        return ends

    def _find_places(self) -> dict[str, Place]:
        """Where the keys of a file of others lie; what is not one of steps is a fact, or left out."""
        steps, episodes, places = int(self.episode_ends[-1]), len(self.episode_ends), dict[str, Place]()
        for name, values in self._stored.items():
            key = name if _NAMES.get(name) in self._stored else _NAMES.get(name, name)
            shape, dtype = values.shape, values.dtype
            if name in (LENGTHS, ENDS):
                continue
            if dtype.kind in "biuf" and shape and (shape[0] == steps or name in _STEPS):
                places[key] = {"member": name, "shape": shape[1:], "dtype": dtype}
                if name == "images" and len(shape) == 4 and not shape[1] % 3 and shape[3] not in (1, 3, 4):
                    camera = places.pop(key) | {"shape": (*shape[2:], 3)}
                    for i in range(0, shape[1], 3):
                        places["image" if shape[1] == 3 else f"image_{i // 3}"] = camera | {"channels": (i, i + 3)}
            elif shape[:1] != (steps,) and dtype.kind in "biufUS" and values.size <= _LARGEST_FACT:
                with self.noting(self.damaged, key):
                    fact, of_each = as_json(self._content(name)), shape[:1] == (episodes,)
                    for owner, part in zip(self._facts, fact, strict=True) if of_each else [(self.metadata, fact)]:
                        owner[name] = part
            else:
                wanted = f"neither numbers of {steps} steps nor of {episodes} episodes"
                remedy = "save it with one row of numbers per step."
                self.left_out[key] = f"{name} is {list(shape)} {dtype}, {wanted}; {remedy}"
        return places

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        rows = slice(self.first_row(episode) + start, self.first_row(episode) + stop)
        with decoding(self.source, _DESCRIPTION):
            found = {key: self._content(self._paths[key])[rows] for key in keys}
            return {key: np.ascontiguousarray(_placed(values, self._places[key])) for key, values in found.items()}


def _placed(values: np.ndarray, place: Place) -> np.ndarray:
    """Rows of a key in rows of its member; any exception where they do not fit."""
    if place.get("columns"):
        values = values[:, slice(*place["columns"])]
    if place.get("channels"):
        values = values[:, slice(*place["channels"])].transpose(0, 2, 3, 1)
    values = values.reshape(len(values), *place["shape"])
    made = values.astype(place["dtype"], copy=False)
    if made.dtype != values.dtype and not np.array_equal(made, values, equal_nan=values.dtype.kind == "f"):
        raise ValueError(f"a key is said to be {place['dtype']}, and {place['member']} is {values.dtype}")
    return made


def write_npz(path: Path | str, reader: EpisodeReader, *, progress: OnProgress | None = None) -> None:
    """Write demonstrations as DPPO has them, see `write_episodes`; all of it is held in memory.

    `states` is all low-dimensional floating-point observations side by side; `images` all cameras of the first one's
    size with their channels stacked, compressed; every other key stands alone. Equal episodes give equal bytes."""
    places = _places(reader.features)
    with new_path(Path(path)) as temporary:
        arrays = gather(reader, progress=progress).arrays
        members = {LENGTHS: [np.diff(reader.episode_ends, prepend=0).astype(np.int64)]}
        for key, place in places.items():
            flat = arrays[key].reshape(len(arrays[key]), -1) if "columns" in place else arrays[key]
            part = flat.transpose(0, 3, 1, 2) if "channels" in place else flat
            members.setdefault(place["member"], []).append(part)
        facts = [json.dumps(reader.episode_metadata(episode)) for episode in range(len(reader.episode_ends))]
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(zip_entry(_DESCRIPTION), json.dumps({"keys": places, "metadata": reader.metadata}))
            if set(facts) != {"{}"}:
                archive.writestr(zip_entry(_FACTS, zipfile.ZIP_DEFLATED), "".join(f"{line}\n" for line in facts))
            for name, parts in members.items():
                compression = zipfile.ZIP_DEFLATED if name == "images" else zipfile.ZIP_STORED
                values = np.concatenate(parts, axis=1) if len(parts) > 1 else np.ascontiguousarray(parts[0])
                with archive.open(zip_entry(f"{name}.npy", compression), "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, values, allow_pickle=False)


def _places(features: dict[str, Feature]) -> dict[str, Place]:
    """Where every key goes: its member, and its columns or channels of that."""
    places, column, channel, size = dict[str, Place](), 0, 0, tuple[int, ...]()
    for key, feature in features.items():
        observation = key not in _NO_OBSERVATIONS and not key.startswith(_NO_OBSERVATION_PREFIXES)
        width = math.prod(feature.shape)
        taken = key.startswith("own/") or key in (*_NAMES, "images", LENGTHS, ENDS)
        place: Place = {"member": _STANDARD.get(key, f"own/{key}" if taken else key)}
        if observation and feature.dtype.kind == "f" and width <= _MOST_COLUMNS and feature.dtype.itemsize <= 8:
            place = {"member": "states", "columns": (column, column + width)}
            column += width
        elif observation and feature.is_image and size in ((), feature.shape[:2]):
            place = {"member": "images", "channels": (channel, channel + feature.shape[2])}
            size, channel = feature.shape[:2], channel + feature.shape[2]
        places[key] = {**place, "shape": feature.shape, "dtype": feature.dtype.str}
    return places
