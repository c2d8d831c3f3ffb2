"""One update, from the indices of a batch to the averaged weights.

    indices -> task.batch -> Batch -> objective.begin -> Noised (-> lesson) -> model -> loss -> gradient -> AdamW -> EMA

The feed makes the part up to `Noised`, `Update.learn` the rest. Nothing in it waits for the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion import Batch, Noised
from policy_accel.diffusion.timesteps import Number
from policy_accel.errors import UserError, naming
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.captured import CapturedFeed
from policy_accel.training.ema import EMA, EMAConfig
from policy_accel.training.feed import Begun, Feed
from policy_accel.training.lesson import Lesson
from policy_accel.training.loss import denoising_loss, denoising_loss_and_errors, prediction_loss
from policy_accel.training.loss_scale import LossScale
from policy_accel.training.metrics import LossBuffer
from policy_accel.training.optimizer import (
    OptimizerConfig,
    build_optimizer,
    check_momentum_decay,
    step_values,
)
from policy_accel.training.precision import autocast
from policy_accel.training.randomness import DataOrder, Generators, validation_generators
from policy_accel.training.ranks import ALONE, Ranks
from policy_accel.training.shares import Share, shares_of
from policy_accel.training.step_numbers import StepNumbers
from policy_accel.training.task import Task
from policy_accel.training.weights import Weights

Losses = tuple[Tensor, Tensor | None]
"""The loss and, when clipping, the gradient norm."""


def _weights(model: Denoiser, ranks: Ranks, reduced: torch.dtype, *, sharded: bool) -> Weights:
    if not sharded:
        return Weights(model, ranks, reduced)
    from policy_accel.training.sharded_weights import ShardedWeights  # which loads seconds of torch

    return ShardedWeights(model, ranks, reduced)


def _check_lesson(lesson: Lesson, *, sharded: bool) -> None:
    if sharded and lesson.asks_weights:
        raise UserError(
            "training.shard=true leaves no process with the whole of the network, and the targets of this run are made "
            "by it; set training.shard=false."
        )


class Update:
    """The state that training moves (model, optimiser, EMA, generators) and the step that moves it.

    Args:
        task: already on the device of `generators`.
        order: which samples make up the batch of a step.
        optimizer: optimiser settings.
        ema: averaging settings.
        steps: length of the whole run, for the learning-rate schedule.
        precision: "fp32", "bf16" or "fp16" (autocast; weights, loss and coefficients stay float32).
        compiled: compile loss and gradient with torch.compile.
        captured: run as CUDA graphs.
        log_every: losses that are kept for the log until it reads them.
        ranks: the processes that share the batch.
        pieces: that the own rows go through the network in, one after the other.
        reduced: dtype in which the ranks exchange gradients.
        sharded: each rank keeps a share of the weights alone.
    """

    def __init__(
        self,
        task: Task,
        order: DataOrder,
        optimizer: OptimizerConfig,
        ema: EMAConfig,
        *,
        steps: int,
        generators: Generators,
        precision: str = "fp32",
        compiled: bool = False,
        captured: bool = False,
        log_every: int = 100,
        ranks: Ranks = ALONE,
        pieces: int = 1,
        reduced: torch.dtype = torch.float32,
        sharded: bool = False,
    ) -> None:
        self.task = task
        self.ranks, self.pieces = ranks, pieces
        self.config = optimizer
        self.steps = steps
        self.device = generators.device
        if task.lesson is not None:
            _check_lesson(task.lesson, sharded=sharded)
            task.lesson.check_rows(order.batch_size // (ranks.count * pieces) * task.objective.repetition.repeats)
            task.lesson.to(self.device)
        self.weights = _weights(task.model, ranks, reduced, sharded=sharded)
        self.optimizer = build_optimizer(optimizer, task.model, captured=captured)
        check_momentum_decay(optimizer, steps)
        self.parameters = self.optimizer.parameters
        self.ema = EMA(self.weights, ema)
        self.precision = precision
        self.scale = LossScale(self.device) if precision == "fp16" else None
        self.batch_size = order.batch_size
        self.log = LossBuffer(log_every, self.device, clipped=optimizer.clip_grad_norm is not None)
        self.times = task.objective.times
        loss: Any = denoising_loss_and_errors if self.times.learns else denoising_loss
        self.loss = torch.compile(loss) if compiled else loss
        shared: dict[str, Any] = {"steps": steps, "average": self.ema.model, "ranks": ranks}
        self.captured: CapturedFeed[Losses] | None = None
        if captured:
            self.numbers = StepNumbers(2 + len(self.ema.models()), self.device)
            self.captured = CapturedFeed(task, order, generators, learner=self._learn_captured, **shared)
        self.feed = self.captured or Feed(task, order, generators, **shared)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Within it the network computes in the run's precision."""
        return autocast(self.device, self.precision)

    def __call__(self, step: int) -> Losses:
        """Make the update with number `step` (from 0).

        Returns the loss and, when clipping, the gradient norm: scalars on the device, which the next update may
        overwrite.
        """
        lr, beta = step_values(self.config, step, self.steps)
        weights = self.ema.advance(self.batch_size)
        self.feed.generators.set_apart(self.ranks.rank, step)
        self.log.count += 1
        if self.captured is not None:
            self.numbers.write(lr, beta, *weights)
            return self.captured.update(step)
        return self.learn(self.feed(step), lr, beta, weights)

    def _learn_captured(self, begun: Begun) -> Losses:
        lr, beta, *weights = (self.numbers[place] for place in range(2 + len(self.ema.models())))
        return self.learn(begun, lr, beta, weights)

    def learn(self, begun: Begun, lr: Number, beta: Number, weights: Sequence[Number]) -> Losses:
        """Loss, gradient, optimiser and averages for a batch whose noise is chosen: work of the device alone.

        Args:
            begun: the batch.
            lr, beta: learning rate and first beta of the optimiser.
            weights: of the model in each average.
        """
        loss = self._differentiate(*begun.examples())
        norm = None
        if self.config.clip_grad_norm is not None:
            norm = self.weights.clip_gradients_(self.config.clip_grad_norm)
        self.optimizer.step(lr, beta, None if self.scale is None else self.scale.left_out)
        if self.scale is not None:
            self.scale.follow()
        self.optimizer.zero_grad()
        self.ema.follow(weights)
        self.log.add(loss, norm)
        return loss, norm

    def _differentiate(self, batch: Batch, noised: Noised) -> Tensor:
        """Give every parameter its gradient; returns the loss of the whole batch, the mean over its values whatever the
        objective's reduction, so that runs are comparable."""
        loss, errors = torch.zeros((), device=self.device), list[Tensor]()
        factor = self.task.objective.loss_factor(noised)
        only_own = self.feed.rows is not None
        for share in shares_of(batch, noised, self.ranks, self.pieces, only_own=only_own):
            with self.weights.exchanged():
                taught = self._taught(share)
                with self.autocast():
                    part = self.loss(self.task.model, share.batch, taught, share.of)
                if self.times.learns:
                    part, error = part
                    errors.append(error)
                (factor * part if self.scale is None else self.scale.factor * part).backward()
            loss += part.detach()
        if errors:
            times = self.ranks.gather(noised.t) if only_own else noised.t
            self.times.update(times, self.ranks.gather(torch.cat(errors)))
        self.weights.sum_gradients_()
        if self.scale is not None:
            self.scale.unscale([parameter.grad for parameter in self.parameters if parameter.grad is not None], factor)
        return self.ranks.sum_(loss)

    def _taught(self, share: Share) -> Noised:
        """The examples of a share, with the targets of the lesson where there is one."""
        lesson = self.task.lesson
        if lesson is None:
            return share.noised
        with torch.no_grad(), self.autocast():
            return lesson(share.batch, share.noised, self.task.model, self.ema.model)

    @torch.no_grad()
    def validation_loss(self, batches: Iterable[Batch], seed: int) -> Tensor:
        """Mean squared error of the EMA model's prediction, in eval mode, over `batches`: a scalar on the device.

        Timesteps are uniform, noise is independent, and both are drawn from `seed`: two calls differ by the weights
        alone, whatever accelerates the training.
        """
        time, noise = validation_generators(seed, self.device)
        self.ema.refresh()
        objective, ranks = self.task.objective.plain(), self.ranks
        total, samples = torch.zeros((), device=self.device), 0
        for number, batch in enumerate(batches):
            noised = objective.draw(batch, time, noise)
            if number % ranks.count == ranks.rank:
                with self.autocast():
                    total += prediction_loss(self.ema.model, batch, noised) * batch.x0.shape[0]
            samples += batch.x0.shape[0]
        return ranks.sum_(total) / max(1, samples)

    def finite(self) -> Tensor:
        """Whether every weight is a finite number: a bool on the device. All ranks call it together."""
        return self.weights.finite()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Tensors of a checkpoint, by file name: model, optimizer, ema, one for each further average (ema_0.05), times
        where the distribution of timesteps learns, and loss_scale in fp16. All ranks call it together."""
        self.ema.refresh()
        averages = {name: model.state_dict() for name, model in self.ema.models().items()}
        model, moments = (self.weights.whole(own.state_dict()) for own in (self.task.model, self.optimizer))
        tensors = {"model": model, **averages, "optimizer": moments}
        times = self.times.state_dict()
        if times:
            tensors["times"] = times
        if self.scale is not None:
            tensors["loss_scale"] = self.scale.state_dict()
        return tensors

    def state(self) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        return {"ema_updates": self.ema.updates, "ema_samples": self.ema.samples, **self.feed.state()}

    def restore(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Continue from what `tensors` and `state` gave."""
        self.task.model.load_state_dict(self.weights.own(tensors["model"]))
        for name, model in self.ema.models().items():
            model.load_state_dict(tensors[name])
        self.optimizer.load_state_dict(self.weights.own(tensors["optimizer"]))
        self.ema.updates, self.ema.samples = int(state["ema_updates"]), int(state.get("ema_samples", 0))
        if "times" in tensors:
            with naming("acceleration.timesteps"):
                self.times.load_state_dict(tensors["times"])
        if self.scale is not None and "loss_scale" in tensors:
            self.scale.load_state_dict(tensors["loss_scale"])
        self.feed.restore(state)
