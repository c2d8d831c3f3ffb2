"""Demonstrations of any known format: opening, reading whole, writing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy_accel.data.episodes import Episodes, empty_episodes
from policy_accel.data.formats.base import EpisodeReader, EpisodeView, check_keys
from policy_accel.data.formats.recognise import FORMATS, imported, recognised_format, split_group
from policy_accel.data.formats.streaming import OnProgress, check_features, chosen_episodes, gather, without_unreadable
from policy_accel.errors import UserError, one_of
from policy_accel.files import explained
from policy_accel.written_formats import WRITTEN_FORMATS


def open_episodes(
    path: Path | str,
    keys: Sequence[str] | None = None,
    *,
    filter_key: str | None = None,
    episodes: Sequence[int | str] | None = None,
    skip_bad_episodes: bool = False,
    layout: Path | str | None = None,
) -> EpisodeReader:
    """Open demonstrations of a format that README's table lists, which is recognised by content, not by name.

    Args:
        path: file or folder; `FILE::GROUP` for raw HDF5 recordings of several tasks.
        keys: those that will be read, which alone must be sound; None for all that every episode has.
        filter_key: only the episodes that carry this filter, as robomimic's mask/<filter>.
        episodes: only these, by number (of those of the filter) from 0, in this order; "a:b" is all from a to before b.
        skip_bad_episodes: leave out episodes with a fault that was found when opening, and say so in the remarks;
            `without_unreadable` does so for those that are found bad when they are read.
        layout: YAML file that says where HDF5 of another make has its data, an `Hdf5Layout`.

    Raises:
        UserError: one sentence with path, key and remedy for whatever is wrong with the path or its content.
    """
    reader = open_reader(path, layout)
    try:
        if not reader.features:
            check_keys(reader, [*reader.damaged, *reader.left_out])
            raise UserError(f"{path}: holds no array of steps; give at least one, as action.")
        reader.ask_for([*reader.features, *reader.damaged] if keys is None else keys)
        if left_out := reader.left_out | reader.damaged:
            listed = "; ".join(f"'{key}', since {why.rstrip('.')}" for key, why in left_out.items())
            reader.remarks.append(f"left out: {listed}.")
        return chosen_episodes(reader, episodes, filter_key=filter_key, skip_bad=skip_bad_episodes)
    except BaseException:
        reader.close()
        raise


def open_reader(path: Path | str, layout: Path | str | None = None) -> EpisodeReader:
    """`open_episodes` for demonstrations as they are, with whatever faults they have."""
    with explained(split_group(path)[0], "read"):
        if layout is None:
            reader: EpisodeReader = imported(FORMATS[recognised_format(path) or "zarr"].reader, path)(path)
        else:
            reader = imported("hdf5_layout:open_with_layout", path)(path, layout)
    reader.faults = empty_episodes(reader.episode_ends) | reader.faults
    return reader


def read_episodes(path: Path | str, keys: Sequence[str] | None = None, **chosen: Any) -> Episodes:
    """`open_episodes` into memory; with skip_bad_episodes also without episodes whose values are damaged or not finite.
    What was left out or assumed becomes a warning."""
    with open_episodes(path, keys, **chosen) as reader:
        return gather(without_unreadable(reader, keys) if chosen.get("skip_bad_episodes") else reader, keys)


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
        format: one of `WRITTEN_FORMATS`.
        keys: the keys to write; None for all.
        progress: called with (steps so far, all steps).
        options: of the format's writer: `zarr_format` of zarr; `fps`, `images` of lerobot.

    Raises:
        UserError: an unknown format or key; a key without numbers; `path` exists; disk full; what the reader raises.
    """
    one_of("format", format, WRITTEN_FORMATS)
    source = reader if keys is None else EpisodeView(reader, keys)
    check_features(source)
    imported(FORMATS[format].writer, path)(path, source, progress=progress, **options)
