"""Minari's HDF5 data sets (0.4 and 0.5), read with h5py alone.

Layout (Farama Minari, minari/dataset/_storages/hdf5_storage.py): `<data set>/data/main_data.hdf5` with
`episode_<i>/{observations, actions, rewards, terminations, truncations, infos}`, where dictionaries are groups, tuples
are groups of `_index_<i>` and 8-bit images are JPEG bytes a frame; `metadata.json` beside it. Names in memory are those
of `formats/hdf5_layout.py`. Observations and infos have one row more than there are steps: row t belongs to step t,
before its action, and **the last row, the observation after the last step, is left out**.

Facts about an episode: its attributes, as `seed`. Facts about the set: metadata.json, as `minari`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policy_accel.data.formats.hdf5 import json_object
from policy_accel.data.formats.hdf5_layout import Hdf5Layout, LayoutReader
from policy_accel.data.formats.hdf5_reader import Place
from policy_accel.data.formats.recognise import FACTS_FILE, MAIN_FILE, minari_file
from policy_accel.errors import UserError
from policy_accel.files import open_regular


class MinariReader(LayoutReader):
    """A Minari data set as an `EpisodeReader`.

    Args:
        path: the folder of the data set, its data folder, or main_data.hdf5.

    Raises:
        UserError: no data set there; as `Hdf5Reader`.
    """

    format = "minari"

    def __init__(self, path: Path | str) -> None:
        main = minari_file(Path(path))
        if main is None:
            raise UserError(f"{path}: holds no {MAIN_FILE}; give the folder of a Minari data set.")
        super().__init__(path, Hdf5Layout(episodes="episode_*"), main)

    def _find(self) -> list[Place]:
        places = super()._find()
        facts = self._root.parent / FACTS_FILE
        with open_regular(facts) as file:
            about = json_object(facts, "the file", file.read())
        self.metadata = {"minari": about}
        self.layout = f"Minari HDF5, {about.get('minari_version', 'version not given')}"
        if about.get("total_episodes", len(places)) != len(places):
            self.remarks.append(
                f"{FACTS_FILE} counts {about['total_episodes']} episodes and {MAIN_FILE} holds {len(places)}; "
                "if some were lost, get the set again."
            )
        return places

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        facts = super().episode_metadata(episode)
        return {name: value for name, value in facts.items() if name not in ("name", "id", "total_steps")}
