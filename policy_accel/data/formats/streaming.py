"""Moving demonstrations in pieces: bounded reads from any reader, views of a part of it, and the whole in memory."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from policy_accel.data.episodes import Episodes, non_finite_problem, value_problems
from policy_accel.data.formats.base import EpisodeReader, Feature, check_keys
from policy_accel.errors import UserError, did_you_mean
from policy_accel.memory import check_fits

PIECE_BYTES = 8_000_000
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
    piece_bytes: int = PIECE_BYTES,
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
    lengths = np.diff(reader.episode_ends, prepend=0)
    step_bytes = sum(step_size(reader.features[key]) for key in keys)
    rows = max(1, piece_bytes // max(1, step_bytes))
    for episode in range(len(lengths)) if episodes is None else episodes:
        for start in range(0, int(lengths[episode]), rows):
            stop = min(start + rows, int(lengths[episode]))
            piece = Piece(episode, start, stop - start, reader.read(episode, keys, start, stop))
            file, number = reader.origin(episode)
            for key in keys:
                problem = _shape_problem(reader.features[key], piece, key, number)
                if not problem and finite:
                    first = file.first_row(number) + start
                    problem = non_finite_problem(key, piece.values[key], file.episode_ends, first)
                if problem:
                    raise UserError(f"{reader.source}: {problem}")
            yield piece


def step_size(feature: Feature) -> int:
    """Bytes of one step of a key."""
    return math.prod(feature.shape) * feature.dtype.itemsize


def _shape_problem(feature: Feature, piece: Piece, key: str, episode: int) -> str:
    values, expected = piece.values[key], (piece.rows, *feature.shape)
    if values.shape == expected and values.dtype == feature.dtype:
        return ""
    return (
        f"data/{key} of episode {episode} is {list(values.shape)} {values.dtype} from its step {piece.start} on "
        f"instead of {list(expected)} {feature.dtype}; record it again."
    )


def gather(reader: EpisodeReader, keys: Sequence[str] | None = None, *, progress: OnProgress | None = None) -> Episodes:
    """Everything in memory; the reader's remarks become warnings.

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


def feature_problems(key: str, feature: Feature) -> Iterator[str]:
    """What makes a key unusable whatever its values, one sentence each."""
    if 0 in feature.shape:
        yield f"data/{key} holds no numbers ({list(feature.shape)} a step); leave the key out or record it again."
    else:
        yield from value_problems(key, np.broadcast_to(np.zeros((), feature.dtype), (1, *feature.shape)), None)


def check_features(reader: EpisodeReader) -> None:
    """Raise UserError for the first key of a reader that is unusable whatever its values."""
    for key, feature in reader.features.items():
        for problem in feature_problems(key, feature):
            raise UserError(f"{reader.source}: {problem}")


class EpisodeView(EpisodeReader):
    """Some keys, or some episodes, of a reader, as a reader.

    Args:
        reader: an open reader, which the view closes.
        keys: the keys that it keeps; None for all.
        episodes: the episodes that it keeps, in the order wanted; None for all.

    Raises:
        UserError: an unknown key.
    """

    def __init__(
        self, reader: EpisodeReader, keys: Sequence[str] | None = None, episodes: Sequence[int] | None = None
    ) -> None:
        chosen = list(reader.features) if keys is None else list(keys)
        check_keys(reader, chosen)
        super().__init__(reader.source)
        self.reader, self.remarks = reader, reader.remarks
        self.left_out, self.damaged = reader.left_out, reader.damaged
        self.format, self.layout = reader.format, reader.layout
        self.metadata = reader.metadata
        self.features = {key: reader.features[key] for key in chosen}
        self.episodes = list(range(len(reader.episode_ends))) if episodes is None else list(episodes)
        self.faults = {i: reader.faults[kept] for i, kept in enumerate(self.episodes) if kept in reader.faults}
        self.episode_ends = np.cumsum(np.diff(reader.episode_ends, prepend=0)[self.episodes]).astype(np.int64)

    def close(self) -> None:
        """See `EpisodeReader`."""
        self.reader.close()

    def own_name(self, key: str) -> str:
        """See `EpisodeReader`."""
        return self.reader.own_name(key)

    def origin(self, episode: int) -> tuple[EpisodeReader, int]:
        """See `EpisodeReader`."""
        return self.reader.origin(self.episodes[episode])

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        return self.reader.episode_metadata(self.episodes[episode])

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        return self.reader.read(self.episodes[episode], keys, start, stop)


def filtered(reader: EpisodeReader, filter_key: str) -> EpisodeView:
    """The episodes whose "filters" name a filter key, as robomimic's masks do.

    Raises:
        UserError: no episode carries it (which filter keys there are).
    """
    filters = [reader.episode_metadata(episode).get("filters", ()) for episode in range(len(reader.episode_ends))]
    chosen = [episode for episode, names in enumerate(filters) if filter_key in names]
    if not chosen:
        known = {name for names in filters for name in names}
        remedy = did_you_mean(filter_key, known) if known else "it has no filters at all."
        raise UserError(f"{reader.source}: has no filter '{filter_key}'; {remedy}")
    return EpisodeView(reader, episodes=chosen)


def chosen_episodes(
    reader: EpisodeReader, episodes: Sequence[int | str] | None, *, skip_bad: bool = False
) -> EpisodeReader:
    """The episodes of these numbers, in this order, as `open_episodes` takes them; None: all.

    Raises:
        UserError: there is no such episode; one of them has a fault and `skip_bad` is not set; none is left.
    """
    count = len(reader.episode_ends)
    wanted = list(range(count)) if episodes is None else _numbers(reader, episodes)
    bad = [episode for episode in wanted if episode in reader.faults]
    if bad and not skip_bad:
        raise UserError(
            f"{reader.source}: {reader.faults[bad[0]].rstrip('.')}; or leave such episodes out with "
            f"skip_bad_episodes=true ({len(bad)} of {len(wanted)})."
        )
    reader.remarks += [f"episode {reader.origin(episode)[1]} is left out: {reader.faults[episode]}" for episode in bad]
    kept = [episode for episode in wanted if episode not in reader.faults]
    if not kept:
        raise UserError(f"{reader.source}: none of {len(wanted)} episodes is left; {reader.faults[bad[0]]}")
    return reader if kept == list(range(count)) else EpisodeView(reader, episodes=kept)


def without_unreadable(reader: EpisodeReader, keys: Sequence[str] | None) -> EpisodeReader:
    """The episodes whose values of `keys` (None: all) are sound; all of them are read once for it.

    Raises:
        UserError: none is left.
    """
    chosen = list(reader.features) if keys is None else list(keys)
    for episode in range(len(reader.episode_ends)):
        try:
            for _ in pieces(reader, chosen, [episode]):
                pass
        except UserError as error:
            reader.faults[episode] = str(error).removeprefix(f"{reader.source}: ")
    return chosen_episodes(reader, None, skip_bad=True)


def _numbers(reader: EpisodeReader, episodes: Sequence[int | str]) -> list[int]:
    """Numbers of episodes, and ranges of them as "a:b", one by one."""
    count = len(reader.episode_ends)
    found: list[int] = []
    for item in episodes:
        match = re.fullmatch(r"(\d+)|(\d*):(\d*)", str(item))
        if match is None:
            raise UserError(f"{reader.source}: episodes names '{item}'; give numbers from 0, or ranges as 0:{count}.")
        number, first, end = match.groups()
        some = [int(number)] if number else range(int(first or 0), int(end or count))
        beyond = [episode for episode in (*some[:1], *some[-1:]) if episode >= count]
        if beyond:
            raise UserError(f"{reader.source}: episodes names {beyond[0]}; there are {count}, from 0 to {count - 1}.")
        found += some
    if not found or len(set(found)) < len(found):
        what = "names an episode twice" if found else "names no episode"
        raise UserError(f"{reader.source}: episodes={list(episodes)} {what}; give each number once, or null for all.")
    return found
