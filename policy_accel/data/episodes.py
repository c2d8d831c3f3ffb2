"""The one in-memory form of demonstrations: every episode end to end, as in Diffusion Policy's replay buffer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policy_accel.errors import UserError

HORIZON = 16
"""Steps of a training window, unless a run says otherwise."""
LARGEST = 1e30
"""No value that anyone records is larger; flipped bits make such."""
_CHECK_BYTES = 64 * 2**20  # finite values are looked for in pieces, so that a large image array needs no second copy


@dataclass(frozen=True)
class Episodes:
    """Demonstrations, all episodes end to end along the time axis.

    Construction checks everything that `find_problems` knows and raises a `UserError` with the first fault.

    Attributes:
        arrays: key -> [N, ...], numbers or truth values; time (one control step per row) along axis 0.
        episode_ends: [E] int64, cumulative exclusive ends: episode i is rows `episode_ends[i-1]:episode_ends[i]`,
            and the last end is N.
        source: where the data came from, for messages.
        metadata: JSON-able facts about the whole set, as the environment it was recorded in.
        episode_metadata: one dictionary of JSON-able facts for each episode, or none at all.
    """

    arrays: dict[str, np.ndarray]
    episode_ends: np.ndarray
    source: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    episode_metadata: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        arrays = {key: np.asarray(values) for key, values in self.arrays.items()}
        ends = np.asarray(self.episode_ends)
        for problem in find_problems(arrays, ends):
            raise UserError(f"{self.source or 'episodes'}: {problem}")
        if self.episode_metadata and len(self.episode_metadata) != len(ends):
            raise UserError(
                f"{self.source or 'episodes'}: there are facts about {len(self.episode_metadata)} episodes and "
                f"{len(ends)} episodes; give one dictionary for each, or none."
            )
        object.__setattr__(self, "arrays", arrays)
        object.__setattr__(self, "episode_ends", ends.astype(np.int64))

    def __len__(self) -> int:
        """E, the number of episodes."""
        return len(self.episode_ends)

    @property
    def steps(self) -> int:
        """N, the number of control steps of all episodes together."""
        return int(self.episode_ends[-1])

    @property
    def starts(self) -> np.ndarray:
        """[E] int64, the first row of every episode."""
        return np.concatenate([[0], self.episode_ends[:-1]])

    @property
    def lengths(self) -> np.ndarray:
        """[E] int64, the number of steps of every episode."""
        return np.diff(self.episode_ends, prepend=0)


def find_problems(arrays: dict[str, np.ndarray], episode_ends: np.ndarray) -> Iterator[str]:
    """Yield one sentence for every fault that makes the data unusable: which key, which value, what to do.

    Args:
        arrays: key -> [N, ...].
        episode_ends: [E], cumulative exclusive ends.
    """
    faults = list(end_problems(episode_ends))
    ends = None if faults else episode_ends
    yield from faults
    yield from length_problems({f"data/{key}": len(values) for key, values in arrays.items() if values.ndim}, ends)
    if not arrays:
        yield "there is no array of data; give at least one, as data/action."
    for key, values in arrays.items():
        yield from value_problems(key, values, ends)


def end_problems(ends: np.ndarray, *, empty: bool = False) -> Iterator[str]:
    """What is wrong with `episode_ends` [E] in itself; with `empty`, an episode without a step is nothing wrong."""
    if ends.ndim != 1 or ends.size == 0:
        yield f"episode_ends has shape {ends.shape}; it needs one end for every episode, at least one."
        return
    if not whole(ends):
        yield f"episode_ends holds {ends.dtype} values that are not whole steps; store cumulative ends as int64."
        return
    if ends[0] < 0 or (ends[0] == 0 and not empty):
        yield f"episode_ends[0] is {ends[0]}, so episode 0 has no step; ends are cumulative and start above 0."
    falls = np.flatnonzero(ends[1:] < ends[:-1] if empty else ends[1:] <= ends[:-1])
    if falls.size:
        first = falls[0] + 1
        yield (
            f"episode_ends is not increasing: episode_ends[{first}] is {ends[first]} after {ends[first - 1]}; "
            "store the cumulative end of every episode, and leave empty episodes out."
        )


def whole(values: np.ndarray) -> bool:
    """Whether values are whole numbers, of whatever type, that an int64 holds."""
    if values.dtype.kind not in "iuf":
        return False
    fits = np.isfinite(values) & (np.abs(values.astype(np.float64)) < 2**62)
    return bool(np.all(fits & (values == np.round(values))))


def empty_episodes(ends: np.ndarray) -> dict[int, str]:
    """Faults of the episodes that have no step, by their cumulative ends [E]."""
    found = np.flatnonzero(np.diff(ends, prepend=0) == 0)
    return {int(episode): f"episode {episode} has no step; take it out of the file" for episode in found}


def compare_rows(rows: dict[str, int], ends: np.ndarray) -> tuple[dict[str, str], dict[int, str]]:
    """Which arrays cannot be used because of their number of rows, and which episodes.

    Args:
        rows: name of an array, as "data/action" -> its rows.
        ends: [E] int64, sound; its last is the number of rows that an array should have.

    Returns:
        Name -> why that array is left out, where others have the right number of rows. Episode -> why it cannot be
        read, where all arrays end alike and too early.

    Raises:
        ValueError: one sentence, when no array has the right number.
    """
    steps = int(ends[-1])
    if steps in rows.values() or not rows:
        return {
            name: f"{name} has {count} rows and the episodes have {steps} steps; it needs one row per step."
            for name, count in rows.items()
            if count != steps
        }, {}
    for problem in length_problems(rows, ends):
        count = next(iter(rows.values()))
        if len(set(rows.values())) > 1 or count > steps:
            raise ValueError(problem)
        return {}, {int(episode): problem for episode in np.flatnonzero(ends > count)}
    return {}, {}


def length_problems(lengths: dict[str, int], ends: np.ndarray | None) -> Iterator[str]:
    """What is wrong with the rows of every array, by its name, compared with each other and with sound `ends` [E]."""
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        yield f"the arrays differ in their number of steps ({listed}); every key needs one row per step."
    elif lengths and ends is not None:
        length = next(iter(lengths.values()))
        if ends[-1] > length:
            yield (
                f"episode_ends goes to step {ends[-1]}, past the data, which has {length} steps; "
                "the data is cut short: copy or record it again, or remove the last episodes from episode_ends."
            )
        elif ends[-1] < length:
            yield (
                f"episode_ends stops at step {ends[-1]}, but the data has {length} steps; "
                "add the end of the last episode or cut the data there."
            )


def value_problems(key: str, values: np.ndarray, ends: np.ndarray | None) -> Iterator[str]:
    """What is wrong with one array [N, ...] in itself; sound `ends` [E] tell in which episode."""
    if values.dtype.kind not in "biuf":
        yield f"data/{key} holds {values.dtype}, which are not numbers; store it as floats or integers."
    elif values.ndim == 0:
        yield f"data/{key} is a single value; its first axis must be time, one row per step."
    elif values.size == 0:
        yield f"data/{key} is empty (shape {values.shape}); remove the key or record it again."
    elif problem := non_finite_problem(key, values, ends):
        yield problem


def non_finite_problem(key: str, values: np.ndarray, ends: np.ndarray | None, first: int = 0) -> str:
    """One sentence on the first of the values [N, ...], rows from `first` on, that is not finite or beyond sense."""
    found = _first_non_finite(values) if values.dtype.kind == "f" else None
    if found is None:
        return ""
    step, name = first + found[0], found[1]
    where = f"step {step}"
    if ends is not None and step < ends[-1]:
        episode = int(np.searchsorted(ends, step, side="right"))
        where += f" (episode {episode}, its step {step - (int(ends[episode - 1]) if episode else 0)})"
    return f"data/{key} holds {name} at {where}; repair that value or leave the episode out (skip_bad_episodes=true)."


def _first_non_finite(values: np.ndarray) -> tuple[int, str] | None:
    rows = max(1, _CHECK_BYTES // max(1, values[0].nbytes))
    for begin in range(0, len(values), rows):
        piece = values[begin : begin + rows].reshape(-1, values[0].size)
        sound = np.abs(piece) < LARGEST
        if not sound.all():
            row, column = np.argwhere(~sound)[0]
            value = piece[row, column]
            return begin + int(row), "NaN" if np.isnan(value) else "Inf" if np.isinf(value) else f"{value:.3g}"
    return None
