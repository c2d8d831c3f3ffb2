"""Diffusion Policy's replay buffer (zarr v2 or v3, folder or zip), read a piece at a time.

Facts about the set are the attribute `policy_accel` of the root group. Facts about the episodes, one JSON object each,
stand end to end in `meta/episode_facts` [bytes] uint8, with their cumulative ends in `meta/episode_facts_ends` [E]
int64: Diffusion Policy's ReplayBuffer loads whatever is below meta/, and compares lengths below data/ only.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from policy_accel.data.episodes import compare_rows, empty_episodes, end_problems
from policy_accel.data.formats.base import EpisodeReader, Feature, decoding, refusing
from policy_accel.data.zarr_store import (
    ReplayStore,
    RowReader,
    chunk_counts,
    open_array,
    open_replay,
    read_array,
)
from policy_accel.errors import UserError

OWN_ATTRIBUTE = "policy_accel"
FACTS, FACTS_ENDS = "meta/episode_facts", "meta/episode_facts_ends"
_ENDS = "meta/episode_ends"


class ReplayBufferReader(EpisodeReader):
    """A zarr replay buffer as an `EpisodeReader`; it keeps the chunks of every key that it read last.

    Args:
        path: a zarr v2 or v3 store, as a folder or a zip; the store may lie in a folder inside.

    Raises:
        UserError: missing path, damaged zip, not a replay buffer, no or unsound meta/episode_ends, no array of the
            length that it tells; arrays most of which are not stored.
    """

    format = "zarr"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        with ExitStack() as stack:
            self._replay = stack.enter_context(open_replay(path))
            self.layout = self._replay.layout
            self.episode_ends = self._read_ends()
            self.faults |= empty_episodes(self.episode_ends)
            self._arrays: dict[str, RowReader] = {}
            for key in self._replay.keys:
                self._open(key)
            self._compare_rows()
            self.features = {
                key: Feature(rows.array.shape[1:], rows.array.dtype.newbyteorder("="))
                for key, rows in self._arrays.items()
            }
            self._count_chunks()
            self.metadata = set_facts(self._replay)
            self._facts = EpisodeFacts(self._replay, len(self.episode_ends))
            self._closing = stack.pop_all()

    def _read_ends(self) -> np.ndarray:
        total, stored = chunk_counts(self._replay, _ENDS, open_array(self._replay, _ENDS))
        if stored < total:
            raise UserError(f"{self.source}: {_ENDS} is not stored as a whole; copy the file again.")
        ends = read_array(self._replay, _ENDS)
        for problem in end_problems(ends, empty=True):
            raise UserError(f"{self.source}: {problem}")
        return ends.astype(np.int64)

    def _open(self, key: str) -> None:
        """Take in an array, or say why not."""
        name = f"data/{key}"
        try:
            rows = RowReader(self._replay, name)
        except UserError as error:
            self.damaged[key] = str(error).removeprefix(f"{self.source}: ")
            return
        if not rows.array.ndim or rows.array.dtype.kind not in "biuf":
            what = f"{name} is {list(rows.array.shape)} {rows.array.dtype}"
            self.left_out[key] = f"{what}; store it as numbers, one row per step."
        else:
            self._arrays[key] = rows

    def _compare_rows(self) -> None:
        names = {f"data/{key}": rows.array.shape[0] for key, rows in self._arrays.items()}
        with refusing(self.source):
            left_out, faults = compare_rows(names, self.episode_ends)
        self.faults |= faults
        for name, why in left_out.items():
            key = name.removeprefix("data/")
            self.left_out[key] = why
            del self._arrays[key]

    def _count_chunks(self) -> None:
        """Say which chunks are not stored; refuse a set that declares more than it holds."""
        counts = {key: chunk_counts(self._replay, f"data/{key}", rows.array) for key, rows in self._arrays.items()}
        if counts and all(2 * stored < total for total, stored in counts.values()):
            listed = ", ".join(f"data/{key} {stored} of {total}" for key, (total, stored) in counts.items())
            raise UserError(f"{self.source}: most chunks of every array are not stored ({listed}); copy it again.")
        for key, (total, stored) in counts.items():
            if stored < total:
                self.remarks.append(
                    f"{total - stored} of {total} chunks of data/{key} are not stored and read as the fill value; if "
                    "that is not on purpose, copy the file again."
                )

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
    facts = None
    for zarr_format in (2, 3):
        with suppress(Exception):  # a store without group files; zarr raises one of several errors
            facts = zarr.open_group(replay.store, path=replay.root, mode="r", zarr_format=zarr_format).attrs[
                OWN_ATTRIBUTE
            ]
    return dict(facts) if isinstance(facts, dict) else {}


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
        with decoding(self.replay.source, f"{FACTS} of episode {episode}"):
            return dict(json.loads(self.rows.rows(begin, end).tobytes()))
