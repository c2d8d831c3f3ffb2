"""Demonstrations of any known format: opening, reading whole, writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from policy_accel.data.episodes import Episodes
from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.formats.hdf5 import is_hdf5
from policy_accel.data.formats.lerobot import open_lerobot
from policy_accel.data.formats.lerobot.layout import is_lerobot
from policy_accel.data.formats.minari import MinariReader, minari_file
from policy_accel.data.formats.npz import NpzReader, is_npz_demonstrations
from policy_accel.data.formats.robomimic import RobomimicReader, split_group
from policy_accel.data.formats.streaming import EpisodeView, OnProgress, check_features, filtered, gather
from policy_accel.errors import one_of
from policy_accel.files import explained
from policy_accel.written_formats import WRITTEN_FORMATS


def open_episodes(path: Path | str, *, filter_key: str | None = None) -> EpisodeReader:
    """Open demonstrations; the format is recognised by content, not by name.

    Known are Diffusion Policy's replay buffer (zarr v2 or v3, folder or zip), robomimic's HDF5 (`FILE::GROUP` for raw
    recordings of several tasks), LeRobot's folders (v2.1, v3.0), the NPZ of DPPO (or any NPZ with arrays of steps and
    `traj_lengths` or `episode_ends`) and Minari's folders.

    Args:
        path: file or folder.
        filter_key: only the episodes that carry this filter, as robomimic's mask/<filter>; None for all.

    Raises:
        UserError: one sentence with path, key and remedy for whatever is wrong with the path or its content.
    """
    reader = open_other(path)
    if reader is None:
        from policy_accel.data.formats.replay_buffer import ReplayBufferReader

        reader = ReplayBufferReader(path)
    return _narrowed(reader, filter_key)


def open_other(path: Path | str) -> EpisodeReader | None:
    """Open demonstrations of any format but the replay buffer; None where they are none of those.

    Raises:
        UserError: a known format that is damaged or unsound.
    """
    file, _ = split_group(path)
    with explained(file, "read"):
        match recognised_format(path):
            case "minari":
                return MinariReader(path)
            case "robomimic":
                return RobomimicReader(path)
            case "npz":
                return NpzReader(path)
            case "lerobot":
                return open_lerobot(file)
    return None


def recognised_format(path: Path | str) -> str | None:
    """The format that a path is of by its beginning, however damaged the rest; None for the replay buffer and others.

    Raises:
        UserError: no permission to look; a kind of Minari data set that is not read.
    """
    file, _ = split_group(path)
    with explained(file, "read"):
        if minari_file(file) is not None:
            return "minari"
        if is_hdf5(file):
            return "robomimic"
        if is_npz_demonstrations(file):
            return "npz"
        return "lerobot" if is_lerobot(file) else None


def read_episodes(path: Path | str, keys: Sequence[str] | None = None, *, filter_key: str | None = None) -> Episodes:
    """Read demonstrations into memory; see `open_episodes` for the formats.

    Args:
        path: file or folder.
        keys: the keys to read, as `["state", "action"]`; None for all.
        filter_key: only the episodes that carry this filter; None for all.

    Raises:
        UserError: one sentence with path, key and remedy for whatever is wrong with the path or its content.
    """
    with open_episodes(path, filter_key=filter_key) as reader:
        return gather(reader, keys)


def write_episodes(
    path: Path | str,
    reader: EpisodeReader,
    format: str,
    *,
    keys: Sequence[str] | None = None,
    progress: OnProgress | None = None,
    **options: Any,
) -> None:
    """Write demonstrations a piece at a time; nothing appears at `path` before everything is on the disk.

    Args:
        path: file or folder, new; a replay buffer is a zip when the name ends in .zip.
        reader: where they come from: `open_episodes(...)` or `MemoryReader(episodes)`.
        format: "zarr", "robomimic", "lerobot" or "npz".
        keys: the keys to write; None for all.
        progress: called with (steps so far, all steps).
        options: of the format's writer: `zarr_format` of zarr; `version`, `fps`, `images` of lerobot.

    Raises:
        UserError: an unknown format or key; a key without numbers; `path` exists; disk full; no permission;
            what the reader raises.
    """
    one_of("format", format, WRITTEN_FORMATS)
    source = reader if keys is None else EpisodeView(reader, keys)
    check_features(source)
    _writer(format)(path, source, progress=progress, **options)


def _writer(format: str) -> Callable[..., None]:
    if format == "zarr":
        from policy_accel.data.formats.replay_writer import write_replay_buffer

        return write_replay_buffer
    if format == "robomimic":
        from policy_accel.data.formats.robomimic_writer import write_robomimic

        return write_robomimic
    if format == "npz":
        from policy_accel.data.formats.npz_writer import write_npz

        return write_npz
    from policy_accel.data.formats.lerobot import write_lerobot

    return write_lerobot


def _narrowed(reader: EpisodeReader, filter_key: str | None) -> EpisodeReader:
    if filter_key is None:
        return reader
    try:
        return filtered(reader, filter_key)
    except BaseException:
        reader.__exit__(None, None, None)
        raise
