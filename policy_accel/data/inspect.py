"""A report on demonstrations, sound or not: what is in them and everything that is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy_accel.data.episodes import end_problems, length_problems, value_problems
from policy_accel.data.zarr_store import ReplayStore, missing_chunks, open_replay, read_array
from policy_accel.errors import UserError

SHORT_EPISODE = 16  # steps of one training window in the published recipe
_MOST_DIMENSIONS = 16  # a key with more gets one row for all of them
_CONSTANT = 1e-4  # range below which normalisers take a dimension for constant
_PIECE = 256  # steps looked at together, so that image arrays need no copy in floating point


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        text: the report for people, several lines.
        problems: what keeps the data from being trained on, one sentence each.
        remarks: what can be trained on but is hardly meant, one sentence each.
    """

    text: str
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def inspect(path: Path | str) -> Inspection:
    """Look at demonstrations as far as they can be read, and list every problem instead of stopping at the first.

    Problems are all that `Episodes` refuses, and arrays that cannot be decoded. Remarks: chunks that are not stored,
    constant dimensions, episodes that are equal in every key, episodes shorter than a training window of 16 steps, and
    images that hold 8-bit values as floats.

    Raises:
        UserError: there is nothing to look at: missing path, no permission, damaged zip, not a replay buffer.
    """
    with open_replay(path) as replay:
        problems: list[str] = []
        remarks: list[str] = []
        ends = _sound_ends(replay, problems, remarks)
        lines = [f"{replay.source}: {replay.layout}", _episode_line(ends)]
        digests = [hashlib.blake2b() for _ in ([] if ends is None else ends)]
        lengths: dict[str, int] = {}
        for key in replay.keys:
            values = _read(replay, f"data/{key}", problems, remarks)
            if values is None:
                lines.append(f"  {key}: cannot be read")
                continue
            lines.append(f"  {key}: {list(values.shape)} {values.dtype}")
            found = list(value_problems(key, values, ends))
            problems += found
            if values.ndim:
                lengths[key] = len(values)
                for digest, episode in zip(digests, np.split(values, [] if ends is None else ends), strict=False):
                    digest.update(episode.tobytes())
            if values.size and values.ndim and values.dtype.kind in "biuf":
                lines += _statistics(values)
                remarks += _doubtful(key, values)
    uneven = list(length_problems(lengths, ends))
    problems += uneven
    if not replay.keys:
        problems.append("there is no array below data/; a replay buffer needs at least data/action.")
    if ends is not None:
        remarks += _doubtful_episodes(ends, [] if uneven else [digest.digest() for digest in digests])
    lines += [f"remark: {remark}" for remark in remarks]
    lines += [f"problem: {problem}" for problem in problems] or ["no problem found"]
    return Inspection("\n".join(lines), tuple(problems), tuple(remarks))


def _sound_ends(replay: ReplayStore, problems: list[str], remarks: list[str]) -> np.ndarray | None:
    ends = _read(replay, "meta/episode_ends", problems, remarks)
    if ends is None:
        return None
    faults = list(end_problems(ends))
    problems += faults
    return None if faults else ends.astype(np.int64)


def _read(replay: ReplayStore, name: str, problems: list[str], remarks: list[str]) -> np.ndarray | None:
    try:
        values = read_array(replay, name)
        missing, total = missing_chunks(replay, name)
    except UserError as error:
        problems.append(str(error).removeprefix(f"{replay.source}: "))
        return None
    if missing:
        remarks.append(
            f"{name}: {missing} of {total} chunks are not stored and read as the fill value; "
            "if that is not on purpose, copy the file again."
        )
    return values


def _episode_line(ends: np.ndarray | None) -> str:
    if ends is None:
        return "episodes: unknown"
    lengths = np.diff(ends, prepend=0)
    return (
        f"episodes: {len(ends)}, steps: {ends[-1]}, "
        f"steps per episode: {lengths.min()} min, {np.median(lengths):g} median, {lengths.max()} max"
    )


def _statistics(values: np.ndarray) -> Iterator[str]:
    """Minimum, maximum and mean of the finite values, for the key and for each of its dimensions if they are few."""
    flat = values.reshape(len(values), -1)
    pieces = [flat[begin : begin + _PIECE] for begin in range(0, len(flat), _PIECE)]
    with np.errstate(invalid="ignore", over="ignore"):
        if flat.shape[1] > _MOST_DIMENSIONS or flat.shape[1] == 1:
            totals = [(p.min(), p.max(), p.sum(dtype=np.float64)) for p in pieces]
            low, high, total = (np.array(column) for column in zip(*totals, strict=True))
            yield _row("all" if flat.shape[1] > 1 else "0", low.min(), high.max(), total.sum() / flat.size)
            return
        for dimension in range(flat.shape[1]):
            column = flat[:, dimension]
            yield _row(str(dimension), column.min(), column.max(), column.mean(dtype=np.float64))


def _row(name: str, low: float, high: float, mean: float) -> str:
    return f"    {name:>4}: min {low:<12.6g} max {high:<12.6g} mean {mean:.6g}"


def _doubtful(key: str, values: np.ndarray) -> Iterator[str]:
    """Things in one array that can be trained on but are hardly meant."""
    flat = values.reshape(len(values), -1)
    if values.ndim < 4 and len(values) > 1:
        spread = flat.max(0).astype(np.float64) - flat.min(0)
        constant = np.flatnonzero(spread < _CONSTANT)
        if constant.size:
            listed = ", ".join(map(str, constant[:8])) + (", ..." if constant.size > 8 else "")
            yield f"data/{key} never changes in dimension {listed}; leave it out if it carries nothing."
    if values.ndim == 4 and values.dtype.kind == "f":
        pieces = (flat[begin : begin + _PIECE] for begin in range(0, len(flat), _PIECE))
        if all(np.array_equal(p, p.round()) and p.min() >= 0 and p.max() <= 255 for p in pieces) and flat.max() > 1:
            yield (
                f"data/{key} holds 8-bit values as {values.dtype}, {values.dtype.itemsize} times the size; "
                "store images as uint8."
            )


def _doubtful_episodes(ends: np.ndarray, digests: list[bytes]) -> Iterator[str]:
    lengths = np.diff(ends, prepend=0)
    short = np.flatnonzero(lengths < SHORT_EPISODE)
    if short.size:
        listed = ", ".join(f"{i} ({lengths[i]})" for i in short[:8]) + (", ..." if short.size > 8 else "")
        yield (
            f"{short.size} of {len(ends)} episodes are shorter than a training window of {SHORT_EPISODE} steps: "
            f"{listed}; they give few windows or none."
        )
    seen: dict[bytes, int] = {}
    for episode, digest in enumerate(digests):
        first = seen.setdefault(digest, episode)
        if first != episode:
            yield f"episode {episode} equals episode {first} in every key; keep one of them."
