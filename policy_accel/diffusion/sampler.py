"""Samples of an objective, drawn from noise or from a given start."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from policy_accel.diffusion.by_level import ByLevel, Denoiser
from policy_accel.diffusion.churn import Churn
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.grid import Grid
from policy_accel.diffusion.guidance import Guidance, GuidedPredictor
from policy_accel.diffusion.objective import Objective
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import (
    DETERMINISTIC_SAMPLERS,
    OWN_SAMPLERS,
    Known,
    Predictor,
    ddpm,
    heun,
    network_evaluations,
    start_scale,
    unchanged,
)


@dataclass(frozen=True)
class Sampler:
    """An objective with the settings by which it is sampled: `sampler(denoise, noise)` gives x_0.

    Args:
        objective: of the training; kept on the CPU, where reading a coefficient waits for nothing.
        config: sampler, steps and spacing or times, and bound of the predicted sample.

    Raises:
        UserError: settings out of range, or that do not go with the objective's process.
    """

    objective: Objective
    config: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        self.config.check(self.objective.process)
        objective, grid = self.objective.to("cpu"), self.grid
        process = objective.process.knowing({*grid.timesteps, *grid.next_timesteps, *self._raised})
        object.__setattr__(self, "objective", replace(objective, process=process))
        object.__setattr__(self, "config", deepcopy(self.config))

    @property
    def grid(self) -> Grid:
        """The times of the steps of a whole sample."""
        return self.config.grid(self.objective.process)

    @property
    def noise_count(self) -> int:
        """Draws of standard normal noise that one sample needs: x_T, and one for each stochastic step."""
        times = self.grid.timesteps
        if self.config.sampler == "ddpm":
            return 1 + len(times)
        return 1 + len(self._raised)

    @property
    def _churn(self) -> Churn:
        """What each step does, also where an edit takes some of them."""
        return self.config.churning(len(self.grid.timesteps))

    @property
    def _raised(self) -> list[float]:
        """Where the steps that churn takes back begin."""
        raised = (self._churn.raised(time) for time in self.grid.timesteps)
        return [time for time in raised if time is not None]

    def network_evaluations(self, strength: float = 1.0, resamplings: int = 1) -> int:
        """Evaluations of the network for one sample."""
        return network_evaluations(self.config.sampler, len(self._steps(strength, resamplings).timesteps))

    def levels(self, strength: float = 1.0, resamplings: int = 1) -> list[Level]:
        """The levels of the noise at which the network is asked for one sample, in turn."""
        asked: list[Level] = []

        def at(level: Level) -> Denoiser:
            asked.append(level)
            return lambda x, t: x

        state = torch.zeros(1, 1)
        start = None if strength == 1.0 else state
        self(ByLevel(at), itertools.repeat(state), start=start, strength=strength, resamplings=resamplings)
        return asked

    def denoiser(
        self, model: Callable[[Tensor, Tensor, Tensor | None], Tensor], condition: Tensor | None
    ) -> Denoiser | ByLevel:
        """`model(x, t, condition)` as it is asked for a sample, of (x, t) alone; `condition` is encoded."""
        return lambda x, t: model(x, t, condition)

    def __call__(
        self,
        denoise: Denoiser | ByLevel,
        noise: Tensor | Iterable[Tensor],
        *,
        known: Known = unchanged,
        start: Tensor | None = None,
        strength: float = 1.0,
        resamplings: int = 1,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """Sample x_0 [B, *S] in the data's units.

        With `start` it edits (Meng et al. 2022, SDEdit): it takes the last `strength` of the steps, from alpha start +
        sigma noise at their first level. At strength 1 that is the whole grid, and differs from sampling by alpha start
        in x_T: nothing for flow (alpha = 0), 0.006 start for the linear schedule of 1,000 times with a grid from its
        last one, start beside noise of deviation 80 for edm. A `leading` grid starts at a lower level, from which
        sampling would see pure noise, so that strength 1 keeps more there.

        Args:
            denoise: `denoise(model_input, time)`, the network.
            noise: standard normal: a tensor [B, noise_count, *S], or its draws [B, *S] one after the other, for which a
                whole tensor would be too large.
            known: puts the given entries into a state x of the data's units, `known(x, level)` with x = alpha x_0 +
                sigma epsilon at that level.
            start: clean samples [B, *S] to edit, in the data's units, or None.
            strength: share of the steps that an edit takes, in (0, 1].
            resamplings: how often each step is taken, from noise added anew (Lugmayr et al. 2022, algorithm 1), which
                brings what is painted in line with what is known around it. More than once takes the sampler ddpm, and
                draws one by one, as there are more of them than noise_count.
            guidance: what the sample is drawn to by the gradient of the network.

        Raises:
            ValueError: a strength outside (0, 1], or resamplings that the sampler cannot do.
        """
        process, scale, clip = self.objective.process, self.objective.data_scale, self.config.clip_sample
        draws = iter(noise.unbind(1) if isinstance(noise, Tensor) else noise)
        grid = self._steps(1.0 if start is None else strength, resamplings)
        if start is None:
            x = start_scale(process, grid) * next(draws)
        else:
            first = process.level(grid.timesteps[0])
            x = first.alpha * (scale * start) + first.sigma * next(draws)

        def known_scaled(x: Tensor, level: Level) -> Tensor:
            return x if known is unchanged else scale * known(x / scale, replace(level, sigma=level.sigma / scale))

        bound = None if clip is None else scale * clip
        predict = Predictor(denoise, self.objective.target, bound, known_scaled)
        if guidance is not None:
            predict = GuidedPredictor(**vars(predict), guidance=guidance, scale=scale)
        if self.config.sampler == "ddpm":
            x0 = ddpm(predict, x, process, grid, noise=draws, large=self.config.variance == "large")
        elif self.config.churn:
            x0 = heun(predict, x, process, grid, churn=self._churn, noise=draws)
        else:
            x0 = {**DETERMINISTIC_SAMPLERS, **OWN_SAMPLERS}[self.config.sampler](predict, x, process, grid)
        return x0 if scale == 1.0 else x0 / scale

    def _steps(self, strength: float, resamplings: int) -> Grid:
        """The last `strength` of the steps, rounded, at least one, each taken `resamplings` times."""
        if not 0.0 < strength <= 1.0:
            raise ValueError(f"strength={strength} must be above 0 and at most 1, which keeps nothing of the start.")
        if resamplings < 1:
            raise ValueError(f"resamplings={resamplings} must be at least 1, which takes each step once.")
        if resamplings > 1 and self.config.sampler != "ddpm":
            raise ValueError(
                f"resamplings={resamplings} adds noise again after each step, which only the sampler ddpm does, not "
                f"{self.config.sampler}; choose it, or 1."
            )
        grid = self.grid
        kept = max(1, round(strength * len(grid.timesteps)))
        parts = (grid.timesteps[-kept:], grid.next_timesteps[-kept:])
        return Grid(*(tuple(time for time in times for _ in range(resamplings)) for times in parts))
