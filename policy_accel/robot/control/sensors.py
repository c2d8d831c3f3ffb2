"""Observations with parts that are missing or not finite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from policy_accel.errors import UserError
from policy_accel.evaluation.episode import named_parts


class Sensors:
    """Lets the last good value stand in for a part of an observation that is None, missing, or not finite.

    Args:
        entries: of a dictionary of observations, those that matter; () for all.
        limit: observations in a row that a part may miss.

    Attributes:
        missing: observations so far of which a part was missing.
    """

    def __init__(self, entries: Collection[str], limit: int) -> None:
        self._entries, self._limit = entries, limit
        self.missing = 0
        self.reset()

    def reset(self) -> None:
        """Begin an episode, whose first observation has to be whole."""
        self._last: dict[str, np.ndarray] = {}
        self._ages: Counter[str] = Counter()

    def complete(self, observation: Any) -> Any:
        """A copy of an observation, numbers or a dictionary of arrays, with what is missing filled in.

        Raises:
            UserError: nothing stands in for a part, or for too long.
        """
        parts = {"": observation}
        if isinstance(observation, Mapping):
            parts = named_parts(observation)
        elif observation is None and self._last:
            parts = {}
        wanted = [name for name in parts if not name or not self._entries or name in self._entries]
        for name in {*self._last, *wanted}:
            value = parts.get(name)
            if value is not None and _finite(value):
                self._last[name] = np.array(value)
                del self._ages[name]
                continue
            self._ages[name] += 1
            what = f"the observation's '{name}'" if name else "the observation"
            if name not in self._last:
                raise UserError(f"{what} is missing or not finite, and an episode begins with a whole one.")
            if self._ages[name] > self._limit:
                raise UserError(
                    f"{what} is missing or not finite for the {self._ages[name]}th time in a row; look at its sensor, "
                    "or allow more with missing_limit."
                )
        self.missing += any(self._ages.values())
        return self._last.get("", {**parts, **self._last})


def _finite(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
