"""A report on demonstrations, sound or not: what is in them and everything that is wrong."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.episodes import end_problems, length_problems, non_finite_problem, value_problems
from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.formats.recognise import recognised_format
from policy_accel.data.formats.replay_buffer import EpisodeFacts, set_facts
from policy_accel.data.formats.streaming import feature_problems, pieces
from policy_accel.data.readers import open_episodes
from policy_accel.data.statistics import KeyStatistics
from policy_accel.data.zarr_store import ReplayStore, missing_chunks, open_replay, read_array
from policy_accel.errors import UserError

SHORT_EPISODE = 16  # steps of one training window in the published recipe
_LONGEST_FACT = 300  # characters of a fact that are shown


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        text: the report for people, several lines.
        problems: what keeps the data from being trained on, one sentence each.
        remarks: what can be trained on but is probably a mistake, one sentence each.
    """

    text: str
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def inspect(path: Path | str, layout: Path | str | None = None) -> Inspection:
    """Look at demonstrations as far as they can be read, and list every problem instead of stopping at the first.

    Problems are all that `Episodes` refuses, and arrays that cannot be decoded. Remarks: chunks that are not stored,
    constant dimensions, episodes that are equal in every key, episodes shorter than a training window of 16 steps, and
    images that hold 8-bit values as floats. A replay buffer is looked at however unsound it is; a file of another
    format that cannot be opened, as one whose episodes hold different keys, is refused with that problem alone.

    Args:
        path: file or folder.
        layout: as `open_episodes` takes it.

    Raises:
        UserError: there is nothing to look at: missing path, no permission, damaged zip, no format that is known.
    """
    if layout is None and recognised_format(path) is None:
        with open_replay(path) as replay:
            return _inspect_replay(replay)
    with open_episodes(path, layout=layout) as reader:
        return _inspect_reader(reader)


def _inspect_replay(replay: ReplayStore) -> Inspection:
    problems: list[str] = []
    remarks: list[str] = []
    ends = _read(replay, "meta/episode_ends", problems, remarks)
    if ends is not None:
        faults = list(end_problems(ends))
        problems += faults
        ends = None if faults else ends.astype(np.int64)
    report = _Report(f"{replay.source}: {replay.layout}", ends, problems, remarks)
    lengths: dict[str, int] = {}
    for key in replay.keys:
        values = _read(replay, f"data/{key}", problems, remarks)
        if values is None:
            report.lines.append(f"  {key}: cannot be read")
            continue
        problems += value_problems(key, values, ends)
        if values.ndim:
            lengths[f"data/{key}"] = len(values)
        episodes = np.split(values, [] if ends is None else ends) if values.ndim else ()
        report.add(key, values.shape, values.dtype, enumerate(episodes))
    uneven = list(length_problems(lengths, ends))
    problems += uneven
    if not replay.keys:
        problems.append("there is no array below data/; a replay buffer needs at least data/action.")
    if ends is not None:
        try:
            read = EpisodeFacts(replay, len(ends))
            report.facts(set_facts(replay), (read[episode] for episode in range(len(ends))))
        except UserError as error:
            problems.append(str(error).removeprefix(f"{replay.source}: "))
    return report.finished(compare=not uneven)


def _inspect_reader(reader: EpisodeReader) -> Inspection:
    report = _Report(f"{reader.source}: {reader.layout}", reader.episode_ends, [], list(reader.remarks))
    readable = True
    for key, feature in reader.features.items():
        faults = list(feature_problems(key, feature))
        report.problems += faults
        values = () if faults else _noting(reader, key, report.problems)
        try:
            report.add(key, (int(reader.episode_ends[-1]), *feature.shape), feature.dtype, values)
        except UserError as error:
            readable = False
            report.problems.append(str(error).removeprefix(f"{reader.source}: "))
    report.facts(reader.metadata, (reader.episode_metadata(i) for i in range(len(reader.episode_ends))))
    return report.finished(compare=readable)


def _noting(reader: EpisodeReader, key: str, problems: list[str]) -> Iterator[tuple[int, np.ndarray]]:
    """Episode and values of every piece of a key; the first value that is not finite becomes a problem."""
    noted = False
    for piece in pieces(reader, [key], finite=False):
        first = reader.first_row(piece.episode) + piece.start
        if not noted and (problem := non_finite_problem(key, piece.values[key], reader.episode_ends, first)):
            problems.append(problem)
            noted = True
        yield piece.episode, piece.values[key]


class _Report:
    """The lines of an inspection while it goes on."""

    def __init__(self, title: str, ends: np.ndarray | None, problems: list[str], remarks: list[str]) -> None:
        self.ends, self.problems, self.remarks = ends, problems, remarks
        self.lines = [title, _episode_line(ends)]
        self._digests = [hashlib.blake2b() for _ in ([] if ends is None else ends)]

    def add(self, key: str, shape: tuple[int, ...], dtype: np.dtype, values: Iterable[tuple[int, np.ndarray]]) -> None:
        """One key [N, ...]: its values with the episode that they belong to."""
        self.lines.append(f"  {key}: {list(shape)} {dtype}")
        numbers = len(shape) > 0 and 0 not in shape and dtype.kind in "biuf"
        statistics = KeyStatistics(shape[1:], dtype) if numbers else None
        for episode, rows in values:
            if episode < len(self._digests):
                self._digests[episode].update(np.ascontiguousarray(rows).data)
            if statistics is not None and len(rows):
                statistics.add(rows)
        if statistics is not None:
            self.lines += statistics.lines()
            self.remarks += statistics.doubtful(key)

    def facts(self, metadata: dict[str, Any], episodes: Iterable[dict[str, Any]]) -> None:
        """Facts about the set and, of those about the episodes, filters and tasks."""
        for name, value in metadata.items():
            self.lines.append(f"  {name}: {_shortened(json.dumps(value))}")
        filters: Counter[str] = Counter()
        tasks: Counter[str] = Counter()
        for facts in episodes:
            filters.update(facts.get("filters", ()))
            tasks.update([str(facts["task"])] if "task" in facts else [])
        if filters:
            listed = ", ".join(f"{name} ({count})" for name, count in sorted(filters.items()))
            self.lines.append(f"  filters: {listed} episodes")
        if tasks:
            listed = ", ".join(f"{_shortened(name)} ({count})" for name, count in tasks.most_common(8))
            self.lines.append(f"  tasks: {listed} episodes" + (", ..." if len(tasks) > 8 else ""))

    def finished(self, *, compare: bool) -> Inspection:
        """The report; `compare` says whether episodes can be compared with each other."""
        if self.ends is not None:
            digests = [digest.digest() for digest in self._digests] if compare else []
            self.remarks += _doubtful_episodes(self.ends, digests)
        self.lines += [f"remark: {remark}" for remark in self.remarks]
        self.lines += [f"problem: {problem}" for problem in self.problems] or ["no problem found"]
        return Inspection("\n".join(self.lines), tuple(self.problems), tuple(self.remarks))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_FACT else f"{text[:_LONGEST_FACT]}... ({len(text)} characters)"


def _read(replay: ReplayStore, name: str, problems: list[str], remarks: list[str]) -> np.ndarray | None:
    try:
        values = read_array(replay, name)
        missing = missing_chunks(replay, name)
    except UserError as error:
        problems.append(str(error).removeprefix(f"{replay.source}: "))
        return None
    if missing:
        remarks.append(missing)
    return values


def _episode_line(ends: np.ndarray | None) -> str:
    if ends is None:
        return "episodes: unknown"
    lengths = np.diff(ends, prepend=0)
    return (
        f"episodes: {len(ends)}, steps: {ends[-1]}, "
        f"steps per episode: {lengths.min()} min, {np.median(lengths):g} median, {lengths.max()} max"
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
