"""A look at every data file: where the rows of each episode lie, and whether they are what info.json says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from policy_accel.data.formats.lerobot.catalogue import EpisodeRow
from policy_accel.data.formats.lerobot.layout import Column
from policy_accel.data.formats.lerobot.tables import as_stored, derived_columns, parquet_file, require_columns, to_array
from policy_accel.errors import UserError


@dataclass
class Scan:
    """What the data files hold.

    Attributes:
        starts: [E] int64, the first row of every episode in its file.
        tasks: [E] int64, the task_index of every episode's first step.
        irregular: the derived columns that are not what they must be.
        faults: place of an episode -> what is wrong with its rows.
        stored: name -> column as the tables have it, for those that are in one of them.
        refused: name -> why, where the first row is not what info.json says.
        left_out: name -> why, where the tables hold no such numbers.
        missing: name -> places of the episodes whose file lacks the column.
        strangers: files with rows of episodes that the table of episodes does not place there.
    """

    starts: np.ndarray
    tasks: np.ndarray
    irregular: set[str] = field(default_factory=set)
    faults: dict[int, str] = field(default_factory=dict)
    stored: dict[str, Column] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    missing: dict[str, list[int]] = field(default_factory=dict)
    strangers: list[Path] = field(default_factory=list)


def scan(
    episodes: Sequence[EpisodeRow], columns: Sequence[Column], fps: float, *, one_each: bool, rising: Sequence[str]
) -> Scan:
    """Read the derived columns of every data file and the first row of the others.

    Expected of step t of the episode at place p: frame_index t, timestamp t / fps (to the last bit of float32),
    episode_index p, index the number of steps before, task_index the same in the whole episode.

    Args:
        episodes: in order.
        columns: those to be found in the tables.
        fps: steps per second.
        one_each: whether every episode has a file of its own, as in v2.x.
        rising: the columns that must not fall within an episode.
    """
    lengths = np.array([episode.length for episode in episodes])
    result = Scan(np.zeros(len(episodes), np.int64), np.zeros(len(episodes), np.int64))
    offsets = np.cumsum(lengths) - lengths
    files: dict[Path, list[int]] = {}
    for place, episode in enumerate(episodes):
        files.setdefault(episode.data, []).append(place)
    for path, places in files.items():
        try:
            with parquet_file(path) as file:
                require_columns(path, file.schema_arrow.names, [] if one_each else ["episode_index"])
                found, rows = derived_columns(file, path), file.metadata.num_rows
                _look_at_columns(result, file, path, columns, places)
        except UserError as error:
            result.faults |= dict.fromkeys(places, str(error))
            continue
        first = episodes[places[0]].index
        runs = _runs(np.full(rows, first) if one_each else found["episode_index"])
        for place in places:
            try:
                begin = _begin(episodes[place], runs.pop(episodes[place].index, []))
                part = {name: values[begin : begin + lengths[place]] for name, values in found.items()}
                _check_order(episodes[place], part, rising)
            except UserError as error:
                result.faults[place] = str(error)
                continue
            result.starts[place] = begin
            result.tasks[place] = part["task_index"][0] if "task_index" in part else 0
            result.irregular |= _irregular(
                part, int(lengths[place]), place, int(offsets[place]), int(result.tasks[place]), fps
            )
        if runs:
            result.strangers.append(path)
    return result


def _look_at_columns(
    result: Scan, file: pq.ParquetFile, path: Path, columns: Iterable[Column], places: list[int]
) -> None:
    for column in columns:
        name = column.name
        if name not in file.schema_arrow.names:
            result.missing.setdefault(name, []).extend(places)
        elif name not in result.stored and name not in result.left_out:
            try:
                result.stored[name] = as_stored(column, file.schema_arrow.field(name).type)
                for batch in file.iter_batches(1, columns=[name]):
                    to_array(batch.column(0), result.stored[name], str(path))
                    break
            except ValueError as reason:
                result.left_out[name] = str(reason)
            except UserError as error:
                result.refused[name] = str(error)


def _runs(owners: np.ndarray) -> dict[float, list[tuple[int, int]]]:
    """The runs of equal values in [rows]: value -> (begin, end) of each."""
    changes = np.flatnonzero(owners[1:] != owners[:-1]) + 1
    runs: dict[float, list[tuple[int, int]]] = {}
    for begin, end in zip([0, *changes.tolist()], [*changes.tolist(), len(owners)], strict=True):
        if end > begin:
            runs.setdefault(owners[begin].item(), []).append((begin, end))
    return runs


def _begin(episode: EpisodeRow, runs: list[tuple[int, int]]) -> int:
    """The first row of an episode, which must lie together and be as long as the table of episodes says."""
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
    for name in rising:
        falls = np.flatnonzero(np.diff(part.get(name, np.zeros(1)).astype(np.float64)) < 0)
        if falls.size:
            step = int(falls[0])
            raise UserError(
                f"{episode.data}: time runs backwards in episode {episode.index}: {name} is {part[name][step]:g} at "
                f"its step {step} and {part[name][step + 1]:g} at the next; sort the rows by {name}."
            )


def _irregular(part: dict[str, np.ndarray], length: int, place: int, offset: int, task: int, fps: float) -> set[str]:
    """Which of the derived columns of an episode are not what they must be."""
    steps = np.arange(length)
    expected: dict[str, np.ndarray] = {
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(length, place),
        "index": offset + steps,
        "task_index": np.full(length, task),
    }
    return {name for name, found in part.items() if not _agree(found, expected[name])}


def _agree(found: np.ndarray, expected: np.ndarray) -> bool:
    if expected.dtype == np.float32:
        return bool(np.all(np.abs(found.astype(np.float32) - expected) <= np.spacing(expected)))
    return np.array_equal(found, expected)
