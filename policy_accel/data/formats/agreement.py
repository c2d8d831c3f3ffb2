"""The arrays that all demonstrations of one HDF5 file hold: found in the first, and every other compared with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from policy_accel.data.formats.base import Feature
from policy_accel.data.formats.hdf5 import native
from policy_accel.errors import UserError

if TYPE_CHECKING:
    import h5py


class Agreement:
    """What the demonstrations of a file hold in common.

    Args:
        source: the path, for messages.
        counted: the array whose rows are the steps, as "actions", for messages.
        memory_name: path of an array in a demonstration -> its key in memory.
        feature: (path, array, steps) -> what a step of it is, or None for what is no series of numbers.
        rows: (path, steps) -> the numbers of rows that the array may have.

    Attributes:
        features: key -> shape and dtype.
        paths: key -> path in a demonstration.
    """

    def __init__(
        self,
        source: str,
        counted: str,
        memory_name: Callable[[str], str],
        feature: Callable[[str, h5py.Dataset, int], Feature | None],
        rows: Callable[[str, int], tuple[int, ...]],
    ) -> None:
        self.source = source
        self.features: dict[str, Feature] = {}
        self.paths: dict[str, str] = {}
        self._counted, self._memory_name, self._feature, self._rows = counted, memory_name, feature, rows
        self._first = ""
        self._left_out: set[str] = set()

    def take(self, name: str, arrays: dict[str, h5py.Dataset], steps: int) -> None:
        """Look at a demonstration of `steps` steps; the first one says what the others must hold.

        Arrays that are no series of numbers, one row per step, are left out with a warning.

        Raises:
            UserError: an array that only one of this demonstration and the first has, or that differs between them in
                the shape or dtype of a step; a wrong number of rows; two arrays with one name in memory.
        """
        first = not self._first
        self._first = self._first or name
        known = set(self.paths.values()) | self._left_out
        for path, array in arrays.items():
            if path not in known:
                self._meet(name, path, self._feature(path, array, steps), array, first=first)
        for key, path in self.paths.items():
            if path not in arrays:
                raise self._lacking(path, name, self._first)
            self._compare(name, key, arrays[path], steps)

    def _meet(self, name: str, path: str, feature: Feature | None, array: h5py.Dataset, *, first: bool) -> None:
        """Take in an array that no demonstration so far has."""
        if feature is None:
            self._left_out.add(path)
            warnings.warn(
                f"{self.source}: {path} of {name} ({list(array.shape)} {array.dtype}) is no series of numbers, "
                "one row per step, and is left out.",
                stacklevel=2,
            )
        elif not first:
            raise self._lacking(path, self._first, name)
        else:
            key = self._memory_name(path)
            if key in self.paths:
                raise UserError(
                    f"{self.source}: {self.paths[key]} and {path} of {name} would both be called '{key}'; rename one."
                )
            self.features[key], self.paths[key] = feature, path

    def _lacking(self, path: str, lacking: str, having: str) -> UserError:
        return UserError(
            f"{self.source}: {lacking} has no {path}, which {having} has; record {lacking} again, remove it, or "
            f"remove {path} from all the others."
        )

    def _compare(self, name: str, key: str, array: h5py.Dataset, steps: int) -> None:
        path, expected = self.paths[key], self.features[key]
        if array.shape[:1] not in [(rows,) for rows in self._rows(path, steps)]:
            raise UserError(
                f"{self.source}: {name} has {steps} {self._counted} but {path} is {list(array.shape)}; every array "
                "needs one row per step, so copy or record the file again."
            )
        found = self._feature(path, array, steps) or Feature(array.shape[1:], native(array.dtype))
        if found != expected:
            raise UserError(
                f"{self.source}: {path} of {name} is {list(found.shape)} {found.dtype} a step but "
                f"{list(expected.shape)} {expected.dtype} in {self._first}; all of a file must agree."
            )
