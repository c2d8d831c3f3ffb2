"""The batches of a run: gathered, noised, and handed out in order, the next one begun while this one trains."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion import Batch, Noised, predicted_sample
from policy_accel.diffusion.batch import Rows, condition_rows
from policy_accel.diffusion.deferred import Deferred
from policy_accel.diffusion.objective import At
from policy_accel.errors import naming
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.randomness import DataOrder, Generators
from policy_accel.training.ranks import ALONE, Ranks
from policy_accel.training.task import Task


@dataclass(frozen=True)
class Begun:
    """A batch whose noise is being chosen."""

    step: int
    batch: Batch
    noised: Deferred[Noised]

    def examples(self) -> tuple[Batch, Noised]:
        """The batch and what it is trained on; waits for the choice."""
        return self.batch, self.noised.result()


class Feed:
    """Gathers, noises and hands out the batch of each step.

    Where choosing the noise takes time on the host, that of the next batch is chosen while this one trains; where the
    samples do not lie on the device, a thread reads those of the next batch. Random numbers are drawn in the same order
    as without that, and `state` is that of before the batch that has not been handed out, so a run that is resumed
    draws the same numbers again.

    Args:
        task: data and objective, on the device.
        order: which samples make up the batch of a step.
        generators: of timesteps, noise and batches.
        steps: length of the run.
        average: the EMA model, for noise that is assigned around its prediction.
        ranks: the processes that share the batch.

    Attributes:
        rows: the only samples of each batch that are read, where they are not resident and the noise goes by rows; None
            for all.
    """

    def __init__(
        self,
        task: Task,
        order: DataOrder,
        generators: Generators,
        *,
        steps: int,
        average: Denoiser,
        ranks: Ranks = ALONE,
    ) -> None:
        self.task, self.order, self.generators, self.steps, self.average = task, order, generators, steps, average
        self.ranks = ranks
        own, objective = ranks.own(order.batch_size), task.objective
        examples = (own.stop - own.start) * (1 if objective.repetition.shares_path else objective.repetition.repeats)
        by_rows = ranks.count > 1 and not task.resident and objective.noise.goes_by_rows(examples)
        self.rows = Rows(own, order.batch_size) if by_rows else None
        self.ahead = task.objective.noise.ahead and not task.objective.times.learns
        self._next: Begun | None = None
        self._before_next: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._reader = None if task.resident else ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._reading: tuple[Future[Batch], Tensor] | None = None

    def __call__(self, step: int) -> Begun:
        """The batch of `step`, its noise chosen; starts on the next one."""
        begun = self._next or self.begin(step)
        assert begun.step == step
        self._next = None
        with naming("acceleration.noise"):
            begun.noised.fetch()
        if self.ahead and step + 1 < self.steps:
            self._before_next = self._draws(), self.task.objective.noise.state_dict()
            self._next = self.begin(step + 1)
        return begun

    def begin(self, step: int) -> Begun:
        """Draw for the batch of `step`, and let the host begin to choose its noise."""
        begun = self.drawn(self.samples(step), self.task.objective.at(step, self.steps))
        begun.noised.start()
        return begun

    def samples(self, step: int) -> Batch:
        """The clean samples of `step`."""
        if self._reader is None:
            return self._read(step)
        batch = self._read(step) if self._reading is None else self._reading[0].result()
        self._reading = None
        if step + 1 < self.steps:
            before = self.generators.batch.get_state()
            self._reading = self._reader.submit(self._read, step + 1), before
        return batch

    def _read(self, step: int) -> Batch:
        indices = self.order.batch(step)
        drawn = self.task.draw(len(indices), self.generators.batch)
        if self.rows is not None:
            indices, drawn = indices[self.rows.own], {name: part[self.rows.own] for name, part in drawn.items()}
        return self.task.batch(indices, drawn)

    def drawn(self, batch: Batch, at: At) -> Begun:
        """Draw times and noise for a batch: work of the device alone."""
        objective, generators = self.task.objective, self.generators
        if objective.noise.wants_prediction(at.step):
            batch = replace(batch, center=self._predicted_from_noise(batch))
        with naming("acceleration.noise"):
            noised = objective.begin(batch, generators.time, generators.noise, at, self.rows)
        return Begun(at.step, batch, noised)

    @torch.no_grad()
    def _predicted_from_noise(self, batch: Batch) -> Tensor:
        """The EMA model's sample at the noisiest time: nearly the mean of the data given the condition."""
        objective = self.task.objective
        noise = torch.randn(batch.x0.shape, device=batch.x0.device, generator=self.generators.noise)
        noisiest = objective.noisiest
        x_t = noisiest.sigma * noise
        model_input = noisiest.input_scale * x_t
        if batch.known is not None:
            clean = objective.data_scale * batch.x0
            x_t, model_input = (torch.where(batch.known, clean, part) for part in (x_t, model_input))
        own = self.ranks.own(x_t.shape[0])
        x_t, model_input = x_t[own], model_input[own]
        time = noisiest.told(x_t)
        prediction = self.average(model_input, time, self.average.encode(condition_rows(batch.condition, own)))
        return self.ranks.gather(predicted_sample(prediction, x_t, noisiest, objective.target) / objective.data_scale)

    def close(self) -> None:
        """Let go of what is under way."""
        if self._reader is not None:
            self._reader.shutdown(wait=False, cancel_futures=True)

    def _draws(self) -> dict[str, Tensor]:
        """State of the generators as of the next batch to be drawn for."""
        draws = self.generators.draws()
        return draws if self._reading is None else {**draws, "batch": self._reading[1]}

    def state(self) -> dict[str, Any]:
        """State of the generators and of the choice of noise, as of the next batch to be handed out.

        Only timesteps, noise and batches are drawn ahead: dropout draws from torch's own generators, which go on where
        they are.
        """
        draws, noise = self._draws(), self.task.objective.noise.state_dict()
        if self._next is not None and self._before_next is not None:
            draws, noise = self._before_next
        return {"generators": self.generators.state_dict(draws), "noise": noise}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self._next = self._reading = None
        self.generators.load_state_dict(state["generators"])
        if state.get("noise"):
            self.task.objective.noise.load_state_dict(state["noise"])
