"""Where the episodes of an NPZ end: told by their ends, by their lengths, or by flags of their last steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from policy_accel.data.episodes import end_problems, whole
from policy_accel.data.formats.recognise import ENDS, FLAGS, LENGTHS

STEPS = {
    *("states", "state", "observations", "observation", "obs", "images"),
    *("actions", "action", "rewards", "reward", "done", *FLAGS),
}
"""Arrays that are meant to have a row for every step."""


@dataclass(frozen=True)
class Member:
    """One array of the file, unread: its header."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def rows(self) -> int:
        """Size of the first axis; 0 for a single value."""
        return self.shape[0] if self.shape else 0


def find_ends(
    members: Mapping[str, Member], read: Callable[[str], np.ndarray], damaged: Mapping[str, str], remarks: list[str]
) -> np.ndarray:
    """Cumulative ends [E] int64; episodes may be empty.

    Args:
        members: name -> what there is.
        read: gives an array.
        damaged: name -> why it cannot be read.
        remarks: gets a sentence where the ends were made of flags.

    Raises:
        ValueError: one sentence, when nothing tells the ends, or something wrong.
        UserError: as `read`.
    """
    flags = [name for name in FLAGS if name in members]
    if told := {LENGTHS, ENDS} & damaged.keys():
        raise ValueError(damaged[min(told)])
    if LENGTHS in members:
        return _from_lengths(read(LENGTHS).reshape(-1), members)
    if ENDS in members:
        ends = read(ENDS)
        for problem in end_problems(ends, empty=True):
            raise ValueError(problem)
        return ends.astype(np.int64)
    if flags:
        return _from_flags({name: read(name) for name in flags}, remarks)
    listed = ", ".join(f"{name} {list(member.shape)}" for name, member in list(members.items())[:5])
    raise ValueError(
        f"holds demonstrations without the lengths of their episodes ({listed or 'no array'}); save it with {ENDS}, "
        f"the cumulative number of steps at the end of each, or {LENGTHS}."
    )


def _from_lengths(lengths: np.ndarray, members: Mapping[str, Member]) -> np.ndarray:
    if not lengths.size or not whole(lengths) or lengths.min() < 0:
        raise ValueError(
            f"{LENGTHS} is {lengths.dtype} {lengths[:8].tolist()}; it needs the number of steps of every episode, "
            "whole numbers from 0."
        )
    ends = np.cumsum(lengths.astype(np.int64))
    others = {name: member.rows for name, member in members.items() if name != LENGTHS}
    rows = {name: count for name, count in others.items() if name in STEPS} or others
    if ends[-1] not in rows.values():
        listed = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ValueError(
            f"{LENGTHS} adds up to {ends[-1]} steps, but the arrays have other rows ({listed}); correct {LENGTHS}."
        )
    return ends


def _from_flags(flags: Mapping[str, np.ndarray], remarks: list[str]) -> np.ndarray:
    steps, said = len(next(iter(flags.values()))), " or ".join(flags)
    for name, values in flags.items():
        if values.size != steps or not steps or not np.isin(values, (0, 1)).all():
            raise ValueError(
                f"{name} is {values.dtype} {list(values.shape)}; it needs 0 or 1 for every step, 1 at the end of an "
                f"episode; or add {ENDS}."
            )
    last = np.any([values.reshape(-1) != 0 for values in flags.values()], axis=0)
    if not last.any():
        raise ValueError(f"{said} is 1 nowhere, and tells no end of an episode; add {ENDS}.")
    ends = np.union1d(np.flatnonzero(last) + 1, [steps])
    lengths = np.diff(ends, prepend=0)
    rest = "" if last[-1] else f"; the last {lengths[-1]} steps have no end and are one of them"
    made = f"{len(ends)} of {lengths.min()} to {lengths.max()} steps{rest}"
    remarks.append(f"an episode ends where {said} is 1, which makes {made}.")
    return ends.astype(np.int64)
