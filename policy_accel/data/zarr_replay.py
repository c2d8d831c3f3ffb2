"""Diffusion Policy's replay buffer in memory: data/<key> [N, ...] and meta/episode_ends [E], in zarr v2 or v3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from policy_accel.data.episodes import Episodes
from policy_accel.data.zarr_store import open_replay, read_array
from policy_accel.errors import UserError, did_you_mean


def read_zarr(path: Path | str, keys: Sequence[str] | None = None) -> Episodes:
    """Read a replay buffer into memory.

    Args:
        path: a zarr v2 or v3 store, as a folder or a zip; the store may lie in a folder inside.
        keys: the keys to read; None for all.

    Raises:
        UserError: the path is missing, unreadable, truncated, damaged or not a replay buffer; an unknown key; any
            fault that `Episodes` finds.
    """
    from policy_accel.data.formats.replay_buffer import read_ends, warn_of_missing_chunks
    from policy_accel.data.formats.replay_facts import all_facts, set_facts

    with open_replay(path) as replay:
        for key in keys or ():
            if key not in replay.keys:
                raise UserError(f"{path}: has no key '{key}' below data/; {did_you_mean(key, replay.keys)}")
        ends = read_ends(replay)
        names = [f"data/{key}" for key in (replay.keys if keys is None else keys)]
        arrays = {name.removeprefix("data/"): read_array(replay, name) for name in names}
        warn_of_missing_chunks(replay, ["meta/episode_ends", *names], stacklevel=4)
        return Episodes(arrays, ends, str(path), set_facts(replay), all_facts(replay, ends))


def write_zarr(path: Path | str, episodes: Episodes, *, zarr_format: Literal[2, 3] = 2) -> None:
    """Write a replay buffer that Diffusion Policy reads; see `formats.replay_writer.write_replay_buffer`."""
    from policy_accel.data.formats.base import MemoryReader
    from policy_accel.data.formats.replay_writer import write_replay_buffer

    write_replay_buffer(path, MemoryReader(episodes), zarr_format=zarr_format)
