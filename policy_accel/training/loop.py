"""The one training loop, for every track."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from policy_accel.errors import UserError
from policy_accel.progress import Progress
from policy_accel.run_files import checkpoint_steps
from policy_accel.training.build import build_update, made_with
from policy_accel.training.checkpoint import (
    Checkpoint,
    DamagedError,
    fitting,
    load_checkpoint,
    load_newest,
)
from policy_accel.training.clock import TrainingClock
from policy_accel.training.config import TrainingConfig
from policy_accel.training.heading import going_on, heading
from policy_accel.training.interrupt import Interruption
from policy_accel.training.metrics import MetricsLog
from policy_accel.training.optimizer import step_values
from policy_accel.training.ranks import ALONE, Ranks
from policy_accel.training.run_directory import open_run_directory, record_changes
from policy_accel.training.scoring import Scorer, Scores
from policy_accel.training.snapshots import Snapshots
from policy_accel.training.task import Task
from policy_accel.training.threads import choose_threads
from policy_accel.training.validation import Validation

EXPLODED = 1e6
"""Times the loss that a run began at, or 1: what no training comes back from."""


@dataclass(frozen=True)
class Trained:
    """How a run stands: updates saved, whether all of them, seconds spent on updates, evaluation of the last one."""

    step: int
    finished: bool
    training_seconds: float
    evaluation: dict[str, Any] | None


class Run:
    """One run: the update, where it stands, and where it leaves its traces."""

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        seed: int,
        run_dir: Path,
        run_config: dict[str, Any],
        scorer: Scorer | None = None,
        ranks: Ranks = ALONE,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        asked, config = config, config.within(task.samples, ranks.count * config.accumulate)
        self.task, self.config, self.seed, self.run_dir, self.ranks = task, config, seed, run_dir, ranks
        self.checkpoints = run_dir / "checkpoints"
        self.update = build_update(task, config, seed, ranks)
        self.order, device = self.update.feed.order, self.update.device
        self.validation = Validation(task, self.update, seed, config.batch_size)
        self.snapshots = Snapshots(self.checkpoints, config.checkpoint, device, writes=ranks.first)
        self.changes: dict[str, tuple[Any, Any]] = {}
        self.lock = ranks.together(lambda: self._open(run_config, defaults))
        self.step, self.training_seconds = 0, 0.0
        self.saved: int | None = None
        self.first_loss: float | None = None
        self.stopping = False
        self._resume()
        ranks.together(lambda: record_changes(run_dir, run_config, self.changes, self.step) if ranks.first else None)
        self.progress = Progress("train", config.steps, self.step)
        self.progress.say(heading(task, config, self.update, ranks, self.step))
        if self.changes:
            self.progress.say(going_on(config, self.changes, self.step))
        if config.batch_size < asked.batch_size:
            self.progress.say(
                f"training.batch_size={asked.batch_size} is more than the {task.samples} training samples; an update "
                f"takes {config.batch_size}."
            )
        self.metrics = MetricsLog(
            run_dir, config.logging, start_step=self.step, run_config=run_config, writes=ranks.first
        )
        self.clock = TrainingClock(device)
        self.scores = Scores(task, self.update.ema.model, self.snapshots, self.metrics, self.progress, scorer, ranks)
        self.scores.restore(self.step)

    def _open(self, run_config: dict[str, Any], defaults: dict[str, Any] | None) -> TextIO | None:
        """The lock of the run directory, which the first rank holds."""
        if not self.ranks.first:
            return None
        defaults = {"training": asdict(TrainingConfig()), **(defaults or {})}
        lock, self.changes = open_run_directory(self.run_dir, run_config, defaults)
        return lock

    def _resume(self) -> None:
        if len(set(self.ranks.collect((self.task.fingerprint, self.task.samples)))) > 1:
            raise UserError("the processes of this run read different data; give all machines the same files.")
        newest = self._newest()
        if newest is None:
            if not self.config.threads:
                choose_threads(self.update, self.seed)
            return
        with fitting(newest.path):
            self.task.check_continued(newest, self.run_dir)
            if not self.config.threads and self.update.device.type == "cpu":
                torch.set_num_threads(int(newest.state.get("threads", torch.get_num_threads())))
            self.update.restore(newest.tensors, newest.state)
            self.training_seconds = float(newest.state["training_seconds"])
        self.step = self.saved = newest.step

    def _newest(self) -> Checkpoint | None:
        """The newest checkpoint, which the first rank looks for, and sets damaged ones aside."""
        ranks = self.ranks
        newest = ranks.together(lambda: load_newest(self.checkpoints) if ranks.first else None)
        step = ranks.share(None if newest is None else newest.step)

        def same() -> Checkpoint | None:
            if ranks.first or step is None:
                return newest
            try:
                return load_checkpoint(self.checkpoints / f"{step:08d}")
            except DamagedError as error:
                raise UserError(
                    f"run_dir={self.run_dir} does not hold the checkpoint {step} for all processes of this run "
                    f"({error}) Put it on a file system that they share."
                ) from error

        return ranks.together(same)

    def train(self, interruption: Interruption, after_update: Callable[[int], None] | None = None) -> None:
        """Make all updates that are left, and whatever is due between them; return early when interrupted."""
        for step in self.scores.lost(lambda step: self._due(self.config.evaluate_every, step)):
            with interruption.abandonable():
                self.scores.make(step)
        self.clock.restart()
        if self.config.compile and self.step < self.config.steps:
            self.progress.say("The first update is compiled, which can take minutes; those after it are fast.")
        while self.step < self.config.steps and not self._stops(interruption):
            self.advance()
            if after_update is not None:
                after_update(self.step)
            self._after_update(interruption)
        if self.saved != self.step:
            self.flush()
            self.save()
        self.ranks.together(self.snapshots.wait)
        if not self.ranks.any(interruption.requested):
            with interruption.abandonable():
                self.scores.take(wait=True)
            self.snapshots.wait()

    def _stops(self, interruption: Interruption) -> bool:
        """Whether to stop here; several ranks, which a signal reaches at different updates, agree at log points."""
        return interruption.requested if self.ranks.count == 1 else self.stopping

    def _due(self, every: int, step: int | None = None) -> bool:
        """Whether what happens `every` updates (0: never before the end) happens after this one, or after `step`."""
        step = self.step if step is None else step
        return step == self.config.steps or (every > 0 and step % every == 0)

    def _after_update(self, interruption: Interruption) -> None:
        """Log, validate, save and score what is due."""
        config = self.config
        validating = config.validate_every > 0 and self._due(config.validate_every)
        evaluating = self._due(config.evaluate_every)
        saving = evaluating or self._due(config.checkpoint.every) or self.step in config.checkpoint.at
        if validating or evaluating:
            with self.clock.aside():
                self.validation.take(self.step, loss=validating, levels=evaluating)
        if saving or self.update.log.full or (validating and self.update.device.type == "cpu"):
            self.flush()  # on CUDA a validation loss waits for the next log point
            self.stopping = self.ranks.any(interruption.requested)
        if saving:
            with self.clock.aside():
                self.save()
                if evaluating and not (self.ranks.count > 1 and self.stopping):
                    with interruption.abandonable():
                        self.scores.make(self.step)

    def advance(self) -> None:
        """Make one update; its loss stays on the device."""
        self.update(self.step)
        self.step += 1
        self.progress.to(self.step)

    def flush(self) -> None:
        """Read the losses since the last call (the only place that waits for the device) and log their mean.

        Raises:
            UserError: a loss is NaN, infinite, or `EXPLODED` times what it began at; or a checkpoint could not be
                written. Those written before stay.
        """
        updates = self.update.log.count
        if not updates:
            return
        config = self.config
        logged = self.update.log.read()
        losses = logged.losses
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0, 0])
            update = self.step - updates + first + 1
            self.snapshots.wait()
            raise UserError(self._diverged(f"The loss of update {update} is {float(losses[first])}"))
        mean = float(losses.mean())
        self.first_loss = float(losses[0]) if self.first_loss is None else self.first_loss
        if mean > EXPLODED * max(1.0, self.first_loss):
            self.snapshots.wait()
            raise UserError(
                self._diverged(
                    f"The mean loss up to update {self.step} is {mean:.3g}, and began at {self.first_loss:.3g}"
                )
            )
        spent = self.clock.lap()
        self.training_seconds += spent
        samples = self.step * self.order.batch_size
        row: dict[str, Any] = {
            "step": self.step,
            "loss": mean,
            "lr": step_values(config.optimizer, self.step - 1, config.steps)[0],
            "epoch": samples / self.task.samples,
            "samples": samples,
            "steps_per_second": updates / spent,
            "training_seconds": self.training_seconds,
        }
        flops = self.task.training_flops(samples)
        if flops is not None:
            row["training_flops"] = flops
        if logged.grad_norm is not None:
            row["grad_norm"] = logged.grad_norm
        if self.update.scale is not None:
            row["loss_scale"] = float(self.update.scale.factor)
        row.update(self.task.objective.noise.statistics())
        if logged.levels:
            row["noise_levels"] = self.validation.row(logged.levels)
        validations = [{"step": step, "validation_loss": loss} for step, loss in logged.validations.items()]
        for logged_row in sorted([row, *validations], key=lambda row: row["step"]):
            self.metrics.write(logged_row)
        self.progress.to(self.step, f"loss {row['loss']:.4f}")
        self.ranks.together(self._check)

    def _check(self) -> None:
        """Take what was made beside the updates; raises what went wrong there."""
        self.snapshots.check()
        self.scores.take(wait=False)

    def _diverged(self, what: str) -> str:
        steps = checkpoint_steps(self.checkpoints)
        last_good = self.checkpoints / f"{steps[-1]:08d}" if steps else "none"
        return (
            f"{what}; the last good checkpoint is {last_good}; lower training.optimizer.lr (now "
            f"{self.config.optimizer.lr}) or set training.optimizer.clip_grad_norm=1.0, with another run_dir."
        )

    def save(self) -> None:
        """Write a checkpoint of this step and drop those that are no longer kept; see `Snapshots.save`.

        Raises:
            UserError: a weight is NaN or infinite (the loss of the next update would be); the disk is full.
        """
        self.ranks.together(self._save)
        self.saved = self.step

    def _save(self) -> None:
        self.snapshots.wait()
        state = {
            **self.update.state(),
            "training_seconds": self.training_seconds,
            "seed": self.seed,
            **self.task.identity(),
            "threads": torch.get_num_threads(),
            "precision": self.update.precision,
            "matmul_precision": torch.get_float32_matmul_precision(),
            **made_with(self.update.device),
            "task": dict(self.task.description),
        }
        self.snapshots.save(
            self.step,
            self.update.tensors(),
            state,
            finite=self.update.finite(),
            otherwise=self._diverged(f"The weights after update {self.step} are not finite"),
        )

    def standing(self, interruption: Interruption) -> Trained:
        """How the run stands."""
        finished = self.saved == self.config.steps and not interruption.requested
        return Trained(self.saved or 0, finished, self.training_seconds, self.scores.latest)

    def close(self) -> None:
        """End the progress bar and the logs, and let go of the device and the directory."""
        self.update.feed.close()
        self.progress.close()
        self.metrics.close()
        self.scores.close()
        try:
            self.snapshots.close()
        finally:
            if self.lock is not None:
                self.lock.close()


def train(
    task: Task,
    config: TrainingConfig,
    *,
    seed: int,
    run_dir: Path,
    run_config: dict[str, Any],
    after_update: Callable[[int], None] | None = None,
    scorer: Scorer | None = None,
    ranks: Ranks = ALONE,
    page: Callable[[Trained], Path | None] | None = None,
    defaults: dict[str, Any] | None = None,
) -> Trained:
    """Train `task.model` in `run_dir`, or continue the run that is there.

    Saves at every `checkpoint.every` updates and those of `checkpoint.at`, at each evaluation and at the end; SIGINT
    and SIGTERM save and return.

    Args:
        task: data, model, objective and score.
        config: how to train.
        seed: of every random stream.
        run_dir: made when missing.
        run_config: the whole configuration, kept in the run directory and compared with it.
        after_update: called with the number of updates made after each one.
        scorer: makes the scores while the training goes on; None to make them in between, by `task.evaluate`.
        ranks: the processes of the run, which all call this.
        page: writes the report of a finished run, for where the run is shown beside its own files.
        defaults: values of keys that the configuration of a run by an earlier version may lack.

    Raises:
        UserError: impossible settings, another configuration in `run_dir`, a loss that is not finite, a full disk.
    """
    run = Run(task, config, seed, run_dir, run_config, scorer, ranks, defaults)
    interruption = Interruption()
    try:
        with interruption.watch():
            run.train(interruption, after_update)
        trained = run.standing(interruption)
        if page is not None and run.metrics.trackers and trained.finished:
            written = page(trained)
            if written is not None:
                run.metrics.keep(written)
    except KeyboardInterrupt:
        pass
    finally:
        run.close()
    return run.standing(interruption)
