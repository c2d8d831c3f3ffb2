"""Which times a batch is trained on. The baseline's distributions; others derive from `TimestepDistribution`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from policy_accel.diffusion.tables import moved

if TYPE_CHECKING:
    from policy_accel.diffusion.continuous import ContinuousProcess

Number = float | Tensor
"""A number of the host, or a 0-dim float64 tensor on the device, which a captured update reads anew at every replay."""


class TimestepDistribution(ABC):
    """Which times are trained on, and what the training core must know of the choice.

    Attributes:
        timesteps: number of discrete times that it draws from; None for continuous time.
        learns: whether it must be given the losses (`update`).
    """

    timesteps: int | None
    learns: bool = False

    @abstractmethod
    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """Times of `shape` ([B], or [B, M] for M times of each sample) on the generator's device; `progress` is the
        share of the run that is over."""

    def loss_weight(self, t: Tensor, progress: Number = 0.0) -> Tensor | None:
        """Weight of each time, float64 of t's shape, that gives the objective of uniform times back; None for none."""
        return None

    def to(self, device: torch.device | str) -> Self:
        """The same distribution with its tables on `device`; those that are there already are shared."""
        return moved(self, device)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Learn from the unweighted losses [R] of times t [R]."""

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint; empty where nothing is learnt."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""


@dataclass(frozen=True)
class UniformTimes(TimestepDistribution):
    """t ~ U{0 .. timesteps - 1} (Ho et al. 2020, algorithm 1)."""

    timesteps: int

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """Independent times, int64."""
        return torch.randint(self.timesteps, shape, device=generator.device, generator=generator)


@dataclass(frozen=True)
class ProcessTimes(TimestepDistribution):
    """The distribution of a continuous process itself (ln sigma normal for EDM, uniform for flow, ...)."""

    process: ContinuousProcess

    timesteps = None

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """Times in the process' own unit, float64."""
        return self.process.draw_times(shape, generator=generator, device=generator.device)
