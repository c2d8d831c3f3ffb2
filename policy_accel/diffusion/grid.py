"""The times at which a sampler evaluates the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from policy_accel.errors import did_you_mean

SPACINGS = ("trailing", "leading", "linspace")


@dataclass(frozen=True)
class Grid:
    """Times at which the denoiser is evaluated, noisy to clean, and the time that each step leads to (-1: clean).

    Integers for a discrete process, floats in the process' own unit for a continuous one.
    """

    timesteps: tuple[float, ...]
    next_timesteps: tuple[float, ...]

    @classmethod
    def of(cls, timesteps: Sequence[float]) -> Grid:
        """A grid whose steps lead from each time to the next one, and from the last to the clean sample.

        A time that is not below the one before is a restart: the step before it leads to the clean sample, to which a
        stochastic sampler adds noise anew, up to that time. This is Restart sampling (Xu et al. 2023, algorithm 1) with
        the lower end of the interval at no noise, and multistep consistency sampling (Song et al. 2023, algorithm 1) of
        what the steps before have made.
        """
        following = [*timesteps[1:], -1]
        return cls(tuple(timesteps), tuple(to if to < t else -1 for t, to in zip(timesteps, following, strict=True)))

    @property
    def restart(self) -> tuple[float, float] | None:
        """The first time that is not below the one before, behind it; None where all times fall."""
        return next((pair for pair in pairwise(self.timesteps) if pair[1] >= pair[0]), None)


def timestep_grid(timesteps: int, steps: int, spacing: str = SPACINGS[0]) -> Grid:
    """Choose `steps` of the `timesteps` training times (Lin et al. 2023, table 2; diffusers' rounding).

    `leading`: multiples of T // n from 0, never reaching T - 1. `trailing`: from T - 1 down in steps of T / n.
    `linspace`: evenly from T - 1 to 0. Steps lead to the next point of the grid; diffusers' DDIM instead always steps
    back by T // n, which misses its own next point on a linspace grid.

    Raises:
        ValueError: unknown spacing, or not 1 <= steps <= timesteps.
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps={steps} must lie between 1 and timesteps={timesteps}.")
    if spacing == "leading":
        return Grid.of([i * (timesteps // steps) for i in reversed(range(steps))])
    if spacing == "trailing":
        return Grid.of([round(timesteps - i * timesteps / steps) - 1 for i in range(steps)])
    if spacing == "linspace":
        stride = (timesteps - 1) / max(1, steps - 1)
        return Grid.of([round(i * stride) for i in reversed(range(steps))] if steps > 1 else [timesteps - 1])
    raise ValueError(f"spacing '{spacing}' is unknown; {did_you_mean(spacing, SPACINGS)}")
