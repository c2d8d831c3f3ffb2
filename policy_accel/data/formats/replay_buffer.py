"""Diffusion Policy's replay buffer (zarr v2 or v3, folder or zip), read a piece at a time.

Facts about the set are the attribute `policy_accel` of the root group. Facts about the episodes, one JSON object each,
stand end to end in `meta/episode_facts` [bytes] uint8, with their cumulative ends in `meta/episode_facts_ends` [E]
int64: Diffusion Policy's ReplayBuffer loads whatever is below meta/, and compares lengths below data/ only.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.episodes import end_problems, length_problems
from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.zarr_store import (
    ReplayStore,
    RowReader,
    missing_chunks,
    open_replay,
    read_array,
    root_attributes,
)
from policy_accel.errors import UserError

OWN_ATTRIBUTE = "policy_accel"
FACTS, FACTS_ENDS = "meta/episode_facts", "meta/episode_facts_ends"


class ReplayBufferReader(EpisodeReader):
    """A zarr replay buffer as an `EpisodeReader`; it keeps the chunk of every key that it read last.

    Args:
        path: a zarr v2 or v3 store, as a folder or a zip; the store may lie in a folder inside.

    Raises:
        UserError: missing path, damaged zip, not a replay buffer, no or unsound meta/episode_ends, arrays that differ
            in length or are damaged.
    """

    format = "zarr"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        with ExitStack() as stack:
            self._replay = stack.enter_context(open_replay(path))
            self.layout = self._replay.layout
            ends = read_array(self._replay, "meta/episode_ends")
            self._arrays = {key: RowReader(self._replay, f"data/{key}") for key in self._replay.keys}
            arrays = {key: reader.array for key, reader in self._arrays.items()}
            lengths = {f"data/{key}": array.shape[0] for key, array in arrays.items() if array.ndim}
            for fault in [*end_problems(ends), *length_problems(lengths, ends)]:
                raise UserError(f"{self.source}: {fault}")
            for key in self._arrays:
                if missing := missing_chunks(self._replay, f"data/{key}"):
                    self.remarks.append(missing)
            self.episode_ends = ends.astype(np.int64)
            self.features = {key: Feature(array.shape[1:], array.dtype) for key, array in arrays.items()}
            self.metadata = set_facts(self._replay)
            self._facts = EpisodeFacts(self._replay, len(ends))
            self._closing = stack.pop_all()

    def close(self) -> None:
        """See `EpisodeReader`."""
        self._closing.close()

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        return self._facts[episode]

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        first = self.first_row(episode)
        return {key: self._arrays[key].rows(first + start, first + stop) for key in keys}


def set_facts(replay: ReplayStore) -> dict[str, Any]:
    """Facts about the set, {} when there are none."""
    facts = root_attributes(replay).get(OWN_ATTRIBUTE, {})
    return facts if isinstance(facts, dict) else {}


class EpisodeFacts:
    """Facts about the episodes, read one by one.

    Args:
        replay: an open replay buffer.
        episodes: E.

    Raises:
        UserError: their ends are damaged or are those of another number of episodes.
    """

    def __init__(self, replay: ReplayStore, episodes: int) -> None:
        self.replay = replay
        self.ends: np.ndarray | None = None
        if FACTS in replay.arrays and FACTS_ENDS in replay.arrays:
            self.ends = np.concatenate([[0], read_array(replay, FACTS_ENDS)])
            self.rows = RowReader(replay, FACTS)
            if len(self.ends) != episodes + 1 or self.ends[-1] != self.rows.array.shape[0]:
                raise UserError(
                    f"{replay.source}: {FACTS_ENDS} is not that of {episodes} episodes and "
                    f"{self.rows.array.shape[0]} bytes of {FACTS}; remove both arrays, or copy the file again."
                )

    def __getitem__(self, episode: int) -> dict[str, Any]:
        """Facts about one episode, {} when there are none."""
        if self.ends is None:
            return {}
        begin, end = int(self.ends[episode]), int(self.ends[episode + 1])
        try:
            return dict(json.loads(self.rows.rows(begin, end).tobytes()))
        except ValueError as error:
            raise UserError(
                f"{self.replay.source}: {FACTS} is damaged at episode {episode}; remove it or copy the file again."
            ) from error
