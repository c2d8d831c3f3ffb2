"""How an objective draws times and noise, and how many for a sample. The baseline's laws; others plug in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from policy_accel.diffusion.batch import Batch
from policy_accel.errors import check_choice

if TYPE_CHECKING:
    from policy_accel.diffusion.continuous import ContinuousProcess

COUPLINGS = ("shared", "independent", "fresh")


class Times(Protocol):
    """Which times are trained on."""

    @property
    def timesteps(self) -> int | None:
        """Number of discrete times that it draws from; None for continuous time."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: float) -> Tensor:
        """Times of `shape` ([B], or [B, M] for M times of each sample) on the generator's device."""

    def loss_weight(self, t: Tensor, progress: float) -> Tensor | None:
        """Weight of each time that undoes the law, or None."""

    def to(self, device: torch.device | str) -> Times:
        """The same law with its tables on `device`."""


@dataclass(frozen=True)
class UniformTimes:
    """t ~ U{0 .. timesteps - 1} (Ho et al. 2020, algorithm 1)."""

    timesteps: int

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: float = 0.0) -> Tensor:
        """Independent times."""
        return torch.randint(self.timesteps, shape, device=generator.device, generator=generator)

    def loss_weight(self, t: Tensor, progress: float = 0.0) -> Tensor | None:
        """None: nothing to undo."""
        return None

    def to(self, device: torch.device | str) -> UniformTimes:
        """Itself: it has no tables."""
        return self


@dataclass(frozen=True)
class ProcessTimes:
    """The law of a continuous process itself (ln sigma normal for EDM, uniform for flow, ...)."""

    process: ContinuousProcess

    timesteps = None

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: float = 0.0) -> Tensor:
        """Times in the process' own unit, float64."""
        return self.process.draw_times(shape, generator=generator, device=generator.device)

    def loss_weight(self, t: Tensor, progress: float = 0.0) -> Tensor | None:
        """None: nothing to undo."""
        return None

    def to(self, device: torch.device | str) -> ProcessTimes:
        """Itself: it has no tables."""
        return self


class NoiseChoice(Protocol):
    """Which noise each sample gets."""

    def begin(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator, step: int) -> Chosen:
        """Start choosing for the rows of `batch`; `draw` gives an independent pool [R, *S] from `generator`."""


@dataclass(frozen=True)
class Chosen:
    """Noise that is being chosen: `result()` waits for it and gives (noise [R, *S], permutation [R] of the pool or
    None)."""

    result: Callable[[], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class IndependentNoise:
    """epsilon ~ N(0, I), whatever the sample: the baseline."""

    def begin(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator, step: int) -> Chosen:
        """Take the pool as it is."""
        noise = draw()
        return Chosen(lambda: (noise, None))


@dataclass(frozen=True)
class Path:
    """How many times of one clean sample are trained on in one update, and how their noises belong together.

    shared: one Karhunen-Loeve path for all times. independent: each time its own noise. fresh: each time its own clean
    sample (a batch `times_per_sample` times as large), the control at equal network evaluations.
    `evaluations` of the times are evaluated, a random subset for each sample (unbiased); None for all.
    """

    times_per_sample: int = 1
    coupling: str = "shared"
    evaluations: int | None = None

    def __post_init__(self) -> None:
        times, evaluations = self.times_per_sample, self.evaluations
        check_choice("coupling", self.coupling, COUPLINGS)
        if times < 1:
            raise ValueError(f"times_per_sample={times} must be at least 1.")
        if evaluations is not None and not 1 <= evaluations <= times:
            raise ValueError(f"evaluations={evaluations} must lie between 1 and times_per_sample={times}.")
        if evaluations is not None and self.coupling == "fresh":
            raise ValueError(
                f"evaluations={evaluations} leaves out times of a sample, and coupling=fresh has one for each; leave "
                "it unset."
            )

    @property
    def repeats(self) -> int:
        """Network evaluations for each clean sample."""
        return 1 if self.coupling == "fresh" else self.evaluations or self.times_per_sample

    @property
    def samples_factor(self) -> int:
        """Clean samples of an update, in units of the batch size."""
        return self.times_per_sample if self.coupling == "fresh" else 1
