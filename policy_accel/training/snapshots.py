"""The checkpoints of a run as they are made: tensors leave the device while it trains, and a thread writes them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.training.checkpoint import CheckpointConfig, prune_checkpoints, record_evaluation, save_checkpoint

Tensors = dict[str, dict[str, Tensor]]


class Snapshots:
    """Writes checkpoints and their scores to a folder, and removes those that are not kept.

    On CUDA `save` only queues copies to pinned memory, which is kept for the run, and a thread waits for them and
    writes; one checkpoint is under way at a time. On the CPU everything is done in place: a thread would take the core
    from the training.

    Args:
        folder: of the checkpoints.
        config: which are kept.
        device: that trains.
        writes: whether anything is written: by one process of a run.

    Attributes:
        unscored: steps of checkpoints that are kept until they have their score.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, device: torch.device, *, writes: bool = True) -> None:
        self.folder, self.config, self.writes = folder, config, writes
        self.unscored: set[int] = set()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints") if device.type == "cuda" else None
        self._jobs: list[Future[None]] = []
        self._pinned: Tensors = {}

    def save(self, step: int, tensors: Tensors, state: dict[str, Any], *, finite: Tensor, otherwise: str) -> None:
        """Write the checkpoint of `step`; on CUDA the tensors may change as soon as this returns.

        Args:
            step: updates made.
            tensors: by the name of their file.
            state: the JSON part.
            finite: a bool on the device, whether the weights may be saved.
            otherwise: what is said when they may not.

        Raises:
            UserError: what `check` raises; on the CPU also that the weights may not be saved, or cannot.
        """
        if not self.writes:
            return
        self.wait()
        arrived = None
        if self._writer is not None:
            copies = self._copied({**tensors, "": {"finite": finite}})
            finite = copies.pop("")["finite"]
            tensors = copies
            arrived = torch.cuda.Event(blocking=True)
            arrived.record()

        def write() -> None:
            if arrived is not None:
                arrived.synchronize()
            if not bool(finite):
                raise UserError(otherwise)
            save_checkpoint(self.folder, step, tensors, state)
            self._prune()

        self._do(write)

    def record(self, step: int, result: dict[str, Any]) -> None:
        """Put the evaluation of a checkpoint beside it, which may be kept for its score from now on."""

        def write() -> None:
            record_evaluation(self.folder / f"{step:08d}", result)
            self._prune()

        self._do(write)

    @property
    def written(self) -> Future[None] | None:
        """Done when everything is written that was given so far; None when it is."""
        return self._jobs[-1] if self._jobs else None

    def check(self) -> None:
        """Raise the UserError of a checkpoint that could not be written."""
        done = [job for job in self._jobs if job.done()]
        self._jobs = [job for job in self._jobs if job not in done]
        for job in done:
            job.result()

    def wait(self) -> None:
        """Wait until everything is written; raises as `check`."""
        while self._jobs:
            self._jobs.pop(0).result()

    def close(self) -> None:
        """End the thread when everything is written; raises as `check`."""
        if self._writer is not None:
            self._writer.shutdown()
        self.wait()

    def _do(self, work: Callable[[], None]) -> None:
        if not self.writes:
            return
        if self._writer is None:
            work()
        else:
            self._jobs.append(self._writer.submit(work))

    def _copied(self, tensors: Tensors) -> Tensors:
        """Copies in pinned memory, there when what is queued now is done."""
        for name, values in tensors.items():
            buffers = self._pinned.setdefault(name, {})
            for key, value in values.items():
                if key not in buffers:
                    buffers[key] = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
                buffers[key].copy_(value.detach(), non_blocking=True)
        return {name: dict(self._pinned[name]) for name in tensors}

    def _prune(self) -> None:
        prune_checkpoints(self.folder, self.config, self.unscored)
