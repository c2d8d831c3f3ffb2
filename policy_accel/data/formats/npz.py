"""Demonstrations in an NPZ, which is read into memory as a whole. Anyone's own, by NumPy alone:

    np.savez("mine.npz", state=states, action=actions, episode_ends=np.cumsum([len(e) for e in episodes]))

with one row per step in every array, episode after episode. Instead of the cumulative `episode_ends` [E] there may be
`traj_lengths` [E], as DPPO has them (Ren et al. 2024, script/dataset/process_robomimic_dataset.py: `states` [N, O],
`actions` [N, A], `rewards` [N], `terminals` [N], `images` [N, 3 * cameras, H, W] uint8), or flags of the last steps,
as D4RL's `terminals` and `timeouts` [N].

Names in memory: states -> `state`, observations -> `observation`, actions -> `action`, rewards -> `reward`,
terminals -> `done`, images -> `image`, or `image_0`, `image_1`, ... channels last; other arrays of N rows keep their
name. Arrays of E rows, as initial states, become facts about the episodes; other small ones facts about the set.

Our writer adds `policy_accel.json`, which says which columns of `states` and which channels of `images` are which key,
and `policy_accel_episodes.jsonl`, the facts about the episodes; other tools do not look at them.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from policy_accel.data.episodes import compare_rows, empty_episodes
from policy_accel.data.formats.base import EpisodeReader, Feature, decoding, refusing
from policy_accel.data.formats.hdf5 import attribute
from policy_accel.data.formats.npz_ends import STEPS, Member, find_ends
from policy_accel.data.formats.recognise import ENDS, LENGTHS
from policy_accel.errors import UserError
from policy_accel.memory import check_fits

COLUMNS, EPISODE_FACTS = "policy_accel.json", "policy_accel_episodes.jsonl"
STANDARD = {"actions": "action", "rewards": "reward", "terminals": "done"}
_NAMES = {**STANDARD, "states": "state", "observations": "observation"}
_LARGEST_FACT = 1_000_000  # numbers
_HEADER_BYTES = 20_000  # more than np.lib.format reads


@dataclass(frozen=True)
class Field:
    """Where a key stands: member, and its columns (of `states`) or channels (of `images`), None for all of it."""

    member: str
    columns: tuple[int, int] | None = None
    channels: tuple[int, int] | None = None


class NpzReader(EpisodeReader):
    """An NPZ as an `EpisodeReader`; an array is read whole when a step of it is asked for, and kept.

    Raises:
        UserError: missing or damaged file; nothing that says where episodes end; lengths that do not fit the arrays.
    """

    format = "npz"
    layout = "NPZ"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.features, self.metadata = {}, {}
        self._fields: dict[str, Field] = {}
        self._values: dict[str, np.ndarray] = {}
        self._facts: list[bytes] = []
        self._episode_arrays: dict[str, list[Any]] = {}
        with decoding(path, "the zip"):
            self._archive = zipfile.ZipFile(path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See `EpisodeReader`."""
        self._archive.close()

    def own_name(self, key: str) -> str:
        """See `EpisodeReader`."""
        return self._fields[key].member

    def _open(self) -> None:
        self._members: dict[str, Member] = {}
        for entry in self._archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name != entry.filename:
                try:
                    self._members[name] = self._header(name, entry)
                except UserError as error:
                    self.damaged[_NAMES.get(name, name)] = str(error).removeprefix(f"{self.source}: ")
        for name, member in list(self._members.items()):
            if member.dtype.hasobject:
                self.left_out[_NAMES.get(name, name)] = (
                    f"{name} is pickled (Python objects), and pickles are never opened, since they can run code; save "
                    "it as numbers, all episodes end to end, with np.concatenate and episode_ends."
                )
                del self._members[name]
        if not self._members and self.left_out:
            raise UserError(f"{self.source}: {next(iter(self.left_out.values()))}")
        with refusing(self.source):
            self.episode_ends = find_ends(self._members, self._array, self.damaged | self.left_out, self.remarks)
        self.faults |= empty_episodes(self.episode_ends)
        own = COLUMNS in self._archive.namelist()
        (self._open_our_own if own else self._open_foreign)()
        self._compare_rows()

    def _header(self, name: str, entry: zipfile.ZipInfo) -> Member:
        with decoding(self.source, name):
            with self._archive.open(entry) as file:
                start = io.BytesIO(file.read(_HEADER_BYTES))
            version = np.lib.format.read_magic(start)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"npy version {version[0]}.{version[1]}")
            first = version == (1, 0)
            read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(start)
            size = math.prod(shape) * dtype.itemsize
            if min(shape, default=0) < 0 or not (dtype.hasobject or start.tell() + size == entry.file_size):
                raise ValueError(f"its header tells of {list(shape)} {dtype}, and it has {entry.file_size} bytes")
            return Member(shape, dtype)

    def _array(self, name: str) -> np.ndarray:
        """A member, in the byte order of this machine."""
        if name not in self._values:
            with decoding(self.source, name), self._opened(f"{name}.npy") as file:
                values = np.lib.format.read_array(file, allow_pickle=False)
            self._values[name] = values.astype(values.dtype.newbyteorder("="), copy=False)
        return self._values[name]

    def _opened(self, name: str) -> IO[bytes]:
        entry = self._archive.getinfo(name)
        check_fits(entry.file_size, f"{self.source}: {name.removesuffix('.npy')}", stored=entry.compress_size)
        return self._archive.open(entry)

    def _open_our_own(self) -> None:
        with decoding(self.source, COLUMNS), self._opened(COLUMNS) as file:
            described = json.loads(file.read())
            self.metadata = dict(described["metadata"])
            for key, place in described["keys"].items():
                self._fields[key] = Field(place["member"], place.get("columns"), place.get("channels"))
                self.features[key] = Feature(tuple(place["shape"]), np.dtype(place["dtype"]))
                if place["member"] in self._members:
                    member = self._members[place["member"]]
                    self._taken(np.broadcast_to(np.zeros((), member.dtype), (1, *member.shape[1:])), key)
        if EPISODE_FACTS in self._archive.namelist():
            with decoding(self.source, EPISODE_FACTS), self._opened(EPISODE_FACTS) as file:
                self._facts = file.read().splitlines()
                if len(self._facts) != len(self.episode_ends):
                    raise ValueError(f"{len(self._facts)} lines for {len(self.episode_ends)} episodes")

    def _open_foreign(self) -> None:
        steps, episodes = int(self.episode_ends[-1]), len(self.episode_ends)
        for name, member in self._members.items():
            own_name = _NAMES.get(name, name)
            key = name if own_name in self._members else own_name
            numbers, small = member.dtype.kind in "biuf", math.prod(member.shape) <= _LARGEST_FACT
            if name in (LENGTHS, ENDS):
                continue
            if numbers and (name in STEPS or member.rows == steps):
                self._add(name, key, member)
            elif small and (numbers or member.dtype.kind in "US") and member.rows != steps:
                facts = attribute(self._array(name))
                if member.rows == episodes:
                    self._episode_arrays[name] = facts
                else:
                    self.metadata[name] = facts
            else:
                self.left_out[key] = (
                    f"{name} is {list(member.shape)} {member.dtype}, neither numbers of {steps} steps nor of "
                    f"{episodes} episodes; save it with one row of numbers per step."
                )

    def _add(self, name: str, key: str, member: Member) -> None:
        feature = Feature(member.shape[1:], member.dtype.newbyteorder("="))
        cameras = feature.shape[0] // 3 if name == "images" and len(feature.shape) == 3 else 0
        if cameras and feature.shape[0] == 3 * cameras and feature.shape[2] not in (1, 3, 4):
            for camera in range(cameras):
                key = "image" if cameras == 1 else f"image_{camera}"
                self._fields[key] = Field(name, channels=(3 * camera, 3 * camera + 3))
                self.features[key] = Feature((*feature.shape[1:], 3), feature.dtype)
        else:
            self._fields[key], self.features[key] = Field(name), feature

    def _compare_rows(self) -> None:
        """Leave out what has another number of rows than the episodes have steps."""
        for key, field in list(self._fields.items()):
            if field.member not in self._members:
                self.features.pop(key), self._fields.pop(key)
                missing = f"{field.member} is missing; copy the file again."
                self.damaged[key] = self.damaged.get(_NAMES.get(field.member, field.member), missing)
        rows = {field.member: self._members[field.member].rows for field in self._fields.values()}
        with refusing(self.source):
            left_out, faults = compare_rows(rows, self.episode_ends)
        self.faults |= faults
        for key, field in list(self._fields.items()):
            if field.member in left_out:
                self.left_out[key] = left_out[field.member]
                del self.features[key]

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        facts = {}
        if self._facts:
            with decoding(self.source, f"line {episode + 1} of {EPISODE_FACTS}"):
                facts = dict(json.loads(self._facts[episode]))
        return {**facts, **{name: values[episode] for name, values in self._episode_arrays.items()}}

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        first, found = self.first_row(episode), {}
        for key in keys:
            member = self._fields[key].member
            with decoding(self.source, member):
                found[key] = self._taken(self._array(member)[first + start : first + stop], key)
        return found

    def _taken(self, rows: np.ndarray, key: str) -> np.ndarray:
        """Rows of a member as those of a key.

        Raises:
            ValueError: the place of the key is none in the member, or its values do not fit the dtype.
        """
        field, feature = self._fields[key], self.features[key]
        if field.columns is not None:
            rows = rows[:, slice(*field.columns)].reshape(len(rows), *feature.shape)
        if field.channels is not None:
            rows = rows[:, slice(*field.channels)].transpose(0, 2, 3, 1)
        if rows.shape[1:] != feature.shape:
            raise ValueError(f"{key} is {list(rows.shape[1:])} a step instead of {list(feature.shape)}")
        values = rows.astype(feature.dtype, order="C", copy=False)
        if values.dtype != rows.dtype and not np.array_equal(values, rows, equal_nan=True):
            raise ValueError(f"{key} is said to be {feature.dtype}, which its {rows.dtype} values are not")
        return values
