"""A report on demonstrations, sound or not: what is in them and everything that is wrong."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from policy_accel.data.episodes import HORIZON, check_finite, check_numbers
from policy_accel.data.formats.base import EpisodeReader, filters_of, pieces
from policy_accel.data.readers import open_reader
from policy_accel.data.statistics import KeyStatistics, listed
from policy_accel.errors import UserError, refusing

_LONGEST_FACT = 300  # characters of a fact that are shown
_MOST = 20  # faults of episodes


class Inspection(NamedTuple):
    """What `inspect` found: the report for people, several lines, and sentences of it.

    Problems keep the data, or an episode, from being trained on. Remarks are on probable mistakes and what is left out.
    """

    text: str
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def inspect(path: Path | str, layout: Path | str | None = None) -> Inspection:
    """Look at demonstrations as far as they can be read, and list every problem instead of stopping at the first.

    Problems are episodes and keys that cannot be read, and values that are not finite. Remarks: those of the reader,
    constant dimensions, episodes that are equal in every key or shorter than a training window, and images that hold
    8-bit values as floats. A UserError says why nothing can be opened, by `open_episodes`' `layout` where it is given.
    """
    with open_reader(path, layout) as reader:
        return inspect_reader(reader)


def inspect_reader(reader: EpisodeReader) -> Inspection:
    """`inspect` for an open reader."""
    with suppress(UserError):  # which is told again when that key is read
        reader.ask_for(list(reader.features))
    ends, lengths = reader.episode_ends, np.diff(reader.episode_ends, prepend=0)
    counts = f"{lengths.min()} min, {np.median(lengths):g} median, {lengths.max()} max"
    lines = [
        f"{reader.source}: {reader.layout}",
        f"episodes: {len(ends)}, steps: {ends[-1]}, steps per episode: {counts}",
    ]
    faults = list(dict.fromkeys(fault for _, fault in sorted(reader.faults.items())))
    problems, remarks = [*reader.damaged.values(), *faults[:_MOST]], list(reader.remarks)
    if len(faults) > _MOST:
        problems.append(f"{len(faults) - _MOST} further faults of episodes.")
    if not reader.features:
        problems.append("holds no array of steps that can be used; give at least one, as action.")
    for key, why in reader.left_out.items():
        (problems if key.startswith("action") else remarks).append(f"{key} is left out: {why}")
    if reader.format == "robomimic" and (outside := [key for key in reader.features if key.startswith("extra.")]):
        remarks.append(
            f"{listed(outside)}: outside of the group of observations, obs/; --layout FILE.yaml names arrays as you "
            "like (docs/how_to/hdf5.md)."
        )
    digests = {episode: hashlib.blake2b() for episode in range(len(ends)) if episode not in reader.faults}
    comparable, sound = bool(reader.features), list(digests)
    for key, feature in reader.features.items():
        own = reader.own_name(key)
        named = "" if own == key else f"  (in the file: {own})"
        lines.append(f"  {key}: {[int(ends[-1]), *feature.shape]} {feature.dtype}{named}")
        statistics, unsound = KeyStatistics(), dict[str, str]()
        with reader.noting(unsound, "reading"), refusing(reader.source):
            check_numbers(key, feature.shape, feature.dtype)
            for episode, start, _, values in pieces(reader, [key], sound, finite=False):
                digests[episode].update(np.ascontiguousarray(values[key]).data)
                statistics.add(values[key])
                with reader.noting(unsound, "values"), refusing(reader.source):
                    check_finite(key, values[key], ends, reader.first_row(episode) + start)
        problems += unsound.values()
        comparable &= "reading" not in unsound
        if statistics.rows:
            lines += statistics.lines()
            remarks += statistics.doubtful(key)
    lines += [f"  {name}: {_shortened(json.dumps(value))}" for name, value in reader.metadata.items()]
    damaged: dict[str, str] = {}
    with reader.noting(damaged, "facts"):
        facts = [reader.episode_metadata(episode) for episode in range(len(ends))]
        filters = Counter(name for of_one in facts for name in filters_of(of_one))
        tasks = Counter(str(of_one["task"]) for of_one in facts if "task" in of_one)
        for name, counted in ("filters", sorted(filters.items())), ("tasks", tasks.most_common()):
            shown = listed([f"{_shortened(value)} ({count})" for value, count in counted])
            lines += [f"  {name}: {shown} episodes"] if counted else []
    problems += damaged.values()
    if (short := np.flatnonzero(lengths < HORIZON)).size:
        few = f"{short.size} of {len(lengths)} episodes {'is' if short.size == 1 else 'are'}"
        window, which = f"a training window of {HORIZON} steps (policy.horizon)", [f"{i} ({lengths[i]})" for i in short]
        remarks.append(f"{few} shorter than {window}, which leaves few windows or none: {listed(which)}.")
    firsts: dict[bytes, int] = {}
    for episode, digest in digests.items() if comparable else ():
        if (first := firsts.setdefault(digest.digest(), episode)) != episode:
            remarks.append(f"episode {episode} equals episode {first} in every key; keep one of them.")
    lines += [f"remark: {remark}" for remark in remarks]
    lines += [f"problem: {problem}" for problem in problems] or ["no problem found"]
    return Inspection("\n".join(lines), tuple(problems), tuple(remarks))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_FACT else f"{text[:_LONGEST_FACT]}... ({len(text)} characters)"
