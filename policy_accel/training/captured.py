"""The update as CUDA graphs: the host writes a few numbers and indices, and replays."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch

from policy_accel.diffusion import Batch
from policy_accel.diffusion.objective import At
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.feed import Begun, Feed
from policy_accel.training.graphs import Replayed
from policy_accel.training.randomness import DataOrder, Generators
from policy_accel.training.ranks import ALONE, Ranks
from policy_accel.training.step_numbers import StepNumbers
from policy_accel.training.task import Task

T = TypeVar("T")


class _Slot(Generic[T]):
    """The memory of one batch under way, and what is captured of its update.

    `draw` and `learn` are two graphs, between which the host chooses the noise; `whole` is both in one.
    """

    def __init__(self, feed: CapturedFeed[T], step: int) -> None:
        device = feed.generators.device
        self.feed, at = feed, feed.task.objective.at(step, feed.steps)
        self.indices = torch.zeros(feed.order.batch_size, dtype=torch.int64, device=device)
        self.samples: Batch | None = None
        self.numbers = StepNumbers(2, device)
        self.at = At(step, self.numbers[0], None if at.cap is None else self.numbers[1])
        self.draw, self.learn, self.whole = (feed.replayed(work) for work in (self._draw, self._learn, self._whole))
        self.begun: Begun
        self.last: Any = None

    def write(self, step: int) -> None:
        """Give what the work for the batch of `step` reads."""
        feed = self.feed
        at = feed.task.objective.at(step, feed.steps)
        self.numbers.write(float(at.progress), 0.0 if at.cap is None else float(at.cap))
        if feed.task.resident:
            self.indices.copy_(feed.order.batch(step))
        else:
            batch = feed.samples(step)
            self.samples = batch if self.samples is None else self.samples.copy_(batch)

    def _draw(self) -> Begun:
        feed = self.feed
        batch = self.samples
        if batch is None:
            batch = feed.task.batch(self.indices, feed.task.draw(len(self.indices), feed.generators.batch))
        self.begun = feed.drawn(batch, self.at)
        return self.begun

    def _learn(self) -> T:
        result = self.feed.learner(self.begun)
        self.last = self.feed.task.objective.noise.last
        return result

    def _whole(self) -> T:
        self._draw()
        return self._learn()


class CapturedFeed(Feed, Generic[T]):
    """A feed whose batches are drawn, and learnt from, by CUDA graphs.

    Two batches may be under way, one of which trains while the host chooses the noise of the other; each has memory and
    graphs of its own. When the update changes its kind (`Objective.phase`) it is captured anew.

    Args:
        learner: the rest of an update on what was drawn: work of the device alone, out of memory that stays.
        others: see `Feed`.
    """

    def __init__(
        self,
        task: Task,
        order: DataOrder,
        generators: Generators,
        *,
        steps: int,
        average: Denoiser,
        learner: Callable[[Begun], T],
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(task, order, generators, steps=steps, average=average, ranks=ranks)
        self.learner = learner
        self._slots: dict[tuple[Hashable, int], _Slot[T]] = {}
        self._stream, self._pool = torch.cuda.Stream(generators.device), torch.cuda.graph_pool_handle()

    @property
    def graphs(self) -> int:
        """CUDA graphs that are replayed for an update: where the host chooses the noise, one before and one after."""
        return 2 if self.task.objective.noise.on_host else 1

    def replayed(self, work: Callable[[], Any]) -> Replayed[Any]:
        """`work`, to be captured with the generators that it draws from."""
        generators = [self.generators.time, self.generators.noise]
        if self.task.resident:  # else the thread that reads draws from it, also during a capture
            generators.append(self.generators.batch)
        return Replayed(work, generators, stream=self._stream, pool=self._pool)

    def update(self, step: int) -> T:
        """Draw the batch of `step` and learn from it."""
        noise = self.task.objective.noise
        slot = self._slot(step)
        if noise.on_host:
            self(step)
            result: T = slot.learn()
        else:
            slot.write(step)
            result = slot.whole()
        if slot.last is not None:
            noise.last = slot.last
        return result

    def begin(self, step: int) -> Begun:
        """Replay the drawing of the batch of `step`, and let the host begin to choose its noise."""
        slot = self._slot(step)
        slot.write(step)
        begun = slot.draw()
        begun.noised.start()
        return Begun(step, begun.batch, begun.noised)

    def close(self) -> None:
        """Let go of the graphs: NCCL does not end while a graph holds its sums."""
        super().close()
        for slot in self._slots.values():
            for work in (slot.draw, slot.learn, slot.whole):
                work.close()
        self._slots = {}

    def _slot(self, step: int) -> _Slot[T]:
        key = self.task.objective.phase(step), step % 2 if self.ahead else 0
        if key not in self._slots:
            self._slots[key] = _Slot(self, step)
        return self._slots[key]
