"""What the readers of HDF5 have in common: every episode is a group of arrays, and what differs between them is judged.

A key is usable when all episodes have it with one shape and dtype. What few episodes lack or hold otherwise becomes
their fault once the key is asked for; until then it keeps the key out, with a remark. Actions are always asked for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from policy_accel.data.formats import hdf5
from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.formats.encoded import decoded, encoded_feature
from policy_accel.data.formats.hdf5 import Unusable, member, open_hdf5, reading
from policy_accel.data.formats.hdf5_table import Series, Table
from policy_accel.errors import UserError

Arrays = dict[str, h5py.Dataset | str]
"""Path of an array in an episode -> itself, or why it cannot be used."""


class Place(NamedTuple):
    """Where an episode lies: a group of a file or, with `rows` (first, stop, all), these rows of its arrays."""

    name: str
    file: Path
    group: str
    rows: tuple[int, int, int] | None = None


class Hdf5Reader(EpisodeReader):
    """Demonstrations in HDF5 files as an `EpisodeReader`; a format says where they are and what their arrays mean.

    Pictures that are kept as JPEG or PNG files are decoded. Where an array has one row more than there are steps in all
    episodes, as observations may, the last, after the last action, is left out.

    Args:
        path: as the user gave it, for messages.

    Raises:
        UserError: a missing or damaged file; no episode that can be used.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.features: dict[str, Feature] = {}
        self._paths: dict[str, str] = {}
        self._of_most: dict[str, tuple[str, Series, dict[int, str]]] = {}
        self._spare = False  # whether an array goes on after the last action
        self._opened: tuple[Path, h5py.File] | None = None
        try:
            with reading("the HDF5 file"):
                self._places = self._find()
            self._look()
        except Unusable as error:
            self.close()
            raise UserError(f"{path}: {error}") from error
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _find(self) -> list[Place]:
        """Where the episodes are, in order, at least one."""

    @abstractmethod
    def _key_of(self, path: str) -> str:
        """Key in memory of an array, by its path in an episode; "" for what is no data."""

    def _stored(self, path: str) -> str:
        """Path in the file of what is `path` among the arrays of an episode."""
        return path

    def _arrays(self, group: h5py.Group) -> Arrays:
        """The arrays of an episode."""
        return hdf5.datasets(group)

    def _steps(self, place: Place, group: h5py.Group, arrays: Arrays) -> int:
        """Steps of an episode: rows of its actions, or else of its rewards or what comes first."""
        rows: dict[str, int] = {}
        for path, item in arrays.items():
            if not isinstance(item, str) and item.shape:
                rows[path] = item.shape[0]
        paths = {self._key_of(path): path for path in rows}
        counted = paths.get("action") or paths.get("reward") or next(iter(rows), None)
        if counted is None:
            found = ", ".join(list(group)[:6]) or "nothing"
            raise Unusable(f"{place.name} has no actions (found {found}); remove it or record it again.")
        if not rows[counted]:
            raise Unusable(f"{place.name} has no step; remove it.")
        return rows[counted]

    def close(self) -> None:
        """See `EpisodeReader`."""
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def _file(self, path: Path) -> h5py.File:
        """An open file; one at a time, since a folder may have thousands."""
        if self._opened is None or self._opened[0] != path:
            self.close()
            self._opened = (path, open_hdf5(path))
        return self._opened[1]

    def _group(self, place: Place) -> h5py.Group:
        group = member(self._file(place.file), place.group)
        if isinstance(group, h5py.Group):
            return group
        raise Unusable(f"{place.name} {group if isinstance(group, str) else 'is no group of arrays'}; remove it.")

    def own_name(self, key: str) -> str:
        """See `EpisodeReader`."""
        return self._stored(self._paths[key])

    def _attributes(self, episode: int) -> dict[str, Any]:
        """All attributes of an episode."""
        if episode in self.faults:
            return {}
        try:
            with reading(self._places[episode].name):
                return hdf5.attributes(self._group(self._places[episode]))
        except Unusable as error:
            raise UserError(f"{self.source}: {error}") from error

    def ask_for(self, keys: Sequence[str]) -> None:
        """See `EpisodeReader`."""
        for key in keys:
            if key in self._of_most:
                path, usual, problems = self._of_most.pop(key)
                del self.left_out[key]
                self.features[key], self._paths[key] = usual.feature, path
                self._blame(problems)
        super().ask_for(keys)

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        place, values = self._places[episode], {}
        first = place.rows[0] if place.rows else 0
        for key in keys:
            name, feature = f"{place.name}/{self._paths[key]}", self.features[key]
            try:
                with reading(f"{name} in the HDF5 file"):
                    rows = member(self._group(place), self._stored(self._paths[key]))[first + start : first + stop]
                    if rows.dtype.kind in "OSV" or rows.ndim <= len(feature.shape):
                        rows = decoded(name, rows, feature)
            except Unusable as error:
                raise UserError(f"{self.source}: {error}") from error
            values[key] = rows.astype(feature.dtype, copy=False)
        return values

    def _look(self) -> None:
        """Find out what the set holds, what is left out, and which episodes have faults."""
        table = Table([place.name for place in self._places])
        lengths: list[int] = []
        blank: dict[str, str] = {}
        seen, steps, arrays = None, 0, {}
        for episode, place in enumerate(self._places):
            try:
                with reading(place.name):
                    if seen != (place.file, place.group):
                        seen, group = (place.file, place.group), self._group(place)
                        items = self._arrays(group)
                        steps = place.rows[2] if place.rows else self._steps(place, group, items)
                        arrays = {path: _what(item, steps) for path, item in items.items()}
                        blank |= {path: place.name for path, item in items.items() if _is_blank(item)}
                table.add(episode, arrays)
            except (Unusable, UserError) as error:
                seen, steps = None, 1
                self.faults[episode] = str(error).removeprefix(f"{self.source}/")
            lengths.append(place.rows[1] - place.rows[0] if place.rows else steps)
        self.episode_ends = np.cumsum(lengths).astype(np.int64)
        keys = {path: key for path in table.columns if (key := self._key_of(path))}
        self._blame(table.out_of_step([path for path, key in keys.items() if key[:6] != "extra."], self._sound()))
        for path, key in keys.items():
            if key.partition(".")[0] == "action" and table.usual(path) is not None:
                self._blame(table.problems(path, self._sound()))
        if not self._sound():
            raise Unusable(self.faults[0])
        for path, key in keys.items():
            self._judge(table, path, key)
        if self._spare:
            self.layout += ", the observation after the last step left out"
        self.remarks += [
            f"{key} is blank in places, as {path} of {blank[path]}, of which not all was ever written."
            for key, path in self._paths.items()
            if path in blank
        ]

    def _sound(self) -> list[int]:
        return [episode for episode in range(len(self._places)) if episode not in self.faults]

    def _blame(self, problems: dict[int, str]) -> None:
        for episode, problem in problems.items():
            self.faults.setdefault(episode, f"{problem}; record {self._places[episode].name} again or remove it.")

    def _judge(self, table: Table, path: str, key: str) -> None:
        """Take in an array, or say why it is left out."""
        usual, sound = table.usual(path), self._sound()
        problems = table.problems(path, sound)
        if key in self._paths or key in self.left_out:
            self.features.pop(key, None)
            self._of_most.pop(key, None)
            why = f"{self._paths.pop(key, 'another array')} and {path} would both be called '{key}'; rename one."
            self.left_out[key] = why
        elif problems or usual is None:
            self.left_out[key] = f"{next(iter(problems.values()))}; mend the file or use other keys."
            if usual is not None and 2 * len(problems) < len(sound):
                self._of_most[key] = (path, usual, problems)
        else:
            self.features[key], self._paths[key] = usual.feature, path
            self._spare |= bool(usual.more)


def _what(item: h5py.Dataset | str, steps: int) -> Series | str:
    """What an array of an episode is, or why it cannot be used."""
    if isinstance(item, str):
        return item
    try:
        hdf5.check_stored(item)
        encoded = encoded_feature(item)
    except Unusable as error:
        return str(error)
    shape, dtype = item.shape, item.dtype
    if encoded is None and (not shape or dtype.kind not in "biuf"):
        return f"is no series of numbers, one row per step ({list(shape)} {dtype})"
    return Series(encoded or Feature(shape[1:], hdf5.native(dtype)), shape[0] - steps)


def _is_blank(item: h5py.Dataset | str) -> bool:
    return not isinstance(item, str) and item.shape is not None and hdf5.unwritten(item)
