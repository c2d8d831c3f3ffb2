"""Which arrays the episodes of an HDF5 set have, what they are, and where one differs from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from policy_accel.data.formats.base import Feature


class Series(NamedTuple):
    """An array with rows of steps: a step's value, and how many rows it has more than there are steps."""

    feature: Feature
    more: int

    def __str__(self) -> str:
        step = f"is {list(self.feature.shape)} {self.feature.dtype} a step"
        return f"{step} and has {self.more:+d} rows against the steps" if self.more else step


@dataclass
class Table:
    """What the arrays of all episodes are.

    Attributes:
        names: of the episodes, for messages.
        columns: path of an array -> episode -> what it is there, or why it cannot be used.
    """

    names: list[str]
    columns: dict[str, dict[int, Series | str]] = field(default_factory=dict)

    def add(self, episode: int, arrays: dict[str, Series | str]) -> None:
        """One episode with its arrays."""
        for path, what in arrays.items():
            self.columns.setdefault(path, {})[episode] = what

    def usual(self, path: str) -> Series | None:
        """What an array is in most episodes; None where it is nothing usable in any."""
        kinds = Counter(
            what for what in self.columns[path].values() if isinstance(what, Series) and what.more in (0, 1)
        )
        return max(kinds, key=lambda what: (kinds[what], -what.more), default=None)

    def problems(self, path: str, episodes: Collection[int]) -> dict[int, str]:
        """Episode -> how an array differs there from the usual, one sentence without the end."""
        column, usual = self.columns[path], self.usual(path)
        if usual is None:
            return {episode: f"{path} of {self.names[episode]} {what}" for episode, what in column.items()}
        example = next((self.names[episode] for episode in episodes if column.get(episode) == usual), "another")
        found = {}
        for episode in episodes:
            what, name = column.get(episode), self.names[episode]
            if what is None:
                found[episode] = f"{name} has no {path}, which {example} has"
            elif what != usual:
                found[episode] = f"{path} of {name} {what}, that of {example} {usual}"
        return found

    def out_of_step(self, paths: Collection[str], episodes: Collection[int]) -> dict[int, str]:
        """Episodes in which most of some arrays have another length than usual: their count of steps is wrong."""
        usual = {path: self.usual(path) for path in paths}
        found = {}
        for episode in episodes:
            rows = {path: what for path in paths if isinstance(what := self.columns[path].get(episode), Series)}
            odd = [path for path, what in rows.items() if (kind := usual[path]) and kind.more != what.more]
            if odd and 2 * len(odd) > len(rows) - 1:
                found[episode] = f"{odd[0]} of {self.names[episode]} {rows[odd[0]]}, as most of its arrays"
        return found
