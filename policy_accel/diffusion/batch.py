"""What goes into an objective, clean samples, and what comes out, training examples."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from policy_accel.diffusion.learned_variance import LearnedVariance

Condition = Tensor | dict[str, Tensor]
"""What a denoiser is told: one tensor, or several by name, which the model encodes."""


@dataclass(frozen=True)
class Rows:
    """Which samples of a batch are at hand, where others have the rest: `own` of `whole`."""

    own: slice
    whole: int


@dataclass(frozen=True)
class Batch:
    """Clean samples x0 [B, *S] with what the denoiser is told about them.

    condition: what the denoiser sees beside x_t, or None.
    counted: bool, broadcastable to [B, *S]: where the loss counts; None counts everything.
    known: bool, broadcastable to [B, *S]: entries that are given (in-painting) and so never noised; None for none.
    groups: [B] int64, equal where samples have (nearly) the same condition; only noise assignment looks at it.
    center: [B, *S], a mean of x0 given the condition; noise is then assigned to x0 - center. Only for assignment.
    """

    x0: Tensor
    condition: Condition | None = None
    counted: Tensor | None = None
    known: Tensor | None = None
    groups: Tensor | None = None
    center: Tensor | None = None

    def rows(self, rows: slice) -> Batch:
        """The samples `rows` alone."""
        samples = len(self.x0)

        def part(values: Tensor | None) -> Tensor | None:
            return None if values is None else _rows(values, rows, samples, self.x0.ndim)

        counted, known, groups, center = (part(x) for x in (self.counted, self.known, self.groups, self.center))
        return Batch(self.x0[rows], condition_rows(self.condition, rows), counted, known, groups, center)

    def copy_(self, other: Batch) -> Batch:
        """Take the contents of a batch of the same shapes into this one's memory; returns itself."""
        for field in fields(self):
            _copy(getattr(self, field.name), getattr(other, field.name))
        return self


def condition_rows(condition: Condition | None, rows: slice) -> Condition | None:
    """The condition of the samples `rows`."""
    if isinstance(condition, dict):
        return {name: value[rows] for name, value in condition.items()}
    return None if condition is None else condition[rows]


def _rows(values: Tensor, rows: slice, of: int, ndim: int) -> Tensor:
    """Rows of what has one for each of `of` samples of `ndim` dimensions; what is the same for all of them stays."""
    return values[rows] if len(values) == of and values.ndim in (1, ndim) else values


def _copy(into: Condition | None, source: Condition | None) -> None:
    if isinstance(into, dict) and isinstance(source, dict):
        for name, value in into.items():
            value.copy_(source[name])
    elif isinstance(into, Tensor) and isinstance(source, Tensor) and into is not source:
        into.copy_(source)


@dataclass(frozen=True)
class Noised:
    """One training example per row: x_t [R, *S], what the network is told t [R], target [R, *S], weight [R] or None
    (all ones), model_input [R, *S] (x_t times the process' input scale), counted (bool, broadcastable to [R, *S]: where
    the loss counts; None counts everything), noise [R, *S]: the standard normal draws in x_t, variance: what
    the loss of a learned variance takes, None where there is none.

    `repeats` rows in a row belong to one clean sample, so R = B * repeats.
    """

    x_t: Tensor
    t: Tensor
    target: Tensor
    weight: Tensor | None
    model_input: Tensor
    counted: Tensor | None = None
    repeats: int = 1
    noise: Tensor | None = None
    variance: LearnedVariance | None = None

    def of_samples(self, samples: slice) -> Noised:
        """The examples of the clean samples `samples` alone."""
        rows = slice(samples.start * self.repeats, samples.stop * self.repeats)

        def part(values: Tensor | None) -> Tensor | None:
            return None if values is None else _rows(values, rows, len(self.x_t), self.x_t.ndim)

        return Noised(
            self.x_t[rows],
            self.t[rows],
            self.target[rows],
            part(self.weight),
            self.model_input[rows],
            part(self.counted),
            self.repeats,
            part(self.noise),
            self.variance,
        )


def repeat_rows(batch: Batch, repeats: int) -> Batch:
    """Every sample `repeats` times in a row, with all that belongs to it but the condition, which is encoded first."""
    if repeats == 1:
        return batch
    rows = batch.x0.shape[0]

    def several(part: Tensor | None) -> Tensor | None:
        if part is None or part.shape[0] != rows or (part.ndim < batch.x0.ndim and part is not batch.groups):
            return part
        return part.repeat_interleave(repeats, dim=0)

    x0 = batch.x0.repeat_interleave(repeats, dim=0)
    return Batch(
        x0, batch.condition, several(batch.counted), several(batch.known), several(batch.groups), several(batch.center)
    )
