"""What the denoiser is trained on: noised input, time, target and weight, made together so that they always agree."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce

import torch
from torch import Tensor

from policy_accel.diffusion.batch import Batch, Noised, Rows, repeat_rows
from policy_accel.diffusion.deferred import Deferred
from policy_accel.diffusion.karhunen_loeve import KarhunenLoeveProcess
from policy_accel.diffusion.learned_variance import LearnedVariance
from policy_accel.diffusion.momentum import weight_cap
from policy_accel.diffusion.noise import IndependentNoise, Noise, NoiseChoice
from policy_accel.diffusion.predictions import edm_coefficients
from policy_accel.diffusion.processes import Level, Process, per_sample
from policy_accel.diffusion.repetition import Repetition
from policy_accel.diffusion.timesteps import Number, TimestepDistribution
from policy_accel.errors import check_choice, did_you_mean

REDUCTIONS = ("mean", "sum")


def check_target(target: str, process: Process) -> str:
    """Return `target` when the process can be trained on it, else raise ValueError."""
    if target not in process.targets:
        raise ValueError(f"target '{target}' does not go with this process; {did_you_mean(target, process.targets)}")
    return target


def make_noised(
    process: Process,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    target: str,
    known: Tensor | None = None,
    weight: Tensor | None = None,
) -> Noised:
    """Diffuse x0 [R, *S] with noise [R, *S] at t [R] and form what the denoiser must predict.

    `epsilon`: the noise (`negative_epsilon`: its negative). `sample`: x0. `v`: alpha_t epsilon - sigma_t x0 (Salimans &
    Ho 2022, section 4). `flow`: epsilon - x0. `edm`: (x0 - c_skip x_t) / c_out (Karras et al. 2022, equation 8).
    `known`: bool, broadcastable to [R, *S]; given entries (in-painting) stay clean, and unscaled for the network.
    """
    at = process.coefficients(t)
    x_t = process.diffuse(x0, noise, t)
    if known is not None:
        x_t = torch.where(known, x0, x_t)
    if target == "epsilon":
        wanted = noise
    elif target == "negative_epsilon":
        wanted = -noise
    elif target == "sample":
        wanted = x0
    elif target == "flow":
        wanted = noise - x0
    elif target == "v":
        wanted = per_sample(at.alpha, x0) * noise - per_sample(at.sigma, x0) * x0
    else:
        c_skip, c_out = edm_coefficients(at.sigma, at.sigma_data)
        wanted = (x0 - per_sample(c_skip, x0) * x_t) / per_sample(c_out, x0)
    model_input = per_sample(at.input_scale, x_t) * x_t
    if known is not None:
        model_input = torch.where(known, x0, model_input)
    return Noised(x_t, at.time, wanted, weight, model_input, noise=noise)


def _check(objective: Objective) -> None:
    """Raise ValueError unless the parts of an objective go together."""
    process, repetition, target = objective.process, objective.repetition, objective.target
    check_target(target, process)
    check_choice("reduction", objective.reduction, REDUCTIONS)
    if not 0 < objective.data_scale < math.inf:
        raise ValueError(f"data_scale={objective.data_scale} must be positive and finite.")
    if repetition.shares_path and not isinstance(process, KarhunenLoeveProcess):
        raise ValueError(
            f"repetition has times_per_sample={repetition.times_per_sample} with coupling=shared, which needs a "
            "KarhunenLoeveProcess; choose coupling=independent."
        )
    drawn, steps = objective.times.timesteps, process.timesteps
    if drawn != steps:
        raise ValueError(f"times draws from {_described(drawn)}, and the process has {_described(steps)}.")
    if objective.weights is not None and objective.weights.shape != (steps,):
        raise ValueError(
            f"weights is a table of {tuple(objective.weights.shape)} weights, and the process has {_described(steps)}; "
            "give one for each."
        )
    if objective.cap_warmup < 0:
        raise ValueError(f"cap_warmup={objective.cap_warmup} must not be negative.")
    if objective.cap_warmup and target not in process.capped_targets:
        others = " or ".join(process.capped_targets)
        raise ValueError(
            f"cap_warmup={objective.cap_warmup} caps a loss weight that target={target} does not have here; set it to "
            f"0{others and f', or choose {others}'}."
        )


def _described(timesteps: int | None) -> str:
    return "continuous time" if timesteps is None else f"{timesteps} discrete times"


@dataclass(frozen=True)
class At:
    """Where in a run a batch is drawn.

    step: number of the update, from 0; only what is chosen once and for all depends on it (see `Objective.phase`).
    progress: share of the run that is over, in [0, 1].
    cap: FDM's cap on the loss weight, or None for none.
    """

    step: int = 0
    progress: Number = 0.0
    cap: Number | None = None


@dataclass(frozen=True)
class Objective:
    """Denoising objective: a process and a target, with the choices of timestep, noise and weight.

    Args:
        process: forward process.
        target: what the denoiser predicts.
        times: distribution of the times; None for the process' own (uniform where time is discrete).
        noise: which noise each sample gets.
        repetition: times per sample.
        weights: [T] float64 on the loss by time, or None. Discrete processes only.
        cap_warmup: updates over which FDM's cap on the loss weight grows until it is gone; 0 for no cap.
        data_scale: factor on the data while they are diffused, undone after sampling (Immiscible Diffusion's "image
            scaling").
        variance: of the reverse steps, for a network that learns it as well; None for one that does not.
        reduction: of the loss over the values of a sample, mean or sum; over samples it is the mean.

    Raises:
        ValueError: parts that do not go together.
    """

    process: Process
    target: str = "epsilon"
    times: TimestepDistribution = field(default=None)  # type: ignore[assignment]
    noise: NoiseChoice = field(default_factory=IndependentNoise)
    repetition: Repetition = field(default_factory=Repetition)
    weights: Tensor | None = None
    cap_warmup: int = 0
    data_scale: float = 1.0
    variance: LearnedVariance | None = None
    reduction: str = REDUCTIONS[0]

    def __post_init__(self) -> None:
        if self.times is None:
            object.__setattr__(self, "times", self.process.times())
        _check(self)

    def to(self, device: torch.device | str) -> Objective:
        """The same objective with its tables on `device`."""
        weights = None if self.weights is None else self.weights.to(device)
        variance = None if self.variance is None else self.variance.to(device)
        process, times = self.process.to(device), self.times.to(device)
        return replace(self, process=process, times=times, weights=weights, variance=variance)

    def plain(self) -> Objective:
        """The same process, target and data scale with uniform times, independent noise and no extra weight: for
        validation, whose loss is then comparable among all methods that leave those three alone."""
        return Objective(self.process, self.target, times=self.process.validation_times(), data_scale=self.data_scale)

    def loss_factor(self, noised: Noised) -> float:
        """What the mean squared error of `noised` is multiplied by to be this objective's loss: 1 for reduction=mean,
        the number of values of a sample for sum."""
        return float(noised.target[0].numel()) if self.reduction == "sum" else 1.0

    def at(self, step: int, steps: int) -> At:
        """Where update number `step` of `steps` stands, in numbers of the host."""
        return At(step, step / steps, self._cap(step))

    def phase(self, step: int) -> Hashable:
        """What depends on the step other than through the numbers of `At`: it changes a few times in a run."""
        return self.noise.phase(step), self._cap(step) is None

    def _cap(self, step: int) -> float | None:
        return weight_cap(step, self.cap_warmup) if self.cap_warmup else None

    def draw(
        self,
        batch: Batch,
        time_generator: torch.Generator,
        noise_generator: torch.Generator,
        *,
        step: int = 0,
        progress: float = 0.0,
    ) -> Noised:
        """Draw times and noise for a batch and noise all but its known entries, see `begin`."""
        at = At(step, progress, self._cap(step))
        return self.begin(batch, time_generator, noise_generator, at).result()

    def begin(
        self,
        batch: Batch,
        time_generator: torch.Generator,
        noise_generator: torch.Generator,
        at: At,
        rows: Rows | None = None,
    ) -> Deferred[Noised]:
        """Do all the drawing for a batch now; the result waits for the choice of noise.

        Args:
            batch: clean samples.
            time_generator, noise_generator: on the samples' device.
            at: where in the run.
            rows: which samples of the whole batch these are; times and noise are drawn for all of it. The noise must go
                by rows then (`NoiseChoice.goes_by_rows`).
        """
        if self.data_scale != 1.0:
            center = None if batch.center is None else self.data_scale * batch.center
            batch = replace(batch, x0=self.data_scale * batch.x0, center=center)
        rows = rows or Rows(slice(None), len(batch.x0))
        times, repeats = self._draw_times(rows.whole, time_generator, at.progress), self.repetition.repeats
        t, repeated = times[rows.own], repeat_rows(batch, repeats)
        process = self.process
        if self.repetition.shares_path and isinstance(process, KarhunenLoeveProcess):
            shape = (rows.whole, *batch.x0.shape[1:])
            epsilon = process.draw_path_noise(shape, times, noise_generator, dtype=batch.x0.dtype)[rows.own]

            # A path belongs to its times: rows of the pool (times and noises together) are what is assigned.
            def moved(chosen: Noise) -> Noised:
                order = slice(None) if chosen.permutation is None else chosen.permutation
                return self._noised(repeated, epsilon[order].flatten(0, 1), t[order].flatten(), at)

            return self.noise.begin(batch, lambda: epsilon[:, 0], noise_generator, at.step).then(moved)

        def pool() -> Tensor:
            x0 = repeated.x0
            shape = (rows.whole, repeats, *x0.shape[1:])
            drawn = torch.randn(shape, device=x0.device, dtype=x0.dtype, generator=noise_generator)
            return drawn[rows.own].flatten(0, 1)

        chosen = self.noise.begin(repeated, pool, noise_generator, at.step)
        return chosen.then(lambda chosen: self._noised(repeated, chosen.noise, t.flatten(), at))

    def _draw_times(self, samples: int, generator: torch.Generator, progress: Number) -> Tensor:
        """Times of the network evaluations: [samples], or [samples, repeats] where a sample has several."""
        times, repeats = self.repetition.times_of_a_sample, self.repetition.repeats
        t = self.times.draw((samples, times) if times > 1 else (samples,), generator, progress)
        if repeats < times:
            subset = torch.rand(t.shape, device=t.device, generator=generator).argsort(dim=1)[:, :repeats]
            t = t.gather(1, subset)
        return t

    def _noised(self, batch: Batch, noise: Tensor, t: Tensor, at: At) -> Noised:
        weight = self._weight(t, at)
        noised = make_noised(self.process, batch.x0, noise, t, self.target, batch.known, weight)
        return replace(noised, counted=batch.counted, repeats=self.repetition.repeats, variance=self.variance)

    def _weight(self, t: Tensor, at: At) -> Tensor | None:
        """Product of the weights that are in force, [R] float64, or None when there is none."""
        factors = (
            None if self.weights is None else self.weights[t],
            self.times.loss_weight(t, at.progress),
            self.process.loss_weight(t, self.target, at.cap),
        )
        in_force = [factor for factor in factors if factor is not None]
        return reduce(torch.mul, in_force) if in_force else None

    @cached_property
    def noisiest(self) -> Level:
        """The last of the discrete times; the first call waits for the device."""
        assert self.process.timesteps is not None
        return self.process.level(self.process.timesteps - 1)


def squared_errors(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of each row over its counted entries, [R] float32 (0 for a row without any)."""
    error = (prediction.float() - target.float()).square()
    if mask is None:
        return error.flatten(1).mean(1)
    counted = mask.to(error.dtype).expand_as(error).flatten(1)
    return (error.flatten(1) * counted).sum(1) / counted.sum(1).clamp(min=1.0)


def weighted_squared_error(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    of: Tensor | None = None,
) -> Tensor:
    """Mean of weight * (prediction - target)^2 over the masked part, a float32 scalar.

    prediction, target [R, *S]; weight [R]; mask broadcastable to [R, *S], True where the error counts. With no mask
    every element counts alike; with one the mean runs over the counted elements only. `of`: the number of elements to
    divide the sum by instead, 0-dim, where these rows are a part of a batch.
    """
    error = (prediction.float() - target.float()).square()
    if weight is not None:
        error = per_sample(weight, error) * error
    if mask is None:
        return error.mean() if of is None else error.sum() / of
    counted = mask.to(error.dtype).expand_as(error)
    return (error * counted).sum() / (counted.sum().clamp(min=1.0) if of is None else of)
