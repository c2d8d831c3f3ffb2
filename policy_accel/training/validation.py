"""The averaged network on the same samples and noise every time: its loss, and its loss at each level of noise.

A mean over all levels hides most of what is learnt: late in training it moves at few of them. All levels together cost
1,024 rows of forward passes, which is little more than an update of 256 samples takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion import Batch, Objective, Repetition, squared_errors
from policy_accel.diffusion.timesteps import Number, TimestepDistribution
from policy_accel.training.loss import predict
from policy_accel.training.randomness import named_generator, validation_generators
from policy_accel.training.task import Task
from policy_accel.training.update import Update

LEVELS, SAMPLES = 16, 64
DRAWS = 1 << 16
PUREST = -20.0
"""The log SNR that stands for less, as of pure noise, whose own is minus infinity."""


@dataclass(frozen=True)
class GivenTimes(TimestepDistribution):
    """All of the same `times` [M] for every sample."""

    times: Tensor
    timesteps: int | None

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """`times` in every row of `shape`, [B, M]; nothing is drawn."""
        return self.times.expand(shape)


def at_levels(objective: Objective) -> tuple[Objective, list[float]]:
    """What validation trains on, with each sample at every level, and the log SNR of the levels, noisiest first.

    They are the middles of `LEVELS` equally probable parts of the plain distribution of times, fewer where there are
    fewer times.
    """
    plain = objective.plain().to("cpu")
    drawn = plain.times.draw((DRAWS,), torch.Generator().manual_seed(0))
    middles = (torch.arange(LEVELS) + 0.5) * (DRAWS / LEVELS)
    times = drawn[plain.process.log_snr_at(drawn).argsort()][middles.long()].unique_consecutive()
    log_snr = plain.process.log_snr_at(times).clamp(min=PUREST).tolist()
    repetition = Repetition(len(times), coupling="independent")
    return replace(plain, times=GivenTimes(times, plain.process.timesteps), repetition=repetition), log_snr


class Validation:
    """Measures the averaged network of an update; nothing waits for the device.

    Args:
        task: the data; held-out ones give the loss, and training ones the levels where none are held out.
        update: has the network and its precision.
        seed: of the noise.
        batch_size: rows that go through the network at once.
    """

    def __init__(self, task: Task, update: Update, seed: int, batch_size: int) -> None:
        self.task, self.update, self.seed, self.batch_size = task, update, seed, batch_size
        self.device = update.feed.order.device
        objective, self.log_snr = at_levels(task.objective)
        self.objective = objective.to(update.device)

    def take(self, step: int, *, loss: bool, levels: bool) -> None:
        """Take the loss after `step` updates, where samples are held out, and the losses by level for the log."""
        if loss and self.task.validation_samples:
            self.update.log.validated(step, self.loss())
        if levels:
            self.update.log.levels = self.losses_by_level()

    def loss(self) -> Tensor:
        """See `Update.validation_loss`."""
        indices = torch.arange(self.task.validation_samples, device=self.device)
        batches = (self.task.validation_batch(part) for part in indices.split(self.batch_size))
        return self.update.validation_loss(batches, self.seed)

    @torch.no_grad()
    def losses_by_level(self) -> Tensor:
        """Mean loss at each level, as validation weighs it, [levels] on the device."""
        update, ranks, levels = self.update, self.update.ranks, len(self.log_snr)
        time, noise = validation_generators(self.seed, update.device)
        update.ema.refresh()
        total, samples = torch.zeros(levels, device=update.device), 0
        for number, batch in enumerate(self._spread()):
            noised = self.objective.draw(batch, time, noise)
            if number % ranks.count == ranks.rank:
                with update.autocast():
                    prediction = predict(update.ema.model, batch, noised)
                errors = squared_errors(prediction, noised.target, noised.counted)
                total += (errors if noised.weight is None else noised.weight * errors).view(-1, levels).sum(0)
            samples += len(batch.x0)
        return ranks.sum_(total) / samples

    def _spread(self) -> Iterator[Batch]:
        """The same samples every time, from all over the data."""
        task, generator = self.task, named_generator(self.seed, "levels", device=self.update.device)
        count = task.validation_samples or task.samples
        indices = torch.linspace(0, count - 1, min(SAMPLES, count), dtype=torch.float64).long().to(self.device)
        for part in indices.split(max(1, self.batch_size // len(self.log_snr))):
            if task.validation_samples:
                yield task.validation_batch(part)
            else:
                yield task.batch(part, task.draw(len(part), generator))

    def row(self, losses: list[float]) -> dict[str, Any]:
        """What the log keeps of `losses_by_level`: the finite ones under their log SNR, and of which data they are."""
        by_level = zip(self.log_snr, losses, strict=True)
        data = "held-out" if self.task.validation_samples else "training"
        return {"data": data, "loss": {f"{at:.2f}": loss for at, loss in by_level if math.isfinite(loss)}}
