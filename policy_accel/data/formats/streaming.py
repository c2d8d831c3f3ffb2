"""Moving demonstrations in pieces: bounded reads from any reader, the episodes to use, and the whole in memory."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from policy_accel.data.episodes import Episodes, check_finite, check_numbers
from policy_accel.data.formats.base import EpisodeReader, EpisodeView, Feature
from policy_accel.errors import UserError, did_you_mean, refusing
from policy_accel.memory import check_fits

OnProgress = Callable[[int, int], None]
"""Called with (steps so far, all steps)."""


Piece = tuple[int, int, int, dict[str, np.ndarray]]
"""An episode, start and rows: its steps [start, start + rows), counted from its first; key -> [rows, *shape]."""


def pieces(
    reader: EpisodeReader,
    keys: Sequence[str],
    episodes: Iterable[int] | None = None,
    *,
    piece_bytes: int = 8_000_000,
    finite: bool = True,
) -> Iterator[Piece]:
    """Every step of some episodes (None: all) in order, in pieces of at most about `piece_bytes` over all keys (but one
    step) that do not span two episodes.

    Raises:
        UserError: what the reader raises; values of another shape or dtype than announced; with `finite`, NaN and Inf.
    """
    lengths = np.diff(reader.episode_ends, prepend=0).tolist()
    rows = max(1, piece_bytes // max(1, sum(step_size(reader.features[key]) for key in keys)))
    for episode in range(len(lengths)) if episodes is None else episodes:
        file, number = reader.origin(episode)
        for start in range(0, lengths[episode], rows):
            count = min(rows, lengths[episode] - start)
            read = reader.read(episode, keys, start, start + count)
            with refusing(reader.source):
                for key in keys:
                    values, feature = read[key], reader.features[key]
                    if values.shape != (count, *feature.shape) or values.dtype != feature.dtype:
                        raise ValueError(
                            f"data/{key} of episode {number} is {list(values.shape)} {values.dtype} from its step "
                            f"{start} on instead of {[count, *feature.shape]} {feature.dtype}; record it again."
                        )
                    if finite:
                        check_finite(key, values, file.episode_ends, file.first_row(number) + start)
            yield episode, start, count, read


def step_size(feature: Feature) -> int:
    """Bytes of one step of a key."""
    return math.prod(feature.shape) * feature.dtype.itemsize


def gather(reader: EpisodeReader, keys: Sequence[str] | None = None, *, progress: OnProgress | None = None) -> Episodes:
    """Some keys (None: all) of an open reader in memory; its remarks become warnings.

    Raises:
        UserError: an unknown key; damaged data; more than the free memory; any fault that `Episodes` finds.
    """
    view = reader if keys is None else EpisodeView(reader, keys)
    check_features(view)
    steps = int(view.episode_ends[-1])
    check_fits(steps * sum(map(step_size, view.features.values())), f"{reader.source}: the data")
    arrays = {key: np.empty((steps, *feature.shape), feature.dtype) for key, feature in view.features.items()}
    for episode, start, rows, values in pieces(view, list(arrays)):
        first = view.first_row(episode) + start
        for key, part in values.items():
            arrays[key][first : first + rows] = part
        if progress is not None:
            progress(first + rows, steps)
    for remark in reader.remarks:
        warnings.warn(f"{reader.source}: {remark}", stacklevel=2)
    facts = tuple(reader.episode_metadata(episode) for episode in range(len(reader.episode_ends)))
    return Episodes(arrays, reader.episode_ends, reader.source, reader.metadata, facts if any(facts) else ())


def check_features(reader: EpisodeReader) -> None:
    """Raise UserError for the first key of a reader that is unusable whatever its values."""
    with refusing(reader.source):
        for key, feature in reader.features.items():
            check_numbers(key, feature.shape, feature.dtype)


def chosen_episodes(
    reader: EpisodeReader,
    episodes: Sequence[int | str] | None,
    *,
    filter_key: str | None = None,
    skip_bad: bool = False,
) -> EpisodeReader:
    """Of the episodes that carry a filter, those of these numbers, in this order, as `open_episodes` takes them.

    Raises:
        UserError: there is no such filter or episode; one has a fault and `skip_bad` is not set; none is left.
    """
    wanted = list(range(len(reader.episode_ends)))
    if filter_key is not None:
        filters = [reader.episode_metadata(episode).get("filters", ()) for episode in wanted]
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


def without_unreadable(reader: EpisodeReader, keys: Sequence[str] | None) -> EpisodeReader:
    """The episodes whose values of `keys` (None: all) are sound; all of them are read once for it.

    Raises:
        UserError: none is left.
    """
    for episode in range(len(reader.episode_ends)):
        try:
            for _ in pieces(reader, list(reader.features) if keys is None else keys, [episode]):
                pass
        except UserError as error:
            reader.faults[episode] = str(error).removeprefix(f"{reader.source}: ")
    return chosen_episodes(reader, None, skip_bad=True)


def _numbers(given: Sequence[int | str], count: int) -> list[int]:
    """Numbers of episodes, and ranges of them as "a:b", one by one; a ValueError says what is wrong with them."""
    found: list[int] = []
    for item in given:
        match = re.fullmatch(r"(\d+)|(\d*):(\d*)", str(item))
        if match is None:
            raise ValueError(f"episodes names '{item}'; give numbers from 0, or ranges as 0:{count}.")
        number, first, end = match.groups()
        some = [int(number)] if number else range(int(first or 0), int(end or count))
        if some and some[-1] >= count:
            raise ValueError(f"episodes names {item}; there are {count}, from 0 to {count - 1}.")
        found += some
    if not found or len(set(found)) < len(found):
        what = "names an episode twice" if found else "names no episode"
        raise ValueError(f"episodes={list(given)} {what}; give each number once, or null for all.")
    return found
