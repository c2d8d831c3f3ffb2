"""Data sets that many tests write."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from policy_accel.data import Episodes, MemoryReader, write_episodes


def write_zarr(path: Path | str, episodes: Episodes, *, zarr_format: Literal[2, 3] = 2) -> None:
    """Write a replay buffer."""
    write_episodes(path, MemoryReader(episodes), "zarr", zarr_format=zarr_format)
