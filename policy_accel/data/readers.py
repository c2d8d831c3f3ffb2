"""One function that reads demonstrations, whatever the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from policy_accel.data.episodes import Episodes
from policy_accel.data.zarr_replay import read_zarr


def read_episodes(path: Path | str, keys: Sequence[str] | None = None) -> Episodes:
    """Read demonstrations into memory; the format is recognised by content, not by name.

    Known is Diffusion Policy's replay buffer (zarr v2 or v3, folder or zip).

    Args:
        path: file or folder.
        keys: the keys to read, as `["state", "action"]`; None for all.

    Raises:
        UserError: one sentence with path, key and remedy for whatever is wrong with the path or its content.
    """
    return read_zarr(path, keys)
