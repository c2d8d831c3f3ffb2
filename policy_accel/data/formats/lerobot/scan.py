"""A look at every data file: where the rows of each episode lie, and of which types the columns are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from policy_accel.data.formats.lerobot.catalogue import EpisodeRow
from policy_accel.data.formats.lerobot.tables import derived_columns, parquet_file, require_columns
from policy_accel.errors import UserError


@dataclass
class Scan:
    """What the data files hold.

    Attributes:
        starts: [E] int64, the first row of every episode in its file.
        tasks: [E] int64, the task_index of every episode's first step.
        irregular: the derived columns that are not what they must be.
        faults: place of an episode -> what is wrong with its rows.
        types: column -> type in the tables -> places of the episodes whose file has it so.
        strangers: files with rows of episodes that the table of episodes does not place there.
    """

    starts: np.ndarray
    tasks: np.ndarray
    irregular: set[str] = field(default_factory=set)
    faults: dict[int, str] = field(default_factory=dict)
    types: dict[str, dict[pa.DataType, list[int]]] = field(default_factory=dict)
    strangers: list[Path] = field(default_factory=list)


def scan(episodes: Sequence[EpisodeRow], fps: float, *, one_each: bool, rising: Sequence[str]) -> Scan:
    """Read the derived columns of every data file and compare them with what they must be.

    Expected of step t of the episode at place p: frame_index t, timestamp t / fps (to the last bit of float32),
    episode_index p, index the number of steps before, task_index the same in the whole episode.

    Args:
        episodes: in order.
        fps: steps per second.
        one_each: whether every episode has a file of its own, as in v2.x.
        rising: the columns that must not fall within an episode.
    """
    result = Scan(np.zeros(len(episodes), np.int64), np.zeros(len(episodes), np.int64))
    offsets = np.cumsum([0, *(episode.length for episode in episodes)]).tolist()
    files: dict[Path, list[int]] = {}
    for place, episode in enumerate(episodes):
        files.setdefault(episode.data, []).append(place)
    for path, places in files.items():
        try:
            with parquet_file(path) as file:
                require_columns(path, file.schema_arrow.names, [] if one_each else ["episode_index"])
                found, rows = derived_columns(file, path), file.metadata.num_rows
                for column in file.schema_arrow:
                    result.types.setdefault(column.name, {}).setdefault(column.type, []).extend(places)
        except UserError as error:
            result.faults |= dict.fromkeys(places, str(error))
            continue
        owners = np.full(rows, episodes[places[0]].index) if one_each else found["episode_index"]
        runs = _runs(owners)
        for place in places:
            try:
                begin = _begin(episodes[place], runs.pop(episodes[place].index, []))
                part = {name: values[begin : begin + episodes[place].length] for name, values in found.items()}
                _check_order(episodes[place], part, rising)
            except UserError as error:
                result.faults[place] = str(error)
                continue
            result.starts[place], result.tasks[place] = begin, part.get("task_index", [0])[0]
            steps = np.arange(episodes[place].length)
            expected = {
                "timestamp": (steps / fps).astype(np.float32),
                "frame_index": steps,
                "episode_index": np.full_like(steps, place),
                "index": offsets[place] + steps,
                "task_index": np.full_like(steps, result.tasks[place]),
            }
            result.irregular |= {name for name, values in part.items() if not _agree(values, expected[name])}
        if runs:
            result.strangers.append(path)
    return result


def _runs(owners: np.ndarray) -> dict[float, list[tuple[int, int]]]:
    """The runs of equal values in [rows]: value -> (begin, end) of each."""
    bounds = [0, *(np.flatnonzero(owners[1:] != owners[:-1]) + 1).tolist(), len(owners)]
    runs: dict[float, list[tuple[int, int]]] = {}
    for begin, end in pairwise(bounds):
        if end > begin:
            runs.setdefault(owners[begin].item(), []).append((begin, end))
    return runs


def _begin(episode: EpisodeRow, runs: list[tuple[int, int]]) -> int:
    """The first row of an episode, whose rows must lie together and be as many as the table of episodes says."""
    count = sum(end - begin for begin, end in runs)
    if count != episode.length:
        raise UserError(
            f"{episode.data}: holds {count} steps of episode {episode.index}, and the table of episodes says "
            f"{episode.length}; correct its length there, or leave the episode out."
        )
    if len(runs) > 1:
        raise UserError(f"{episode.data}: the rows of episode {episode.index} lie apart; sort them by index.")
    return runs[0][0]


def _check_order(episode: EpisodeRow, part: dict[str, np.ndarray], rising: Sequence[str]) -> None:
    for name in (name for name in rising if name in part):
        falls = np.flatnonzero(part[name][1:] < part[name][:-1])
        if falls.size:
            before, after = part[name][falls[0] : falls[0] + 2]
            raise UserError(
                f"{episode.data}: time runs backwards in episode {episode.index}: {name} is {before:g} at its step "
                f"{falls[0]} and {after:g} at the next; sort the rows, or leave the episode out."
            )


def _agree(found: np.ndarray, expected: np.ndarray) -> bool:
    if expected.dtype == np.float32:
        return bool(np.all(np.abs(found.astype(np.float32) - expected) <= np.spacing(expected)))
    return np.array_equal(found, expected)
