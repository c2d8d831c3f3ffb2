"""Metrics: JSON lines always, Weights & Biases and TensorBoard when asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.files import append_text, replace_text
from policy_accel.run_files import read_metrics
from policy_accel.training.tensorboard import Tensorboard
from policy_accel.training.trackers import NewMedia, Tracker
from policy_accel.training.wandb_run import WandbRun


@dataclass
class LoggingConfig:
    """Where metrics go beside metrics.jsonl."""

    every: int = 100
    """Updates between rows; losses stay on the device in between."""
    wandb: str = "off"
    """Weights & Biases: off, offline (a folder in the run directory, `wandb sync` sends it later) or online."""
    wandb_project: str = "policy_accel"
    """Project at Weights & Biases."""
    tensorboard: bool = False
    """Also write event files with scalars, sample grids and films to the folder `tensorboard` of the run directory."""

    def check_installed(self) -> None:
        """Raise UserError when a package that is asked for is not installed."""
        for setting, package, asked in (
            ("tensorboard=true", "tensorboard", self.tensorboard),
            (f"wandb={self.wandb}", "wandb", self.wandb != "off"),
        ):
            if asked and find_spec(package) is None:
                raise UserError(f"training.logging.{setting} needs the package {package}; {to_install(package)}")


@dataclass(frozen=True)
class Logged:
    """What was read at a log point."""

    losses: Tensor
    """Of the updates since the last one, [count] on the CPU."""
    grad_norm: float | None
    """Mean of those that are finite, which those of updates that fp16 leaves out are not; None if there is none."""
    validations: dict[int, float]
    """Validation losses by step."""
    levels: list[float]
    """Losses by level of noise; [] where none were taken."""


class LossBuffer:
    """Losses and gradient norms of the updates since the last row of the log, and what was validated between them: on
    the device until they are read.

    Where the next goes is a number on the device too, so that `add` can be captured with the update.

    Args:
        size: updates between rows; what is not read in time is overwritten.
        device: of the losses.
        clipped: whether there are gradient norms.

    Attributes:
        levels: losses by level of noise [levels] for the next row; None for none.
    """

    def __init__(self, size: int, device: torch.device, *, clipped: bool) -> None:
        self._rows = torch.zeros(2 if clipped else 1, size, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._validations: list[tuple[int, Tensor]] = []
        self.levels: Tensor | None = None
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether the next row is due."""
        return self.count == self._rows.shape[1]

    def add(self, loss: Tensor, norm: Tensor | None) -> None:
        """Take the loss of an update and, when clipping, its gradient norm, scalars: work of the device alone."""
        values = loss.reshape(1, 1) if norm is None else torch.stack([loss, norm]).unsqueeze(1)
        self._rows.index_copy_(1, self._place, values)
        self._place.add_(1).remainder_(self._rows.shape[1])

    def validated(self, step: int, loss: Tensor) -> None:
        """Take the validation loss after `step` updates, a scalar on the device."""
        self._validations.append((step, loss))

    def read(self) -> Logged:
        """All of it; waits once for the device, and starts anew."""
        levels = [] if self.levels is None else [self.levels]
        parts = [self._rows[:, : self.count].flatten(), *(loss.reshape(1) for _, loss in self._validations), *levels]
        numbers = torch.cat(parts).cpu()
        sizes = len(self._rows) * self.count, len(self._validations)
        rows, validations, by_level = numbers.tensor_split([sizes[0], sum(sizes)])
        losses, *norms = rows.view(-1, self.count)
        steps = [step for step, _ in self._validations]
        self._place.zero_()
        self._validations, self.levels, self.count = [], None, 0
        return Logged(
            losses,
            _finite_mean(norms[0]) if norms else None,
            dict(zip(steps, validations.tolist(), strict=True)),
            by_level.tolist(),
        )


def _finite_mean(values: Tensor) -> float | None:
    finite = values[values.isfinite()]
    return float(finite.mean()) if len(finite) else None


class MetricsLog:
    """Appends rows to `run_dir`/metrics.jsonl, and gives them to Weights & Biases and TensorBoard when configured.

    Args:
        run_dir: the run directory.
        config: where rows go.
        start_step: rows beyond this step, left by a run that was killed after its last checkpoint, are dropped.
        run_config: what Weights & Biases shows as the run's configuration.
        writes: whether anything is written: by one process of a run.
    """

    def __init__(
        self,
        run_dir: Path,
        config: LoggingConfig,
        *,
        start_step: int,
        run_config: dict[str, Any],
        writes: bool = True,
    ) -> None:
        self.path, self.writes = run_dir / "metrics.jsonl", writes
        self.trackers = list[Tracker]()
        if not writes:
            return
        rows = [row for row in read_metrics(self.path) if row.get("step", 0) <= start_step]
        replace_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self._newest = start_step
        self.trackers = start_trackers(run_dir, config, start_step=start_step, run_config=run_config)
        self._media = NewMedia(run_dir) if self.trackers else None

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; it has a "step"."""
        if not self.writes:
            return
        append_text(self.path, json.dumps(row) + "\n")
        self._newest = max(self._newest, row["step"])
        for tracker in self.trackers:
            tracker.row(row, self._newest)

    def show(self, step: int) -> None:
        """Give on the pictures and films that the score of `step` left in the run directory."""
        if not self.trackers or self._media is None:
            return
        files = self._media.look()
        for tracker in self.trackers if files else ():
            tracker.media(files, step, self._newest)

    def keep(self, page: Path) -> None:
        """Give on the report of the run."""
        for tracker in self.trackers:
            tracker.keep(page)

    def close(self) -> None:
        """End what the rows are given to."""
        for tracker in self.trackers:
            tracker.close()


def start_trackers(
    run_dir: Path, config: LoggingConfig, *, start_step: int, run_config: dict[str, Any]
) -> list[Tracker]:
    """What is asked for beside metrics.jsonl.

    Raises:
        UserError: a package that is not installed; Weights & Biases cannot start.
    """
    config.check_installed()
    started = list[Tracker]()
    if config.tensorboard:
        started.append(Tensorboard(run_dir, start_step))
    if config.wandb != "off":
        started.append(WandbRun(run_dir, config.wandb, config.wandb_project, run_config))
    return started
