"""Demonstrations in an NPZ: DPPO's layout, and any NPZ of arrays of steps with the lengths or ends of its episodes.

DPPO (Ren et al. 2024, script/dataset/process_robomimic_dataset.py): `states` [N, O], `actions` [N, A], `rewards` [N],
`terminals` [N], `images` [N, 3 * cameras, H, W] uint8 and `traj_lengths` [E]. Instead of `traj_lengths` there may be
`episode_ends` [E], cumulative and exclusive.

Names in memory: states -> `state`, observations -> `observation`, actions -> `action`, rewards -> `reward`,
terminals -> `done`, images -> `image`, or `image_0`, `image_1`, ... channels last; other arrays of N rows keep their
name. Arrays of E rows, as initial states, become facts about the episodes; the rest become facts about the set.

Our writer adds `policy_accel.json`, which says which columns of `states` and which channels of `images` are which key,
and `policy_accel_episodes.jsonl`, the facts about the episodes; other tools do not look at them.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from policy_accel.data.episodes import end_problems, length_problems
from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.formats.hdf5 import attribute, native
from policy_accel.data.formats.npz_members import Member, damaged
from policy_accel.data.formats.recognise import ENDS, LENGTHS
from policy_accel.errors import UserError
from policy_accel.files import explain_os_error

COLUMNS, EPISODE_FACTS = "policy_accel.json", "policy_accel_episodes.jsonl"
STANDARD = {"actions": "action", "rewards": "reward", "terminals": "done"}
_NAMES = {**STANDARD, "states": "state", "observations": "observation"}
_LARGEST_FACT = 1_000_000  # numbers


@dataclass(frozen=True)
class Field:
    """Where a key stands: member, and its columns (of `states`) or channels (of `images`), None for all of it."""

    member: str
    columns: tuple[int, int] | None = None
    channels: tuple[int, int] | None = None


class NpzReader(EpisodeReader):
    """An NPZ as an `EpisodeReader`; fast in the order of the steps, slow in any other where it is compressed.

    Raises:
        UserError: missing or damaged file; neither traj_lengths nor episode_ends; Python objects; arrays of another
            length than the episodes together.
    """

    format = "npz"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        try:
            self._archive = zipfile.ZipFile(path)
        except OSError as error:
            raise explain_os_error(error, path, "read") from error
        except (zipfile.BadZipFile, EOFError) as error:
            raise damaged(path, "the zip", error) from error
        try:
            self._open()
        except UserError:
            self._archive.close()
            raise

    def _open(self) -> None:
        names = [name.removesuffix(".npy") for name in self._archive.namelist() if name.endswith(".npy")]
        self._members = {name: Member(self._archive, name) for name in names}
        self.episode_ends = self._read_ends()
        self.features: dict[str, Feature] = {}
        self._fields: dict[str, Field] = {}
        self._episode_arrays: dict[str, list[Any]] = {}
        self._facts: _Lines | None = None
        self.metadata: dict[str, Any] = {}
        self.layout = "NPZ"
        if COLUMNS in self._archive.namelist():
            self._open_our_own()
        else:
            self._open_foreign()
        lengths = {f"data/{key}": self._members[field.member].shape[0] for key, field in self._fields.items()}
        for problem in length_problems(lengths, self.episode_ends):
            raise UserError(f"{self.source}: {problem}")

    def close(self) -> None:
        """See `EpisodeReader`."""
        for member in self._members.values():
            member.close()
        if self._facts is not None:
            self._facts.close()
        self._archive.close()

    def _read_ends(self) -> np.ndarray:
        for name in (LENGTHS, ENDS):
            if name in self._members:
                values = self._members[name].whole()
                ends = np.cumsum(values) if name == LENGTHS and values.ndim == 1 and values.size else values
                for problem in end_problems(ends):
                    raise UserError(f"{self.source}: from {name}: {problem}")
                return ends.astype(np.int64)
        raise UserError(
            f"{self.source}: has neither {LENGTHS} nor {ENDS} (found {', '.join(self._members) or 'nothing'}); "
            "add the steps of every episode as traj_lengths."
        )

    def _open_our_own(self) -> None:
        try:
            described = json.loads(self._archive.read(COLUMNS))
            self.metadata = dict(described["metadata"])
            for key, place in described["keys"].items():
                self._fields[key] = Field(place["member"], place.get("columns"), place.get("channels"))
                self.features[key] = Feature(tuple(place["shape"]), np.dtype(place["dtype"]))
                self._members[place["member"]]  # it is there
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise damaged(self.source, COLUMNS, error) from error
        if EPISODE_FACTS in self._archive.namelist():
            self._facts = _Lines(self._archive, EPISODE_FACTS)

    def _open_foreign(self) -> None:
        steps, episodes = int(self.episode_ends[-1]), len(self.episode_ends)
        for name, member in self._members.items():
            rows = member.shape[0] if member.shape else None
            if name in (LENGTHS, ENDS):
                continue
            if name in _NAMES or (rows == steps and member.dtype.kind in "biuf"):
                self._add(name, member)
            elif np.prod(member.shape, dtype=np.int64) > _LARGEST_FACT:
                raise UserError(
                    f"{self.source}: {name} has shape {list(member.shape)}, which is neither {steps} steps nor "
                    f"{episodes} episodes; give it one row per step, or remove it."
                )
            elif rows == episodes:
                self._episode_arrays[name] = member.whole().tolist()
            else:
                self.metadata[name] = attribute(member.whole())

    def _add(self, name: str, member: Member) -> None:
        feature = Feature(member.shape[1:], native(member.dtype))
        if name == "images" and feature.dtype == np.uint8 and len(feature.shape) == 3 and feature.shape[0] % 3 == 0:
            cameras = feature.shape[0] // 3
            for camera in range(cameras):
                key = "image" if cameras == 1 else f"image_{camera}"
                self._fields[key] = Field(name, channels=(3 * camera, 3 * camera + 3))
                self.features[key] = Feature((*feature.shape[1:], 3), feature.dtype)
        else:
            key = _NAMES.get(name, name)
            self._fields[key], self.features[key] = Field(name), feature

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        facts = {} if self._facts is None else self._facts.object(episode)
        return {**facts, **{name: values[episode] for name, values in self._episode_arrays.items()}}

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        first = self.first_row(episode)
        return {key: self._rows(key, first + start, first + stop) for key in keys}

    def _rows(self, key: str, begin: int, end: int) -> np.ndarray:
        field, feature = self._fields[key], self.features[key]
        rows = self._members[field.member].rows(begin, end)
        if field.columns is not None:
            rows = rows[:, slice(*field.columns)].reshape(end - begin, *feature.shape)
        if field.channels is not None:
            rows = rows[:, slice(*field.channels)].transpose(0, 2, 3, 1)
        return np.array(rows, feature.dtype, order="C")


class _Lines:
    """A member of JSON lines, read in order; going back starts it anew."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.archive, self.name = archive, name
        self._file: IO[bytes] | None = None
        self._next = 0
        self._last: tuple[int, dict[str, Any]] = -1, {}

    def object(self, number: int) -> dict[str, Any]:
        if self._last[0] != number:
            if self._file is None or number < self._next:
                self.close()
                self._file, self._next = self.archive.open(self.name), 0
            try:
                while self._next < number:
                    self._file.readline()
                    self._next += 1
                self._last = number, dict(json.loads(self._file.readline()))
            except Exception as error:  # whatever a broken stream raises
                raise damaged(str(self.archive.filename), self.name, error) from error
            self._next += 1
        return dict(self._last[1])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
