"""A report on demonstrations, sound or not: what is in them and everything that is wrong."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy_accel.data.episodes import HORIZON, non_finite_problem
from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.formats.recognise import FLAGS
from policy_accel.data.formats.streaming import feature_problems, pieces
from policy_accel.data.readers import open_reader
from policy_accel.data.statistics import KeyStatistics
from policy_accel.errors import UserError

_LONGEST_FACT = 300  # characters of a fact that are shown
_LISTED = 8
_FAULTS = 20
_RECORDED = ("reward", "done", "terminated", "truncated", "success", "sim_state", "timestamp", "index", *FLAGS)
"""What recordings hold beside observations and actions; also as the end of a key, as episode_index."""


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        text: the report for people, several lines.
        problems: what keeps the data, or an episode, from being trained on, one sentence each.
        remarks: what can be trained on but is probably a mistake, or was left out, one sentence each.
    """

    text: str
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def inspect(path: Path | str, layout: Path | str | None = None) -> Inspection:
    """Look at demonstrations as far as they can be read, and list every problem instead of stopping at the first.

    Problems are episodes and keys that cannot be read, and values that are not finite. Remarks: those of the reader,
    constant dimensions, episodes that are equal in every key or shorter than a training window, and images that hold
    8-bit values as floats.

    Args:
        path: file or folder.
        layout: see `open_episodes`.

    Raises:
        UserError: the demonstrations cannot be opened.
    """
    with open_reader(path, layout) as reader:
        return inspect_reader(reader)


def inspect_reader(reader: EpisodeReader) -> Inspection:
    """See `inspect`."""
    with suppress(UserError):  # which is told again when that key is read
        reader.ask_for(list(reader.features))
    report = _Report(reader)
    for key in reader.features:
        report.look_at(key)
    return report.finished()


def usual_fields(reader: EpisodeReader) -> tuple[list[str], list[str], str | None]:
    """Keys that a policy may see, pictures, and the key of its actions, by their names; None where none is called so.

    `state` is the whole observation where there is one.
    """
    actions = [key for key in reader.features if key == "action" or key.startswith("action")]
    images = [key for key, feature in reader.features.items() if feature.is_image and not key.startswith("next_")]
    numbers = [
        key
        for key, feature in reader.features.items()
        if len(feature.shape) < 3 and not key.startswith(("action", "next", "extra.")) and not key.endswith(_RECORDED)
    ]
    return ["state"] if "state" in numbers else numbers, images, min(actions, key=len, default=None)


class _Report:
    """The lines of an inspection while it goes on."""

    def __init__(self, reader: EpisodeReader) -> None:
        self.reader, self.ends = reader, reader.episode_ends
        self.lines = [f"{reader.source}: {reader.layout}", _episode_line(self.ends)]
        faults = list(dict.fromkeys(reader.faults[episode] for episode in sorted(reader.faults)))
        more = [f"{len(faults) - _FAULTS} further faults of episodes."] if len(faults) > _FAULTS else []
        self.problems = [*reader.damaged.values(), *faults[:_FAULTS], *more]
        if not reader.features:
            self.problems.append("holds no array of steps that can be used; give at least one, as action.")
        self.remarks = list(reader.remarks)
        for key, why in reader.left_out.items():
            if key.startswith("action"):
                self.problems.append(f"{key} is left out: {why}")
            elif not any(why.rstrip(".") in remark for remark in reader.remarks):
                self.remarks.append(f"{key} is left out: {why}")
        self.sound = [episode for episode in range(len(self.ends)) if episode not in reader.faults]
        self._digests = [hashlib.blake2b() for _ in self.ends]
        self._comparable = bool(reader.features)

    def look_at(self, key: str) -> None:
        """The lines of one key: its shape, its name in the file where that is another, its statistics."""
        feature, own = self.reader.features[key], self.reader.own_name(key)
        named = "" if own == key else f"  (in the file: {own})"
        self.lines.append(f"  {key}: {[int(self.ends[-1]), *feature.shape]} {feature.dtype}{named}")
        faults = list(feature_problems(key, feature))
        self.problems += faults
        if faults:
            return
        statistics = KeyStatistics(feature.shape, feature.dtype)
        try:
            for episode, rows in self._pieces(key):
                self._digests[episode].update(np.ascontiguousarray(rows).data)
                statistics.add(rows)
        except UserError as error:
            self._comparable = False
            self.problems.append(str(error).removeprefix(f"{self.reader.source}: "))
        self.lines += statistics.lines()
        self.remarks += statistics.doubtful(key)

    def _pieces(self, key: str) -> Iterator[tuple[int, np.ndarray]]:
        """Episode and values of every piece; the first value that is not finite becomes a problem."""
        noted = False
        for piece in pieces(self.reader, [key], self.sound, finite=False):
            first = self.reader.first_row(piece.episode) + piece.start
            if not noted and (problem := non_finite_problem(key, piece.values[key], self.ends, first)):
                self.problems.append(problem)
                noted = True
            yield piece.episode, piece.values[key]

    def finished(self) -> Inspection:
        """The whole report."""
        self._facts()
        self.remarks += _short(np.diff(self.ends, prepend=0))
        if self._comparable:
            self.remarks += self._equal()
        self.lines += [f"remark: {remark}" for remark in self.remarks]
        self.lines += [f"problem: {problem}" for problem in self.problems] or ["no problem found"]
        return Inspection("\n".join(self.lines), tuple(self.problems), tuple(self.remarks))

    def _facts(self) -> None:
        """Facts about the set and, of those about the episodes, filters and tasks."""
        for name, value in self.reader.metadata.items():
            self.lines.append(f"  {name}: {_shortened(json.dumps(value))}")
        filters: Counter[str] = Counter()
        tasks: Counter[str] = Counter()
        try:
            for episode in range(len(self.ends)):
                facts = self.reader.episode_metadata(episode)
                filters.update(facts.get("filters", ()))
                tasks.update([str(facts["task"])] if "task" in facts else [])
        except UserError as error:
            self.problems.append(str(error).removeprefix(f"{self.reader.source}: "))
        if filters:
            listed = ", ".join(f"{name} ({count})" for name, count in sorted(filters.items()))
            self.lines.append(f"  filters: {listed} episodes")
        if tasks:
            listed = ", ".join(f"{_shortened(name)} ({count})" for name, count in tasks.most_common(_LISTED))
            self.lines.append(f"  tasks: {listed} episodes" + (", ..." if len(tasks) > _LISTED else ""))

    def _equal(self) -> Iterator[str]:
        seen: dict[bytes, int] = {}
        for episode in self.sound:
            first = seen.setdefault(self._digests[episode].digest(), episode)
            if first != episode:
                yield f"episode {episode} equals episode {first} in every key; keep one of them."


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_FACT else f"{text[:_LONGEST_FACT]}... ({len(text)} characters)"


def _episode_line(ends: np.ndarray) -> str:
    lengths = np.diff(ends, prepend=0)
    return (
        f"episodes: {len(ends)}, steps: {ends[-1]}, "
        f"steps per episode: {lengths.min()} min, {np.median(lengths):g} median, {lengths.max()} max"
    )


def _short(lengths: np.ndarray) -> Iterator[str]:
    short = np.flatnonzero(lengths < HORIZON)
    if short.size:
        listed = ", ".join(f"{i} ({lengths[i]})" for i in short[:_LISTED]) + (", ..." if short.size > _LISTED else "")
        are = "is" if short.size == 1 else "are"
        yield (
            f"{short.size} of {len(lengths)} episodes {are} shorter than a training window of {HORIZON} steps "
            f"(policy.horizon): {listed}; they give few windows or none."
        )
