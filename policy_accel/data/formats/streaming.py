"""Moving demonstrations in pieces: bounded reads from any reader, the episodes to use, and the whole in memory."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from policy_accel.data.episodes import Episodes, non_finite_problem, unusable
from policy_accel.data.formats.base import EpisodeReader, EpisodeView, Feature, refusing
from policy_accel.errors import UserError, did_you_mean
from policy_accel.memory import check_fits

OnProgress = Callable[[int, int], None]


class Piece(NamedTuple):
    """Steps [start, start + rows) of an episode, counted from its first: key -> [rows, *shape]."""

    episode: int
    start: int
    rows: int
    values: dict[str, np.ndarray]


def pieces(
    reader: EpisodeReader,
    keys: Sequence[str],
    episodes: Iterable[int] | None = None,
    *,
    piece_bytes: int = 8_000_000,
    finite: bool = True,
) -> Iterator[Piece]:
    """Every step in order, in pieces of at most about `piece_bytes` (but one step) that do not span two episodes.

    Args:
        reader: an open reader.
        keys: the keys to read.
        episodes: the episodes to read, in this order; None for all.
        piece_bytes: bytes of a piece, over all keys.
        finite: whether NaN and Inf are refused.

    Raises:
        UserError: what the reader raises; values that are not finite, or of another shape or dtype than announced.
    """
    lengths = np.diff(reader.episode_ends, prepend=0).tolist()
    rows = max(1, piece_bytes // max(1, sum(step_size(reader.features[key]) for key in keys)))
    for episode in range(len(lengths)) if episodes is None else episodes:
        file, number = reader.origin(episode)
        for start in range(0, lengths[episode], rows):
            count = min(rows, lengths[episode] - start)
            read = reader.read(episode, keys, start, start + count)
            for key in keys:
                values, feature, problem = read[key], reader.features[key], ""
                if values.shape != (count, *feature.shape) or values.dtype != feature.dtype:
                    problem = (
                        f"data/{key} of episode {number} is {list(values.shape)} {values.dtype} from its step {start} "
                        f"on instead of {[count, *feature.shape]} {feature.dtype}; record it again."
                    )
                elif finite:
                    problem = non_finite_problem(key, values, file.episode_ends, file.first_row(number) + start)
                if problem:
                    raise UserError(f"{reader.source}: {problem}")
            yield Piece(episode, start, count, read)


def step_size(feature: Feature) -> int:
    """Bytes of one step of a key."""
    return math.prod(feature.shape) * feature.dtype.itemsize


def gather(reader: EpisodeReader, keys: Sequence[str] | None = None, *, progress: OnProgress | None = None) -> Episodes:
    """Some keys (None: all) of an open reader in memory; its remarks become warnings.

    Args:
        reader: an open reader.
        keys: the keys to read; None for all.
        progress: called with (steps so far, all steps).

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
    for key, feature in reader.features.items():
        if problem := unusable(key, feature.shape, feature.dtype):
            raise UserError(f"{reader.source}: {problem}")


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
    if bad and not skip_bad:
        raise UserError(
            f"{reader.source}: {reader.faults[bad[0]].rstrip('.')}; or leave such episodes out with "
            f"skip_bad_episodes=true ({len(bad)} of {len(wanted)})."
        )
    if not kept:
        raise UserError(f"{reader.source}: none of {len(wanted)} episodes is left; {reader.faults[bad[0]]}")
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
        for episode in (*some[:1], *some[-1:]):
            if episode >= count:
                raise ValueError(f"episodes names {episode}; there are {count}, from 0 to {count - 1}.")
        found += some
    if not found or len(set(found)) < len(found):
        what = "names an episode twice" if found else "names no episode"
        raise ValueError(f"episodes={list(given)} {what}; give each number once, or null for all.")
    return found
