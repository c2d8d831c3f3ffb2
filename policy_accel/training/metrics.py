"""Metrics: JSON lines always, Weights & Biases when asked for."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.files import append_text, replace_text
from policy_accel.run_files import read_metrics

WANDB_MODES = ("off", "offline", "online")


@dataclass
class LoggingConfig:
    """Where metrics go beside metrics.jsonl."""

    every: int = 100
    """Updates between rows; losses stay on the device in between."""
    wandb: str = "off"
    """Weights & Biases: off, offline (a folder in the run directory, `wandb sync` sends it later) or online."""
    wandb_project: str = "policy_accel"


@dataclass(frozen=True)
class Logged:
    """What was read at a log point."""

    losses: Tensor
    """Of the updates since the last one, [count] on the CPU."""
    grad_norm: float | None
    """Mean of those that are finite, which those of updates that fp16 leaves out are not; None if there is none."""
    validations: dict[int, float]
    """Validation losses by step."""


class LossBuffer:
    """Losses and gradient norms of the updates since the last row of the log, and the validation losses between them:
    on the device until they are read.

    Where the next goes is a number on the device too, so that `add` can be captured with the update.

    Args:
        size: updates between rows; what is not read in time is overwritten.
        device: of the losses.
        clipped: whether there are gradient norms.
    """

    def __init__(self, size: int, device: torch.device, *, clipped: bool) -> None:
        self._rows = torch.zeros(2 if clipped else 1, size, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._validations: list[tuple[int, Tensor]] = []
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
        parts = [self._rows[:, : self.count].flatten(), *(loss.reshape(1) for _, loss in self._validations)]
        numbers = torch.cat(parts).cpu()
        rows, validations = numbers.split([len(self._rows) * self.count, len(self._validations)])
        losses, *norms = rows.view(-1, self.count)
        steps = [step for step, _ in self._validations]
        self._place.zero_()
        self._validations, self.count = [], 0
        return Logged(
            losses,
            _finite_mean(norms[0]) if norms else None,
            dict(zip(steps, validations.tolist(), strict=True)),
        )


def _finite_mean(values: Tensor) -> float | None:
    finite = values[values.isfinite()]
    return float(finite.mean()) if len(finite) else None


class MetricsLog:
    """Appends rows to `run_dir`/metrics.jsonl, and to Weights & Biases when configured.

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
        self._wandb = None
        if not writes:
            return
        rows = [row for row in read_metrics(self.path) if row.get("step", 0) <= start_step]
        replace_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self._newest = start_step
        self._wandb = _start_wandb(run_dir, config, run_config) if config.wandb != "off" else None

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; it has a "step".

        Weights & Biases takes no row of an earlier step than the last one: a late row comes under the newest step there
        and has its own as "of_step".
        """
        if not self.writes:
            return
        append_text(self.path, json.dumps(row) + "\n")
        self._newest = max(self._newest, row["step"])
        if self._wandb is not None:
            values = {key: value for key, value in row.items() if key != "step"}
            if row["step"] < self._newest:
                values["of_step"] = row["step"]
            self._wandb.log(values, step=self._newest)

    def close(self) -> None:
        """Finish the Weights & Biases run."""
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(run_dir: Path, config: LoggingConfig, run_config: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            f"training.logging.wandb={config.wandb} needs the package wandb: pip install '.[wandb]' in our checkout."
        ) from error
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        return wandb.init(
            project=config.wandb_project,
            dir=str(run_dir),
            mode="offline" if config.wandb == "offline" else "online",
            name=run_dir.name,
            id=hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:16],
            resume="allow" if config.wandb == "online" else None,
            config=run_config,
        )
    except wandb.errors.Error as error:
        raise UserError(
            f"Weights & Biases could not start ({str(error).splitlines()[0]}); run `wandb login`, or set "
            "training.logging.wandb=offline."
        ) from error
