"""Demonstrations in an NPZ, read into memory as a whole: arrays with one row per step, episode after episode.

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
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.episodes import sound_ends, whole
from policy_accel.data.formats.base import EpisodeReader, Feature, decoding
from policy_accel.data.formats.hdf5 import attribute
from policy_accel.data.formats.recognise import ENDS, FLAGS, LENGTHS
from policy_accel.data.formats.streaming import OnProgress, gather
from policy_accel.errors import UserError, refusing
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


class NpzReader(EpisodeReader):
    """An NPZ of demonstrations; UserError when it is damaged or nothing in it says where episodes end."""

    format, layout = "npz", "NPZ"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.metadata, self._arrays, self._members = {}, {}, dict[str, str]()
        members, ours = self._load()
        with refusing(path):
            self.episode_ends = self._find_ends(members)
        with decoding(path, _FACTS):
            lines = ours.get(_FACTS, b"{}\n" * len(self.episode_ends)).splitlines()
            self._facts = [dict(from_json(line)) for line in lines]
            if len(self._facts) != len(self.episode_ends):
                raise ValueError(f"{len(self._facts)} lines for {len(self.episode_ends)} episodes")
        if _DESCRIPTION in ours:
            self._take_described(members, ours[_DESCRIPTION])
        else:
            self._take_others(members)
        self._settle({key: (self._members[key], values) for key, values in self._arrays.items()})

    def _load(self) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
        """The arrays, in the byte order of this machine, and our files; what is wrong with other arrays is noted."""
        members, ours = dict[str, np.ndarray](), dict[str, bytes]()
        with decoding(self.source, "the zip"), zipfile.ZipFile(self.source) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                try:
                    with decoding(self.source, name), archive.open(entry) as file:
                        check_fits(entry.file_size, f"{self.source}: {name}", stored=entry.compress_size)
                        if name in (_DESCRIPTION, _FACTS):
                            ours[name] = file.read()
                        elif name != entry.filename:
                            values = np.lib.format.read_array(file, allow_pickle=False)
                            if file.read(1):
                                raise ValueError(f"it holds more than {list(values.shape)} {values.dtype}")
                            members[name] = values.astype(values.dtype.newbyteorder("="), copy=False)
                except UserError as error:
                    if name in (_DESCRIPTION, _FACTS):
                        raise
                    why, pickled = str(error).removeprefix(f"{self.source}: "), "allow_pickle" in str(error)
                    where = self.left_out if pickled else self.damaged
                    where[_NAMES.get(name, name)] = f"{name} {_PICKLED}" if pickled else why
        return members, ours

    def _find_ends(self, members: dict[str, np.ndarray]) -> np.ndarray:
        """Cumulative ends [E] int64, told by themselves, by lengths or by flags; ValueError when nothing tells them."""
        wrong = self.left_out | self.damaged
        for name in (LENGTHS, ENDS, *(() if members else wrong)):
            if name in wrong:
                raise ValueError(wrong[name])
        if LENGTHS in members:
            lengths = members[LENGTHS].reshape(-1)
            sound = lengths.size > 0 and whole(lengths) and lengths.min() >= 0
            ends = np.cumsum(lengths.astype(np.int64) if sound else [-1])
            rows = {name: len(values) for name, values in members.items() if name != LENGTHS and values.ndim}
            if ends[-1] not in rows.values():
                said = f"adds up to {ends[-1]} steps" if sound else f"is {lengths.dtype} {lengths[:8].tolist()}"
                listed = ", ".join(f"{name} {count}" for name, count in rows.items())
                raise ValueError(
                    f"{LENGTHS} {said}; it needs the number of steps of every episode, of all rows ({listed})."
                )
            return ends
        if ENDS in members:
            return sound_ends(members[ENDS])
        flags = {name: members[name].reshape(-1) for name in FLAGS if name in members}
        steps, said = max(map(len, flags.values()), default=0), " or ".join(flags) or "terminals"
        sound = flags and all(len(values) == steps and np.isin(values, (0, 1)).all() for values in flags.values())
        last = np.any([values != 0 for values in flags.values()], axis=0) if sound else np.zeros(1, bool)
        if not last.any():
            listed = ", ".join(f"{name} {values.dtype} {list(values.shape)}" for name, values in members.items())
            remedy = (
                f"{ENDS}, the cumulative number of steps at the end of each, {LENGTHS}, or 1 at last steps in {said}"
            )
            raise ValueError(f"holds demonstrations without the lengths of their episodes ({listed}); save {remedy}.")
        ends = np.union1d(np.flatnonzero(last) + 1, [steps]).astype(np.int64)
        lengths = np.diff(ends, prepend=0)
        rest = "" if last[-1] else f"; the last {lengths[-1]} steps have no end and are one of them"
        made = f"{len(ends)} of {lengths.min()} to {lengths.max()} steps{rest}"
        self.remarks.append(f"an episode ends where {said} is 1, which makes {made}.")
        return ends

    def _take_described(self, members: dict[str, np.ndarray], description: bytes) -> None:
        with decoding(self.source, _DESCRIPTION):
            described = from_json(description)
            self.metadata = dict(described["metadata"])
            for key, place in described["keys"].items():
                name = str(place["member"])
                if name not in members:
                    missing = f"{name} is missing; copy the file again."
                    self.damaged[key] = self.damaged.get(_NAMES.get(name, name), missing)
                    continue
                values = members[name]
                if place.get("columns"):
                    values = values[:, slice(*place["columns"])]
                if place.get("channels"):
                    values = values[:, slice(*place["channels"])].transpose(0, 2, 3, 1)
                values = values.reshape(len(values), *place["shape"])
                self._members[key], self._arrays[key] = name, values.astype(place["dtype"], copy=False)
                if not np.array_equal(self._arrays[key], values, equal_nan=values.dtype.kind == "f"):
                    raise ValueError(f"{key} is said to be {place['dtype']}, and {name} is {values.dtype}")

    def _take_others(self, members: dict[str, np.ndarray]) -> None:
        steps, episodes = int(self.episode_ends[-1]), len(self.episode_ends)
        for name, values in members.items():
            key = name if _NAMES.get(name) in members else _NAMES.get(name, name)
            kind, rows = values.dtype.kind, values.shape[0] if values.ndim else 0
            if name in (LENGTHS, ENDS):
                continue
            if kind in "biuf" and values.ndim and (rows == steps or name in _STEPS):
                parts = {key: values}
                cameras, rest = divmod(values.shape[1], 3) if name == "images" and values.ndim == 4 else (0, 0)
                if cameras and not rest and values.shape[3] not in (1, 3, 4):
                    pictures = np.split(values.transpose(0, 2, 3, 1), cameras, axis=3)
                    parts = {f"image_{i}" if cameras > 1 else "image": part for i, part in enumerate(pictures)}
                self._arrays |= parts
                self._members |= dict.fromkeys(parts, name)
            elif rows != steps and kind in "biufUS" and values.size <= _LARGEST_FACT:
                owners, facts = (self._facts, values) if rows == episodes else ([self.metadata], [values])
                for owner, fact in zip(owners, facts, strict=True):
                    owner[name] = attribute(fact)
            else:
                wanted = f"neither numbers of {steps} steps nor of {episodes} episodes"
                remedy = "save it with one row of numbers per step."
                self.left_out[key] = f"{name} is {list(values.shape)} {values.dtype}, {wanted}; {remedy}"

    def own_name(self, key: str) -> str:
        """The array that it stands in."""
        return self._members[key]

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """Those of our own files, and what others have one row of for every episode."""
        return self._facts[episode]


def write_npz(path: Path | str, reader: EpisodeReader, *, progress: OnProgress | None = None) -> None:
    """Write demonstrations as DPPO has them, see `write_episodes`; all of it is held in memory.

    `states` is all low-dimensional floating-point observations side by side; `images` all cameras of the first one's
    size with their channels stacked, compressed; every other key stands alone. Equal episodes give equal bytes."""
    places = _places(reader.features)
    with new_path(Path(path)) as temporary:
        arrays = gather(reader, progress=progress).arrays
        members = {LENGTHS: np.diff(reader.episode_ends, prepend=0).astype(np.int64)}
        for name in dict.fromkeys(place["member"] for place in places.values()):
            parts = [arrays[key] for key, place in places.items() if place["member"] == name]
            if name == "states":
                parts = [np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)]
            elif name == "images":
                parts = [np.concatenate([part.transpose(0, 3, 1, 2) for part in parts], axis=1)]
            members[name] = parts[0]
        facts = [json.dumps(reader.episode_metadata(episode)) for episode in range(len(reader.episode_ends))]
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(zip_entry(_DESCRIPTION), json.dumps({"keys": places, "metadata": reader.metadata}))
            if set(facts) != {"{}"}:
                archive.writestr(zip_entry(_FACTS, zipfile.ZIP_DEFLATED), "".join(f"{line}\n" for line in facts))
            for name, values in members.items():
                compression = zipfile.ZIP_DEFLATED if name == "images" else zipfile.ZIP_STORED
                with archive.open(zip_entry(f"{name}.npy", compression), "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)


def _places(features: dict[str, Feature]) -> dict[str, dict[str, Any]]:
    """Where every key goes: its member, and its columns or channels of that."""
    places: dict[str, dict[str, Any]] = {}
    column = channel = 0
    size: tuple[int, ...] | None = None
    for key, feature in features.items():
        observation = key not in _NO_OBSERVATIONS and not key.startswith(_NO_OBSERVATION_PREFIXES)
        width = math.prod(feature.shape)
        taken = key.startswith("own/") or key in (*_NAMES, "images", LENGTHS, ENDS)
        place: dict[str, Any] = {"member": _STANDARD.get(key, f"own/{key}" if taken else key)}
        if observation and feature.dtype.kind == "f" and width <= _MOST_COLUMNS and feature.dtype.itemsize <= 8:
            place = {"member": "states", "columns": (column, column + width)}
            column += width
        elif observation and feature.is_image and size in (None, feature.shape[:2]):
            place = {"member": "images", "channels": (channel, channel + feature.shape[2])}
            size, channel = feature.shape[:2], channel + feature.shape[2]
        places[key] = {**place, "shape": feature.shape, "dtype": feature.dtype.str}
    return places
