"""Runs that end before their last step, and what they leave behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from policy_accel.run_files import read_metrics
from policy_accel.training.checkpoint import load_checkpoint


@contextmanager
def killed_at(step: int) -> Iterator[Callable[[int], None]]:
    """`after_update` for a run that dies after this update, as the run of the block must."""

    def crash(now: int) -> None:
        if now == step:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        yield crash


def signalled_at(step: int | None, number: int = signal.SIGINT, times: int = 1) -> Callable[[int], None]:
    """`after_update` for a run that is sent a signal after this update."""

    def interrupt(now: int) -> None:
        if now == step:
            for _ in range(times):
                os.kill(os.getpid(), number)

    return interrupt


def weights(folder: Path, step: int = 12) -> dict[str, Tensor]:
    """All tensors of a checkpoint, as "model/layers.0.weight"."""
    loaded = load_checkpoint(folder / "checkpoints" / f"{step:08d}")
    return {f"{file}/{key}": value for file, values in loaded.tensors.items() for key, value in values.items()}


def training_rows(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl that training wrote, not validation nor an evaluation."""
    return [row for row in read_metrics(run_dir / "metrics.jsonl") if "loss" in row]
