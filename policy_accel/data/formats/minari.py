"""Minari's HDF5 data sets (0.4 and 0.5), read with h5py alone.

Layout (Farama Minari, minari/dataset/_storages/hdf5_storage.py): `<data set>/data/main_data.hdf5` with
`episode_<i>/{observations, actions, rewards, terminations, truncations, infos}`, where dictionaries are groups, tuples
are groups of `_index_<i>` and 8-bit images are JPEG bytes a frame; `metadata.json` beside it. Episodes are in the order
of their numbers.

Names in memory: actions -> `action`, rewards -> `reward`, terminations -> `done`, truncations -> `truncated`,
infos/<path> -> `info.<path>`; observations -> `observation`, or the names of their dictionary, nested ones joined by
dots: `achieved_goal.kettle`. One whose name is taken, as `action`, is called `obs.<name>`. Observations and infos have
one row more than there are steps: row t belongs to step t, before its action, and **the last row, the observation after
the last step, is left out**.

Facts about an episode: its attributes, as `seed`. Facts about the set: metadata.json, as `minari`.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from policy_accel.data.formats.base import Feature
from policy_accel.data.formats.hdf5 import attribute, json_object, native
from policy_accel.data.formats.hdf5_reader import Hdf5Reader
from policy_accel.data.formats.recognise import FACTS_FILE, MAIN_FILE, minari_file
from policy_accel.errors import UserError
from policy_accel.files import explained

_NAMES = {"actions": "action", "rewards": "reward", "terminations": "done", "truncations": "truncated"}
_TAKEN = (*_NAMES.values(), "info", "obs")
_ONE_MORE = ("observations", "infos")
_JPEG = b"\xff\xd8\xff"


def memory_name(path: str) -> str:
    """Path of an array in an episode -> its key in memory: "observations/achieved_goal" -> "achieved_goal"."""
    top, _, rest = path.partition("/")
    rest = rest.replace("/", ".")
    if top == "observations":
        return f"obs.{rest}" if rest.partition(".")[0] in _TAKEN else rest or "observation"
    name = {"infos": "info"}.get(top, _NAMES.get(top, top))
    return f"{name}.{rest}" if rest else name


class MinariReader(Hdf5Reader):
    """A Minari data set as an `EpisodeReader`.

    Args:
        path: the folder of the data set, its data folder, or main_data.hdf5.

    Raises:
        UserError: no data set there; as `Hdf5Reader`.
    """

    format = "minari"
    counted = "rewards"

    def __init__(self, path: Path | str) -> None:
        main = minari_file(Path(path))
        if main is None:
            raise UserError(f"{path}: holds no {MAIN_FILE}; give the folder of a Minari data set.")
        facts = main.parent / FACTS_FILE
        with explained(facts, "read"):
            self.metadata = {"minari": json_object(facts, FACTS_FILE, facts.read_text())}
        version = self.metadata["minari"].get("minari_version", "version not given")
        self.layout = f"Minari HDF5, {version}, the observation after the last step left out"
        self._jpeg: set[str] = set()
        super().__init__(path, main)

    def _key_of(self, path: str) -> str:
        return memory_name(path)

    def _find(self) -> tuple[h5py.Group, list[str]]:
        named = {int(found.group(1)): name for name in self._file if (found := re.fullmatch(r"episode_(\d+)", name))}
        if not named:
            raise UserError(f"{self.source}: {MAIN_FILE} holds no episode; expected episode_0 and so on.")
        return self._file, [named[number] for number in sorted(named)]

    def _steps(self, name: str, arrays: dict[str, h5py.Dataset]) -> int:
        if "rewards" not in arrays or len(arrays["rewards"]) == 0:
            raise UserError(f"{self.source}: {name} has no rewards, so no step; remove it or record it again.")
        return len(arrays["rewards"])

    def _feature(self, path: str, array: h5py.Dataset, steps: int) -> Feature | None:
        if path in self._jpeg:
            return self.features[memory_name(path)]
        if array.ndim and array.shape[0] and _is_jpeg(array):
            self._jpeg.add(path)
            picture = _decoded(array[0])
            return Feature(picture.shape, picture.dtype)
        if array.dtype.kind in "biuf" and array.ndim and array.shape[0] in self._row_counts(path, steps):
            return Feature(array.shape[1:], native(array.dtype))
        return None

    def _row_counts(self, path: str, steps: int) -> tuple[int, ...]:
        return (steps, steps + 1) if path.partition("/")[0] in _ONE_MORE else (steps,)

    def _stored(self, path: str, array: h5py.Dataset, rows: slice) -> np.ndarray:
        stored = super()._stored(path, array, rows)
        return np.stack([_decoded(frame) for frame in stored]) if path in self._jpeg else stored

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        attributes = self._file[self._names[episode]].attrs
        return {name: attribute(value) for name, value in attributes.items() if name not in ("id", "total_steps")}


def _is_jpeg(array: h5py.Dataset) -> bool:
    bytes_each = h5py.check_vlen_dtype(array.dtype) == np.uint8 or (array.dtype == np.uint8 and array.ndim == 2)
    return bytes_each and bytes(array[0][:3]) == _JPEG


def _decoded(frame: np.ndarray) -> np.ndarray:
    """A JPEG frame [bytes] uint8 -> [H, W, C] uint8."""
    return np.asarray(Image.open(io.BytesIO(frame.tobytes())), np.uint8)
