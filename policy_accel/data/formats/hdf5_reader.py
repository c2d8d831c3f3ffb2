"""What the readers of HDF5 files share: a group of arrays for each demonstration, all of one make."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.formats.hdf5 import damaged, datasets, native, open_hdf5
from policy_accel.errors import UserError


class Hdf5Reader(EpisodeReader):
    """Demonstrations in one HDF5 file as an `EpisodeReader`; a format says where they are and what their arrays mean.

    The first demonstration says what the others must hold. Arrays that are no series of numbers, one row per step, are
    left out with a warning.

    Args:
        path: as the user gave it, for messages.
        file: the HDF5 file.

    Raises:
        UserError: a missing or damaged file; an array that only one of two demonstrations has, or that differs between
            them in the shape or dtype of a step; a wrong number of rows; two arrays with one name in memory.
    """

    counted: ClassVar[str]
    """The array whose rows are the steps."""

    def __init__(self, path: Path | str, file: Path) -> None:
        super().__init__(path)
        self.features: dict[str, Feature] = {}
        self._paths: dict[str, str] = {}
        self._left_out: set[str] = set()
        self._file = open_hdf5(file)
        try:
            self._demonstrations, self._names = self._find()
            self._lengths = [self._look_at(name) for name in self._names]
        except UserError:
            self._file.close()
            raise
        except (OSError, RuntimeError, KeyError) as error:
            self._file.close()
            raise damaged(file, error) from error
        self.episode_ends = np.cumsum(self._lengths).astype(np.int64)

    @abstractmethod
    def _key_of(self, path: str) -> str:
        """Key in memory of an array, by its path in a demonstration."""

    @abstractmethod
    def _find(self) -> tuple[h5py.Group, list[str]]:
        """The group that holds the demonstrations, and their names in order."""

    @abstractmethod
    def _steps(self, name: str, arrays: dict[str, h5py.Dataset]) -> int:
        """Steps of a demonstration, at least 1."""

    @abstractmethod
    def _feature(self, path: str, array: h5py.Dataset, steps: int) -> Feature | None:
        """What a step of an array is, or None for what is no series of numbers."""

    def _row_counts(self, path: str, steps: int) -> tuple[int, ...]:
        """The numbers of rows that an array may have."""
        return (steps,)

    def _stored(self, path: str, array: h5py.Dataset, rows: slice) -> np.ndarray:
        """Rows of an array."""
        return np.asarray(array[rows])

    def close(self) -> None:
        """See `EpisodeReader`."""
        self._file.close()

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        name, values = self._names[episode], {}
        for key in keys:
            path = self._paths[key]
            try:
                stored = self._stored(path, self._demonstrations[name][path], slice(start, stop))
                values[key] = stored.astype(self.features[key].dtype, copy=False)
            except (OSError, RuntimeError, KeyError, ValueError) as error:
                raise damaged(self.source, error, f"{name}/{path}") from error
        return values

    def _look_at(self, name: str) -> int:
        """Steps of a demonstration, after comparing what it holds with the first."""
        arrays = datasets(self._demonstrations[name])
        steps = self._steps(name, arrays)
        known = set(self._paths.values()) | self._left_out
        for path, array in arrays.items():
            if path not in known:
                self._meet(name, path, array, steps)
        for key, path in self._paths.items():
            if path not in arrays:
                raise self._lacking(path, name, self._names[0])
            self._compare(name, key, arrays[path], steps)
        return steps

    def _meet(self, name: str, path: str, array: h5py.Dataset, steps: int) -> None:
        """Take in an array that no demonstration so far has."""
        feature = self._feature(path, array, steps)
        if feature is None:
            self._left_out.add(path)
            warnings.warn(
                f"{self.source}: {path} of {name} ({list(array.shape)} {array.dtype}) is not a series of numbers, "
                "one row per step, and is left out.",
                stacklevel=2,
            )
        elif name != self._names[0]:
            raise self._lacking(path, self._names[0], name)
        else:
            key = self._key_of(path)
            if key in self._paths:
                raise UserError(
                    f"{self.source}: {self._paths[key]} and {path} of {name} would both be called '{key}'; rename one."
                )
            self.features[key], self._paths[key] = feature, path

    def _lacking(self, path: str, lacking: str, having: str) -> UserError:
        return UserError(
            f"{self.source}: {lacking} has no {path}, which {having} has; record {lacking} again, remove it, or "
            f"remove {path} from all the others."
        )

    def _compare(self, name: str, key: str, array: h5py.Dataset, steps: int) -> None:
        path, expected = self._paths[key], self.features[key]
        if array.shape[:1] not in [(rows,) for rows in self._row_counts(path, steps)]:
            raise UserError(
                f"{self.source}: {name} has {steps} {self.counted} but {path} is {list(array.shape)}; every array "
                "needs one row per step, so copy or record the file again."
            )
        found = self._feature(path, array, steps) or Feature(array.shape[1:], native(array.dtype))
        if found != expected:
            raise UserError(
                f"{self.source}: {path} of {name} is {list(found.shape)} {found.dtype} a step but "
                f"{list(expected.shape)} {expected.dtype} in {self._names[0]}; all of a file must agree."
            )
