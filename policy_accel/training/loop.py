"""The one training loop, for every track."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from policy_accel.errors import UserError, did_you_mean
from policy_accel.progress import Progress
from policy_accel.training.checkpoint import (
    CheckpointConfig,
    checkpoint_steps,
    evaluation_of,
    load_newest,
    prune_checkpoints,
    record_evaluation,
    save_checkpoint,
)
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.ema import EMAConfig
from policy_accel.training.interrupt import Interruption
from policy_accel.training.metrics import WANDB_MODES, LoggingConfig, MetricsLog
from policy_accel.training.optimizer import OptimizerConfig
from policy_accel.training.randomness import DataOrder, Generators
from policy_accel.training.run_directory import open_run_directory
from policy_accel.training.task import Batch, Task
from policy_accel.training.update import Update

PRECISIONS = ("fp32", "bf16")
MATMUL_PRECISIONS = ("highest", "high", "medium")


@dataclass
class TrainingConfig:
    """How long, how and on what to train."""

    steps: int = 10_000
    """Optimiser updates of the whole run."""
    batch_size: int = 256
    device: str = "auto"
    """auto (CUDA when there is one), cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads of torch; 0 for its own choice, one each core. Another number changes the last bits of the weights.
    On a machine that other jobs keep busy, 1 is several times faster for a small network."""
    precision: str = "fp32"
    """fp32, or bf16 autocast (slow on most CPUs)."""
    matmul_precision: str = "highest"
    """float32 matrix products on CUDA: highest (true float32), high or medium (TF32)."""
    compile: bool = False
    """Compile the loss and its gradient with torch.compile."""
    validate_every: int = 1000
    """Updates between validation losses; 0 for none."""
    evaluate_every: int = 0
    """Updates between evaluations (rollouts) during training; 0 evaluates after the last update only."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)


@dataclass(frozen=True)
class Trained:
    """How a run stands: updates saved, whether all of them, seconds spent on updates, evaluation of the last one."""

    step: int
    finished: bool
    training_seconds: float
    evaluation: dict[str, Any] | None


def _check(config: TrainingConfig) -> None:
    positive = {"steps": config.steps, "batch_size": config.batch_size, "logging.every": config.logging.every}
    for name, value in positive.items():
        if value < 1:
            raise UserError(f"training.{name}={value} must be at least 1.")
    at_least_zero = {
        "threads": config.threads,
        "validate_every": config.validate_every,
        "evaluate_every": config.evaluate_every,
        "checkpoint.every": config.checkpoint.every,
        "checkpoint.keep_best": config.checkpoint.keep_best,
        "checkpoint.keep_every": config.checkpoint.keep_every,
        "optimizer.warmup_steps": config.optimizer.warmup_steps,
    }
    for name, value in at_least_zero.items():
        if value < 0:
            raise UserError(f"training.{name}={value} must not be negative.")
    if config.checkpoint.keep_last < 2:
        raise UserError(
            f"training.checkpoint.keep_last={config.checkpoint.keep_last} must be at least 2: one is left when "
            "the newest is damaged."
        )
    keep, cadences = config.checkpoint.keep_every, (config.checkpoint.every, config.evaluate_every)
    if keep and not any(every and keep % every == 0 for every in cadences):
        raise UserError(
            f"training.checkpoint.keep_every={keep} must be a multiple of training.checkpoint.every="
            f"{config.checkpoint.every} (or of training.evaluate_every={config.evaluate_every}), so that a checkpoint "
            "is written at each of those steps."
        )
    for name, chosen, known in (
        ("precision", config.precision, PRECISIONS),
        ("matmul_precision", config.matmul_precision, MATMUL_PRECISIONS),
        ("logging.wandb", config.logging.wandb, WANDB_MODES),
    ):
        if chosen not in known:
            raise UserError(f"training.{name} '{chosen}' is unknown; {did_you_mean(chosen, known)}")


class Run:
    """One run: the update, where it stands, and where it leaves its traces."""

    def __init__(
        self, task: Task, config: TrainingConfig, seed: int, run_dir: Path, run_config: dict[str, Any]
    ) -> None:
        _check(config)
        self.device = choose_device(config.device)
        use_device(self.device, threads=config.threads, matmul_precision=config.matmul_precision)
        self.task, self.config, self.seed, self.run_dir = task, config, seed, run_dir
        self.checkpoints = run_dir / "checkpoints"
        task.to(self.device)
        self.order = DataOrder(
            task.samples,
            config.batch_size * task.objective.path.samples_factor,
            seed,
            self.device,
            groups=task.groups,
            run=task.group_run,
        )
        self.update = Update(
            task,
            self.order,
            config.optimizer,
            config.ema,
            steps=config.steps,
            generators=Generators(seed, self.device),
            precision=config.precision,
            compiled=config.compile,
        )
        self.lock = open_run_directory(run_dir, run_config, {"training": asdict(TrainingConfig())})
        self.step, self.training_seconds = 0, 0.0
        self.evaluation: dict[str, Any] | None = None
        self.saved: int | None = None
        self._resume()
        self.progress = Progress("train", config.steps, self.step)
        self.metrics = MetricsLog(run_dir, config.logging, start_step=self.step, run_config=run_config)
        self.losses = torch.zeros(config.logging.every, device=self.device)
        self.norms = torch.zeros(config.logging.every, device=self.device)
        self.pending = 0
        self.marked = time.perf_counter()

    def _resume(self) -> None:
        found = load_newest(self.checkpoints)
        if found is None:
            return
        if found.state["data"] != self.task.fingerprint:
            raise UserError(
                f"{self.run_dir} was trained on other data than the task has now (another file, or a changed one); put "
                "the data back, or choose another run_dir."
            )
        self.update.restore(found.tensors, found.state)
        self.step = self.saved = found.step
        self.training_seconds = float(found.state["training_seconds"])
        self.evaluation = evaluation_of(found.path)
        self._observe_score()

    def advance(self) -> None:
        """Make one update; its loss stays on the device."""
        loss, norm = self.update(self.step)
        self.losses[self.pending] = loss
        if norm is not None:
            self.norms[self.pending] = norm
        self.pending += 1
        self.step += 1
        self.progress.to(self.step)

    def flush(self) -> None:
        """Read the losses since the last call (the only place that waits for the device) and log their mean.

        Raises:
            UserError: a loss is NaN or infinite; checkpoints written before stay.
        """
        if not self.pending:
            return
        losses = self.losses[: self.pending].cpu()
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0, 0])
            update = self.step - self.pending + first + 1
            raise UserError(self._diverged(f"The loss of update {update} is {float(losses[first])}"))
        now = time.perf_counter()
        spent = now - self.marked
        self.training_seconds += spent
        row = {
            "step": self.step,
            "loss": float(losses.mean()),
            "lr": float(self.update.optimizer.param_groups[0]["lr"]),
            "epoch": self.step * self.order.batch_size / self.task.samples,
            "samples": self.step * self.order.batch_size,
            "steps_per_second": self.pending / spent,
            "training_seconds": self.training_seconds,
        }
        flops = getattr(self.task, "flops_per_sample", None)
        if flops is not None:
            row["training_flops"] = row["samples"] * self.task.objective.path.repeats * flops
        if self.config.optimizer.clip_grad_norm is not None:
            row["grad_norm"] = float(self.norms[: self.pending].mean())
        choice = self.task.objective.noise
        if hasattr(choice, "statistics"):
            row.update(choice.statistics())
        self.metrics.write(row)
        self.progress.to(self.step, f"loss {row['loss']:.4f}")
        self.pending, self.marked = 0, now

    def _diverged(self, what: str) -> str:
        return (
            f"{what}; the last good checkpoint is {self._last_good()}; lower training.optimizer.lr (now "
            f"{self.config.optimizer.lr}) or set training.optimizer.clip_grad_norm=1.0, with another run_dir."
        )

    def _last_good(self) -> str:
        steps = checkpoint_steps(self.checkpoints)
        return str(self.checkpoints / f"{steps[-1]:08d}") if steps else "none"

    def validate(self) -> None:
        """Log the validation loss of the EMA model."""
        if not self.task.validation_samples:
            return
        loss = float(self.update.validation_loss(self._validation_batches(), self.seed))
        self.metrics.write({"step": self.step, "validation_loss": loss})

    def _validation_batches(self) -> Iterator[Batch]:
        indices = torch.arange(self.task.validation_samples, device=self.device)
        return (self.task.validation_batch(part) for part in indices.split(self.config.batch_size))

    def save(self) -> Path:
        """Write a checkpoint of this step and drop those that are no longer kept.

        Raises:
            UserError: a weight is NaN or infinite (the loss of the next update would be); the disk is full.
        """
        if not self.update.is_finite():
            raise UserError(self._diverged(f"The weights after update {self.step} are not finite"))
        state = {
            **self.update.state(),
            "training_seconds": self.training_seconds,
            "seed": self.seed,
            "data": self.task.fingerprint,
            "task": getattr(self.task, "description", {}),
        }
        path = save_checkpoint(self.checkpoints, self.step, self.update.tensors(), state)
        self.saved = self.step
        prune_checkpoints(self.checkpoints, self.config.checkpoint)
        return path

    def evaluate(self, path: Path) -> None:
        """Score the EMA model and put the result beside the checkpoint `path` of this step."""
        result = self.task.evaluate(self.update.ema.model, self.progress.say, step=self.step)
        if result is None:
            self.evaluation = None
            return
        self.metrics.write({"step": self.step, **{key: value for key, value in result.items() if key != "episodes"}})
        record_evaluation(path, result)
        self.evaluation = result
        self._observe_score()
        prune_checkpoints(self.checkpoints, self.config.checkpoint)

    def _observe_score(self) -> None:
        """Tell the choice of noise the newest score: it may begin at one."""
        start = getattr(self.task.objective.noise, "start", None)
        if start is not None and self.evaluation is not None and "score" in self.evaluation:
            start.observe(self.step, float(self.evaluation["score"]))

    def close(self) -> None:
        """End the progress bar and the logs, and let go of the directory."""
        self.progress.close()
        self.metrics.close()
        self.lock.close()


def _due(step: int, every: int, steps: int) -> bool:
    return step == steps or (every > 0 and step % every == 0)


def train(
    task: Task,
    config: TrainingConfig,
    *,
    seed: int,
    run_dir: Path,
    run_config: dict[str, Any],
    after_update: Callable[[int], None] | None = None,
) -> Trained:
    """Train `task.model` in `run_dir`, or continue the run that is there.

    Saves at every `checkpoint.every` updates, at each evaluation and at the end; SIGINT and SIGTERM save and return.

    Args:
        task: data, model, objective and score.
        config: how to train.
        seed: of every random stream.
        run_dir: made when missing.
        run_config: the whole configuration, kept in the run directory and compared with it.
        after_update: called with the number of updates made after each one.

    Raises:
        UserError: impossible settings, another configuration in `run_dir`, a loss that is not finite, a full disk.
    """
    run = Run(task, config, seed, run_dir, run_config)
    interruption = Interruption()
    steps = config.steps
    try:
        with interruption.watch():
            path = run.checkpoints / f"{run.step:08d}"
            unscored = run.evaluation is None and path.is_dir() and _due(run.step, config.evaluate_every, steps)
            if unscored:
                with interruption.abandonable():
                    run.evaluate(path)
            run.marked = time.perf_counter()
            while run.step < steps and not interruption.requested:
                run.advance()
                if after_update is not None:
                    after_update(run.step)
                validating = config.validate_every > 0 and _due(run.step, config.validate_every, steps)
                evaluating = _due(run.step, config.evaluate_every, steps)
                saving = evaluating or _due(run.step, config.checkpoint.every, steps)
                if run.pending == config.logging.every or validating or saving:
                    run.flush()
                if validating:
                    run.validate()
                if saving:
                    path = run.save()
                if evaluating:
                    with interruption.abandonable():
                        run.evaluate(path)
                if validating or saving or evaluating:
                    run.marked = time.perf_counter()
            if run.saved != run.step:
                run.flush()
                run.save()
    except KeyboardInterrupt:
        pass
    finally:
        run.close()
    finished = run.saved == steps and not interruption.requested
    return Trained(run.saved or 0, finished, run.training_seconds, run.evaluation)
