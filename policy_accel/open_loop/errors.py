"""How far predicted actions are from demonstrated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policy_accel.data.statistics import never_changes


@dataclass(frozen=True)
class ActionStatistics:
    """The mean [A] of actions and their spread [A]: the standard deviation, NaN of a number that never changes."""

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, actions: np.ndarray, precision: np.ndarray | float) -> ActionStatistics:
        """Of actions [N, A], N at least 1, recorded as exactly as `policy_accel.policy.fields.precisions` says."""
        constant = never_changes(actions.min(0), actions.max(0), precision)
        return cls(actions.mean(0), np.where(constant, np.nan, actions.std(0)))


@dataclass(frozen=True)
class Demonstrated:
    """Demonstrated chunks, in the data's units, and the unit of errors.

    Args:
        actions: [W, S, A] float64.
        valid: [W, S] bool, false behind the end of an episode.
        executed: the first steps, which are executed before the next prediction; the summary is over those.
        spread: [A], the unit of each number's errors; NaN of one that has none.
    """

    actions: np.ndarray
    valid: np.ndarray
    executed: int
    spread: np.ndarray

    def errors(self, predicted: np.ndarray) -> dict[str, Any]:
        """Errors of predicted actions, which broadcast to [W, S, A]; JSON-able, null for what cannot be said.

        Returns:
            rmse, mae: [A], in the data's units, over the steps that are executed.
            relative: [A], rmse in units of the spread.
            error: the root of the mean square of `relative`.
            rmse_by_step: [S][A]; error_by_step: [S].
        """
        off = np.where(self.valid[:, :, None], predicted - self.actions, 0.0)
        counts = self.valid.sum(0).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            by_step = np.sqrt(np.square(off).sum(0) / counts[:, None])
            parts, total = off[:, : self.executed], counts[: self.executed].sum()
            rmse, mae = np.sqrt(np.square(parts).sum((0, 1)) / total), np.abs(parts).sum((0, 1)) / total
        varies = np.isfinite(self.spread)

        def together(relative: np.ndarray) -> Any:
            return jsonable(np.sqrt(np.square(relative[..., varies]).mean(-1)) if varies.any() else np.nan)

        return {
            "error": together(rmse / self.spread),
            "rmse": jsonable(rmse),
            "mae": jsonable(mae),
            "relative": jsonable(rmse / self.spread),
            "error_by_step": together(by_step / self.spread) if varies.any() else [None] * len(by_step),
            "rmse_by_step": jsonable(by_step),
        }


def jsonable(values: np.ndarray | float | Sequence[Any]) -> Any:
    """Numbers as lists, null where one is not finite."""
    if isinstance(values, np.ndarray) and values.ndim:
        return [jsonable(value) for value in values]
    return float(values) if np.isfinite(values) else None  # type: ignore[arg-type]
