"""Demonstrations of any known format: opening them, choosing episodes, reading into memory, writing."""

from __future__ import annotations

import re
import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.episodes import Episodes, check_numbers, empty_episodes
from policy_accel.data.formats.base import EpisodeReader, EpisodeView, OnProgress, check_keys, filters_of, pieces
from policy_accel.data.formats.recognise import FORMATS, imported, recognised_format, split_group
from policy_accel.errors import UserError, did_you_mean, one_of, refusing
from policy_accel.files import explained
from policy_accel.memory import check_fits
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
    """Open demonstrations of a format in README's table, which is recognised by content, not by name. UserError, one
    sentence with path, key and remedy, for whatever is wrong with the path or its content.

    Args:
        path: file or folder; `FILE::GROUP` for raw HDF5 recordings of several tasks.
        keys: those that will be read, which alone must be sound; None for all that every episode has.
        filter_key: only the episodes that carry this filter, as robomimic's mask/<filter>.
        episodes: only these, by number (of those of the filter) from 0, in this order; "a:b" is all from a to before b.
        skip_bad_episodes: leave out episodes with a fault that was found when opening, and say so in the remarks;
            `without_unreadable` does so for those that are found bad when they are read.
        layout: YAML file that says where HDF5 of another make has its data, an `Hdf5Layout`.
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


def chosen_episodes(
    reader: EpisodeReader,
    episodes: Sequence[int | str] | None,
    *,
    filter_key: str | None = None,
    skip_bad: bool = False,
) -> EpisodeReader:
    """Of the episodes that carry a filter, those of these numbers, in this order, as `open_episodes` takes them.
    UserError where there is no such filter or episode, one has a fault and `skip_bad` is not set, or none is left."""
    wanted = list(range(len(reader.episode_ends)))
    if filter_key is not None:
        filters = [filters_of(reader.episode_metadata(episode)) for episode in wanted]
        wanted = [episode for episode in wanted if filter_key in filters[episode]]
        if not wanted:
            known = {name for names in filters for name in names}
            remedy = did_you_mean(filter_key, known) if known else "it has no filters at all."
            raise UserError(f"{reader.source}: has no filter '{filter_key}'; {remedy}")
    if episodes is not None:
        with refusing(reader.source):
            wanted = [wanted[number] for number in _numbers(episodes, len(wanted))]
    bad = [episode for episode in wanted if episode in reader.faults]
    kept = [episode for episode in wanted if episode not in reader.faults]
    if bad and not (skip_bad and kept):
        remedy = "none is left" if skip_bad else "or leave such episodes out with skip_bad_episodes=true"
        fault = reader.faults[bad[0]].rstrip(".")
        raise UserError(f"{reader.source}: {fault}; {remedy} ({len(bad)} of {len(wanted)}).")
    for episode in bad:
        name = f"episode {reader.origin(episode)[1]}"
        why = reader.faults[episode].removeprefix(f"{name}: ").replace(f"{name} ", "it ", 1)
        reader.remarks.append(f"{name} is left out: {why}")
    return reader if kept == list(range(len(reader.episode_ends))) else EpisodeView(reader, episodes=kept)


def _numbers(given: Sequence[int | str], count: int) -> list[int]:
    """Numbers of episodes, and ranges of them as "a:b", one by one; a ValueError says what is wrong with them."""
    found: list[int] = []
    for item in given:
        match = re.fullmatch(r"(\d+)|(\d*):(\d*)", str(item))
        number, first, end = match.groups() if match else (count, None, None)
        some = range(int(number), int(number) + 1) if number else range(int(first or 0), int(end or count))
        if some and some[-1] >= count:
            raise ValueError(f"episodes names {item}; there are {count}, 0 to {count - 1}, and ranges as 0:{count}.")
        found += some
    if not found or len(set(found)) < len(found):
        raise ValueError(f"episodes={list(given)} names none, or one twice; give each number once, or null for all.")
    return found


def without_unreadable(reader: EpisodeReader, keys: Sequence[str] | None) -> EpisodeReader:
    """The episodes whose values of `keys` (None: all) are sound, for which all are read once; UserError for none."""
    for episode in range(len(reader.episode_ends)):
        with reader.noting(reader.faults, episode):
            deque(pieces(reader, list(reader.features) if keys is None else keys, [episode]), maxlen=0)
    return chosen_episodes(reader, None, skip_bad=True)


def read_episodes(path: Path | str, keys: Sequence[str] | None = None, **chosen: Any) -> Episodes:
    """`open_episodes` into memory; with skip_bad_episodes also without episodes whose values are damaged or not finite.
    What was left out or assumed becomes a warning."""
    with open_episodes(path, keys, **chosen) as reader:
        return gather(without_unreadable(reader, keys) if chosen.get("skip_bad_episodes") else reader, keys)


def gather(reader: EpisodeReader, keys: Sequence[str] | None = None, *, progress: OnProgress | None = None) -> Episodes:
    """Some keys (None: all) of an open reader in memory; its remarks become warnings. UserError for an unknown key,
    damaged data, more than the free memory, and any fault that `Episodes` finds."""
    view = _sound(reader, keys)
    steps = int(view.episode_ends[-1])
    check_fits(steps * sum(feature.size for feature in view.features.values()), f"{reader.source}: the data")
    arrays = {key: np.empty((steps, *feature.shape), feature.dtype) for key, feature in view.features.items()}
    for episode, start, rows, values in pieces(view, list(arrays), progress=progress):
        first = view.first_row(episode) + start
        for key, part in values.items():
            arrays[key][first : first + rows] = part
    for remark in reader.remarks:
        warnings.warn(f"{reader.source}: {remark}", stacklevel=2)
    facts = tuple(reader.episode_metadata(episode) for episode in range(len(reader.episode_ends)))
    return Episodes(arrays, reader.episode_ends, reader.source, reader.metadata, facts if any(facts) else ())


def _sound(reader: EpisodeReader, keys: Sequence[str] | None) -> EpisodeReader:
    """Some keys of a reader; UserError for an unknown one, or one that is unusable whatever its values."""
    view = reader if keys is None else EpisodeView(reader, keys)
    with refusing(reader.source):
        for key, feature in view.features.items():
            check_numbers(key, feature.shape, feature.dtype)
    return view


def write_episodes(
    path: Path | str,
    reader: EpisodeReader,
    format: str,
    *,
    keys: Sequence[str] | None = None,
    progress: OnProgress | None = None,
    **options: Any,
) -> None:
    """Write demonstrations a piece at a time; nothing appears at `path` before everything is on the disk. UserError for
    an unknown format or key, a key without numbers, a path that exists, a full disk, and as the reader.

    Args:
        path: file or folder, new; a replay buffer is a zip when the name ends in .zip.
        reader: where they come from: `open_episodes(...)` or `MemoryReader(episodes)`.
        format: one of `WRITTEN_FORMATS`.
        keys: the keys to write; None for all.
        progress: called with (steps so far, all steps).
        options: of the format's writer: `zarr_format` of zarr; `fps`, `images` of lerobot.
    """
    one_of("format", format, WRITTEN_FORMATS)
    imported(FORMATS[format].writer, path)(path, _sound(reader, keys), progress=progress, **options)
