"""Diffusion Policy's replay buffer (zarr v2 or v3, folder or zip), read a piece at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.episodes import end_problems, length_problems
from policy_accel.data.formats.base import Feature
from policy_accel.data.formats.replay_facts import EpisodeFacts, set_facts
from policy_accel.data.formats.streaming import read_rows
from policy_accel.data.zarr_store import EXPECTED, ReplayStore, RowReader, missing_chunks, open_replay, read_array
from policy_accel.errors import UserError


class ReplayBufferReader:
    """A zarr replay buffer as an `EpisodeReader`; it keeps the chunk of every key that it read last.

    Args:
        path: a zarr v2 or v3 store, as a folder or a zip; the store may lie in a folder inside.

    Raises:
        UserError: missing path, damaged zip, not a replay buffer, no or unsound meta/episode_ends, arrays that differ
            in length or are damaged.
    """

    format = "zarr"

    def __init__(self, path: Path | str) -> None:
        with ExitStack() as stack:
            self._replay = stack.enter_context(open_replay(path))
            self.source, self.layout = self._replay.source, self._replay.layout
            ends = read_ends(self._replay)
            self._arrays = {key: RowReader(self._replay, f"data/{key}") for key in self._replay.keys}
            arrays = {key: reader.array for key, reader in self._arrays.items()}
            lengths = {key: array.shape[0] for key, array in arrays.items() if array.ndim}
            for fault in [*end_problems(ends), *length_problems(lengths, ends)]:
                raise UserError(f"{self.source}: {fault}")
            warn_of_missing_chunks(self._replay, [f"data/{key}" for key in self._arrays], stacklevel=4)
            self.episode_ends = ends.astype(np.int64)
            self.features = {key: Feature(array.shape[1:], array.dtype) for key, array in arrays.items()}
            self.metadata = set_facts(self._replay)
            self._facts = EpisodeFacts(self._replay, len(ends))
            self._closing = stack.pop_all()

    def __enter__(self) -> ReplayBufferReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        return self._facts[episode]

    def read(
        self, episode: int, keys: Sequence[str] | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, np.ndarray]:
        """See `EpisodeReader`."""
        return read_rows(self, lambda key, *rows: self._arrays[key].rows(*rows), episode, keys, start, stop)


def read_ends(replay: ReplayStore) -> np.ndarray:
    """meta/episode_ends as it is stored.

    Raises:
        UserError: it is missing or damaged.
    """
    if "meta/episode_ends" not in replay.arrays:
        raise UserError(
            f"{replay.source}: meta/episode_ends is missing, so the episodes cannot be told apart; {EXPECTED}; "
            "write the cumulative ends there."
        )
    return read_array(replay, "meta/episode_ends")


def warn_of_missing_chunks(replay: ReplayStore, names: Sequence[str], stacklevel: int) -> None:
    """Warn of arrays with chunks that are not stored."""
    for name in names:
        missing, total = missing_chunks(replay, name)
        if missing:
            warnings.warn(
                f"{replay.source}: {missing} of {total} chunks of {name} are not stored and read as the fill value; "
                "if that is not on purpose, copy the file again.",
                stacklevel=stacklevel,
            )
