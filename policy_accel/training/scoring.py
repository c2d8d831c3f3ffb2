"""The scores of a run's checkpoints: made while the training waits, or while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from policy_accel.models.denoiser import Denoiser
from policy_accel.progress import Progress
from policy_accel.run_files import checkpoint_steps
from policy_accel.training.checkpoint import evaluation_of
from policy_accel.training.metrics import MetricsLog
from policy_accel.training.ranks import ALONE, Ranks
from policy_accel.training.snapshots import Snapshots
from policy_accel.training.task import Task

POLL_SECONDS = 0.2
"""Between two looks at a score that is waited for: a signal that another thread received is handled in between."""

Result = dict[str, Any] | None
Scored = tuple[Result, list[str]]
"""What `Task.evaluate` gives, and what it says to the user."""


class Scorer(Protocol):
    """Scores checkpoints of a run outside of the training."""

    def score(self, step: int) -> Scored:
        """Score the checkpoint of `step`, which is there; called in a thread, and takes its time.

        Raises:
            UserError: it cannot be scored.
        """

    def close(self) -> None:
        """Stop at once, also a `score` under way, which then raises."""


class Scores:
    """Scores checkpoints, logs the scores and puts each beside its checkpoint.

    Without a `scorer` the training waits for `task.evaluate`. With one it goes on, one score is under way at a time and
    a result is taken when it is there, with the step that it belongs to; its checkpoint is kept until then.

    Args:
        task: scores `model`, and its choice of noise is told the scores.
        model: the EMA model.
        snapshots: writes the checkpoints.
        metrics: takes the rows.
        progress: takes lines for the user.
        scorer: scores checkpoints while the training goes on, or None.
        ranks: the processes of the run, which score together; a scorer works for the first alone.

    Attributes:
        latest: the newest result; None before the first.
    """

    def __init__(
        self,
        task: Task,
        model: Denoiser,
        snapshots: Snapshots,
        metrics: MetricsLog,
        progress: Progress,
        scorer: Scorer | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.task, self.model, self.scorer, self.ranks = task, model, scorer, ranks
        self.snapshots, self.metrics, self.progress = snapshots, metrics, progress
        self.latest: Result = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scores")
        self._under_way: tuple[int, Future[Scored]] | None = None

    def restore(self, step: int) -> None:
        """Go on from the checkpoint of `step`."""
        self.latest = evaluation_of(self.snapshots.folder / f"{step:08d}")
        self._observe(step)

    def lost(self, due: Callable[[int], bool]) -> list[int]:
        """Steps of checkpoints whose score a killed run did not live to see, of those that are `due`.

        It is the newest one, whose weights are the model's; a scorer makes up for earlier ones too.
        """
        folder = self.snapshots.folder
        steps = checkpoint_steps(folder) if self.scorer is not None else checkpoint_steps(folder)[-1:]
        steps = [step for step in steps if due(step) and evaluation_of(folder / f"{step:08d}") is None]
        steps = self.ranks.share(steps)
        self.snapshots.unscored.update(steps)
        return steps

    def make(self, step: int) -> None:
        """Score the newest checkpoint, that of `step`, or begin to; waits for the file and for a score under way."""
        if self.scorer is None:
            self.ranks.together(self.snapshots.wait)
            self._keep(step, self.ranks.share(self.task.evaluate(self.model, self.progress.say, step=step)))
            return
        if not self.ranks.first:
            return
        self.take(wait=True)
        self.snapshots.unscored.add(step)
        self._under_way = step, self._thread.submit(_scored, self.scorer, step, self.snapshots.written)

    def take(self, *, wait: bool) -> None:
        """Take the score under way if it is there, or `wait` for it.

        Raises:
            UserError: see `Scorer.score`.
        """
        if self._under_way is None or not (wait or self._under_way[1].done()):
            return
        step, future = self._under_way
        while not futures.wait([future], timeout=POLL_SECONDS).done:
            pass
        result, said = future.result()
        self._under_way = None
        for line in said:
            self.progress.say(line)
        self._keep(step, result)

    def close(self) -> None:
        """Abandon what is under way."""
        if self.scorer is not None:
            self.scorer.close()
        self._thread.shutdown()

    def _keep(self, step: int, result: Result) -> None:
        self.latest = result
        self.snapshots.unscored.discard(step)
        if result is not None:
            self.metrics.write({"step": step, **{key: value for key, value in result.items() if key != "episodes"}})
            self.snapshots.record(step, result)
            self._observe(step)
        self.metrics.show(step)

    def _observe(self, step: int) -> None:
        """Give the score to the choice of noise, which may begin at one."""
        if self.latest is not None and "score" in self.latest:
            self.task.objective.noise.observe_score(step, float(self.latest["score"]))


def _scored(scorer: Scorer, step: int, written: Future[None] | None) -> Scored:
    if written is not None:
        written.result()
    return scorer.score(step)
