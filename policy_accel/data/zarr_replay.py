"""Diffusion Policy's replay buffer in memory: data/<key> [N, ...] and meta/episode_ends [E], in zarr v2 or v3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from policy_accel.data.episodes import Episodes


def read_zarr(path: Path | str, keys: Sequence[str] | None = None) -> Episodes:
    """Read a replay buffer into memory.

    Args:
        path: a zarr v2 or v3 store, as a folder or a zip; the store may lie in a folder inside.
        keys: the keys to read; None for all.

    Raises:
        UserError: the path is missing, unreadable, truncated, damaged or not a replay buffer; an unknown key; any
            fault that `Episodes` finds.
    """
    from policy_accel.data.formats.replay_buffer import ReplayBufferReader
    from policy_accel.data.formats.streaming import gather

    with ReplayBufferReader(path) as reader:
        return gather(reader, keys)


def write_zarr(path: Path | str, episodes: Episodes, *, zarr_format: Literal[2, 3] = 2) -> None:
    """Write a replay buffer that Diffusion Policy reads; see `formats.replay_writer.write_replay_buffer`."""
    from policy_accel.data.formats.base import MemoryReader
    from policy_accel.data.formats.replay_writer import write_replay_buffer

    write_replay_buffer(path, MemoryReader(episodes), zarr_format=zarr_format)
