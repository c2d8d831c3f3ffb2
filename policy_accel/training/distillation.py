"""Self-distillation: a student makes in one or a few evaluations what its teacher makes in several.

Every clean sample of a batch has a row for each evaluation of the student, and one more for ordinary denoising. From
fresh noise the teacher draws a sample by its own sampler; the first row learns to give that sample from that very
noise, the others to give it from where the student's evaluations before have led. This is the knowledge distillation of
a sampler (Luhman & Luhman 2021), with the student's own later inputs. The noise is independent of data and condition.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from policy_accel.diffusion import Batch, Noised, Objective, Repetition, Sampler
from policy_accel.diffusion.noise import IndependentNoise
from policy_accel.diffusion.predictions import sample_coefficients
from policy_accel.diffusion.processes import Level, Process
from policy_accel.diffusion.samplers import Known, unchanged
from policy_accel.diffusion.timesteps import Number, TimestepDistribution
from policy_accel.errors import UserError, refuse_idle
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.lesson import Lesson

REDRAWS = 16
POSITIONS = 1000
LARGEST_GAIN = 10.0
SECOND = 0.26


@dataclass
class DistillationConfig:
    """Learning from a trained model what it samples in several evaluations; off without a teacher."""

    teacher: str = ""
    """Run directory of the teacher, whose average the student begins as; `policy-accel distill` gives it."""
    checkpoint: str = "last"
    """Of the teacher: last, best or a step."""
    steps: int = 8
    """Steps of the teacher's sampler for each sample, every one an evaluation in every update."""
    times: list[int | float] | None = None
    """The times of these steps in place of their number, as sampling.times."""
    sampler: str | None = None
    """Of the teacher; null for its own (ddim in place of ddpm, which is random)."""
    guidance: float | None = None
    """Of a teacher of images, which the student then needs no more; null for its own, as sampling.guidance."""
    refine_below: float = 0.6
    """Ordinary denoising is trained on times below this share of the sampling range, (0, 1]."""

    def check(self) -> None:
        """Raise UserError for values out of range, or without effect."""
        if not self.teacher:
            refuse_idle(self, "distillation", set(), "no teacher (distillation.teacher='')")
        if not 0.0 < self.refine_below <= 1.0:
            raise UserError(f"distillation.refine_below={self.refine_below} must be above 0 and at most 1.")
        if self.times is not None and self.steps != DistillationConfig.steps:
            raise UserError(
                f"distillation.steps={self.steps} has no effect with distillation.times={self.times}; leave it at "
                f"{DistillationConfig.steps}."
            )

    def sampler_of(self, teacher: Sampler) -> Sampler:
        """The sampler of the teacher as these settings have it.

        Raises:
            UserError: a sampler that draws noise at every step, or settings that do not go with the process.
        """
        own = "ddim" if teacher.config.sampler == "ddpm" else teacher.config.sampler
        config = replace(
            teacher.config.without_churn(), sampler=self.sampler or own, steps=self.steps, times=self.times
        )
        if self.guidance is not None:
            config = config.guided(self.guidance)
        try:
            sampler = replace(teacher, config=config)
        except UserError as error:
            raise UserError(str(error).replace("sampling.", "distillation.")) from error
        if sampler.noise_count > 1:
            raise UserError(
                f"distillation.sampler={self.sampler} draws noise at every step, and a sample has to follow from its "
                "first noise; choose ddim."
            )
        return sampler


def time_at(process: Process, share: float) -> float:
    """The time at a share of the sampling range of `process`, 1 the noisiest: 59 of 100 times for 0.6."""
    positions = process.timesteps or POSITIONS
    times = process.grid(positions).timesteps
    return times[min(positions - 1, round((1.0 - share) * positions))]


def student_times(objective: Objective, evaluations: int) -> list[float]:
    """The times at which a student is evaluated: the noisiest, and others evenly from a quarter of the range down.

    Where the prediction tells of the clean sample with an amplified error (epsilon: by sigma / alpha), the first is the
    noisiest time that amplifies it at most tenfold.
    """
    process = objective.process.to("cpu")
    times = process.grid(process.timesteps or POSITIONS).timesteps
    first = next(t for t in times if _gain(process.level(t), objective.target) <= LARGEST_GAIN)
    shares = [SECOND * (evaluations - place) / (evaluations - 1) for place in range(1, evaluations)]
    return [first, *(time_at(process, share) for share in shares)]


def _gain(level: Level, target: str) -> float:
    try:
        return abs(sample_coefficients(level, target)[1])
    except ValueError:  # it says nothing at all
        return float("inf")


@dataclass(frozen=True)
class RefiningTimes(TimestepDistribution):
    """The times of a student's rows: those of its evaluations, then some of the process' own that lie below a bound.

    Args:
        own: the process' own distribution.
        evaluated: [N] times of the student's evaluations, in the dtype of `own`.
        bound: largest time of the other rows.
    """

    own: TimestepDistribution
    evaluated: Tensor
    bound: float
    timesteps: int | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "timesteps", self.own.timesteps)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """Times [B, N + 1]; what lies above the bound is drawn anew, so often that next to nothing is left there."""
        samples, _ = shape
        t = self.own.draw((samples, 1), generator, progress)
        for _ in range(REDRAWS):
            t = torch.where(t <= self.bound, t, self.own.draw((samples, 1), generator, progress))
        return torch.cat([self.evaluated.expand(samples, -1), t.clamp(max=self.bound)], dim=1)


def distilled_objective(objective: Objective, sampler: Sampler, refine_below: float) -> Objective:
    """The objective of a student that is sampled by `sampler`."""
    process = objective.process
    own = process.times()
    times = sampler.grid.timesteps
    dtype = torch.float64 if own.timesteps is None else torch.int64
    refining = RefiningTimes(own, torch.tensor(times, dtype=dtype), time_at(process, refine_below))
    return Objective(
        process,
        objective.target,
        times=refining,
        noise=IndependentNoise(),
        repetition=Repetition(len(times) + 1, "independent"),
        data_scale=objective.data_scale,
        reduction=objective.reduction,
    )


class Distillation(Lesson):
    """The first rows of each sample learn the teacher's sample, see the module.

    Args:
        teacher: a trained network, in eval mode.
        teaching: draws its samples.
        student: draws those of the student; its times are what is taught.
        digest: of the teacher's weights.
    """

    def __init__(self, teacher: Denoiser, teaching: Sampler, student: Sampler, digest: str) -> None:
        self.teacher, self.teaching, self.student = teacher, teaching, student
        process, target, grid = student.objective.process, student.objective.target, student.grid
        self.levels = [process.level(t) for t in grid.timesteps]
        self.coefficients = [sample_coefficients(level, target) for level in self.levels]
        self.asks_weights = len(self.levels) > 1
        self.evaluations = teaching.network_evaluations() + student.network_evaluations() - 1
        self.fingerprint = hashlib.sha256(f"{digest} {teaching.config}".encode()).hexdigest()

    def to(self, device: torch.device) -> None:
        """See `Lesson.to`."""
        self.teacher.to(device)

    def __call__(self, batch: Batch, noised: Noised, model: Denoiser, average: Denoiser) -> Noised:
        """See `Lesson`; the average takes the student's steps that lead to its later evaluations."""
        assert noised.noise is not None
        noise = _of_samples(noised.noise, noised.repeats)[:, :1]
        clean = batch.known

        def known(x: Tensor, level: Level) -> Tensor:
            return torch.where(clean, batch.x0, x)  # type: ignore[arg-type]

        given: Known = unchanged if clean is None else known
        ask = self.teaching.denoiser(self.teacher, self.teacher.encode(batch.condition))
        taught = self.student.objective.data_scale * self.teaching(ask, noise, known=given)
        condition = average.encode(batch.condition) if self.asks_weights else None
        inputs: list[tuple[Tensor, Tensor]] = []

        def asked(x: Tensor, t: Tensor) -> Tensor:
            inputs.append((x, t))
            return taught if len(inputs) == len(self.levels) else average(x, t, condition)

        self.student(asked, noise, known=given)  # the result is nothing; what the network is asked on the way is all
        states = [x / level.input_scale for (x, _), level in zip(inputs, self.levels, strict=True)]
        targets = [(taught - of_x * x) / gain for x, (of_x, gain) in zip(states, self.coefficients, strict=True)]
        return replace(
            noised,
            x_t=_led(noised.x_t, states, noised.repeats),
            t=_led(noised.t, [t for _, t in inputs], noised.repeats),
            target=_led(noised.target, targets, noised.repeats),
            model_input=_led(noised.model_input, [x for x, _ in inputs], noised.repeats),
            weight=self._weight(noised),
        )

    def _weight(self, noised: Noised) -> Tensor | None:
        """Every row of the student's evaluations counts by the squared error of its clean sample."""
        weights = [gain**2 for _, gain in self.coefficients]
        if noised.weight is None and all(weight == 1.0 for weight in weights):
            return None
        rows = torch.ones(len(noised.t), dtype=torch.float64, device=noised.t.device)
        others = rows if noised.weight is None else noised.weight
        samples = len(noised.t) // noised.repeats
        return _led(others, [others.new_full((samples,), weight) for weight in weights], noised.repeats)


def _of_samples(rows: Tensor, repeats: int) -> Tensor:
    """Rows [B * repeats, ...] as [B, repeats, ...]."""
    split: Tensor = rows.unflatten(0, (-1, repeats))
    return split


def _led(rows: Tensor, first: list[Tensor], repeats: int) -> Tensor:
    """`rows` [B * repeats, ...] with `first` [B, ...] each in place of the first rows of every sample."""
    others = _of_samples(rows, repeats)[:, len(first) :]
    return torch.cat([torch.stack(first, dim=1).to(rows.dtype), others], dim=1).flatten(0, 1)
