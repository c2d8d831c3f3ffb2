"""The one in-memory form of demonstrations: every episode end to end, as in Diffusion Policy's replay buffer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policy_accel.errors import refusing

HORIZON = 16
"""Steps of a training window, unless a run says otherwise."""
LARGEST = 1e30  # no value that anyone records is larger; flipped bits make such


@dataclass(frozen=True)
class Episodes:
    """Demonstrations, all episodes end to end along the time axis. A fault in them raises a `UserError`.

    Attributes:
        arrays: key -> [N, ...], finite numbers or truth values; time (one control step per row) along axis 0.
        episode_ends: [E] int64, cumulative exclusive ends: episode i is rows `episode_ends[i-1]:episode_ends[i]`,
            and the last end is N.
        source: where the data came from, for messages.
        metadata: JSON-able facts about the whole set, as the environment it was recorded in.
        episode_metadata: one dictionary of JSON-able facts for each episode, or none at all.
        lengths: [E] int64, the number of steps of every episode.
        starts: [E] int64, the first row of every episode.
        steps: N, the number of control steps of all episodes together.
    """

    arrays: dict[str, np.ndarray]
    episode_ends: np.ndarray
    source: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    episode_metadata: tuple[dict[str, Any], ...] = ()
    lengths: np.ndarray = field(init=False)
    starts: np.ndarray = field(init=False)
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        arrays = {key: np.asarray(values) for key, values in self.arrays.items()}
        with refusing(self.source or "episodes"):
            ends, facts = sound_ends(np.asarray(self.episode_ends)), len(self.episode_metadata)
            if facts not in (0, len(ends)):
                raise ValueError(f"there are facts about {facts} of {len(ends)} episodes; give one each, or none.")
            if not arrays:
                raise ValueError("there is no array of data; give at least one, as data/action.")
            for key, values in arrays.items():
                if values.ndim == 0:
                    raise ValueError(f"data/{key} is a single value; its first axis must be time, one row per step.")
            left_out, faults = compare_rows({f"data/{key}": len(values) for key, values in arrays.items()}, ends)
            for problem in (*left_out.values(), *faults.values(), *empty_episodes(ends).values()):
                raise ValueError(problem)
            for key, values in arrays.items():
                check_numbers(key, values.shape[1:], values.dtype)
                check_finite(key, values, ends)
        own = {"lengths": (lengths := np.diff(ends, prepend=0)), "starts": ends - lengths, "steps": int(ends[-1])}
        self.__dict__.update(arrays=arrays, episode_ends=ends, **own)

    def __len__(self) -> int:
        """E, the number of episodes."""
        return len(self.episode_ends)


def sound_ends(ends: np.ndarray, name: str = "episode_ends") -> np.ndarray:
    """Cumulative exclusive ends [E] as int64; a ValueError says what is wrong with them. An episode may be empty."""
    if ends.ndim != 1 or ends.size == 0:
        raise ValueError(f"{name} has shape {ends.shape}; it needs one end for every episode, at least one.")
    if not whole(ends):
        raise ValueError(f"{name} holds {ends.dtype} values that are not whole steps; store cumulative ends as int64.")
    ends = ends.astype(np.int64)
    for episode in np.flatnonzero(np.diff(ends, prepend=0) < 0)[:1]:
        after = f" after {ends[episode - 1]}" if episode else ""
        remedy = "store the cumulative end of every episode."
        raise ValueError(f"{name} is not increasing: {name}[{episode}] is {ends[episode]}{after}; {remedy}")
    return ends


def whole(values: np.ndarray) -> bool:
    """Whether values are whole numbers, of whatever type, that an int64 holds."""
    if values.dtype.kind not in "iuf":
        return False
    return bool(np.all((np.abs(values.astype(np.float64)) < 2**62) & (values == np.round(values))))


def empty_episodes(ends: np.ndarray) -> dict[int, str]:
    """Faults of the episodes that have no step, by their cumulative ends [E]."""
    found = np.flatnonzero(np.diff(ends, prepend=0) == 0)
    return {int(episode): f"episode {episode} has no step; take it out of the file" for episode in found}


def compare_rows(rows: dict[str, int], ends: np.ndarray) -> tuple[dict[str, str], dict[int, str]]:
    """Compare the rows of arrays, by their names as "data/action", with sound ends [E]: name -> why that array is left
    out, where others have the right number of rows; episode -> why it cannot be read, where all arrays end alike and
    too early. ValueError where neither is so."""
    steps, counts = int(ends[-1]), set(rows.values())
    if not rows or steps in counts:
        why = f"rows and the episodes have {steps} steps; it needs one row per step."
        return {name: f"{name} has {count} {why}" for name, count in rows.items() if count != steps}, {}
    if len(counts) > 1 or max(counts) > steps:
        listed = ", ".join(f"{name} {count}" for name, count in rows.items())
        remedy = "every key needs one row per step, and episode_ends the end of the last episode"
        raise ValueError(f"episode_ends stops at step {steps}, but the data has other rows ({listed}); {remedy}.")
    (count,) = counts
    remedy = "the data is cut short: copy or record it again, or remove the last episodes from episode_ends."
    problem = f"episode_ends goes to step {steps}, past the data, which has {count} steps; {remedy}"
    return {}, {int(episode): problem for episode in np.flatnonzero(ends > count)}


def check_numbers(key: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise ValueError where the shape of a step and the dtype make a key unusable, whatever its values."""
    if dtype.kind not in "biuf":
        raise ValueError(f"data/{key} holds {dtype}, which are not numbers; store it as floats or integers.")
    if 0 in shape:
        raise ValueError(f"data/{key} holds no numbers ({list(shape)} a step); leave the key out or record it again.")


def check_finite(key: str, values: np.ndarray, ends: np.ndarray, first: int = 0) -> None:
    """Raise ValueError for the first of values [N, ...], rows from `first` on, that is not finite or beyond sense."""
    if values.dtype.kind != "f" or not values.size:
        return
    with np.errstate(invalid="ignore"):
        if float(values.min()) > -LARGEST and float(values.max()) < LARGEST:  # which NaN never is
            return
    rows = values.reshape(len(values), -1).astype(np.float64)
    row, column = np.argwhere(~(np.abs(rows) < LARGEST))[0]
    value, step = rows[row, column], first + int(row)
    name = "NaN" if np.isnan(value) else "Inf" if np.isinf(value) else f"{value:.3g}"
    episode = int(np.searchsorted(ends, step, side="right"))
    own = step - (int(ends[episode - 1]) if episode else 0)
    raise ValueError(
        f"data/{key} holds {name} at step {step} (episode {episode}, its step {own}); repair that value or leave the "
        "episode out (skip_bad_episodes=true)."
    )
