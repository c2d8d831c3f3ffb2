"""What an update of the training core costs that is imported here: of this checkout, or of an older one beside it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from policy_accel.policy.track import ROBOT
from policy_accel.training.loop import train


class _Enough(Exception):
    """Ends a run when its updates are timed."""


def cost(
    overrides: list[str], updates: int, warmup_updates: int, threads: int, wait: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """Wall and CPU seconds of one of `updates`, after `warmup_updates`; `wait` waits for the device.

    Only names that older checkouts have too are used.
    """
    torch.set_num_threads(threads)
    config = ROBOT.config(overrides)
    last = warmup_updates + updates
    config.training.steps = max(config.training.steps, last + 1)
    marks: list[tuple[float, float]] = []

    def after_update(step: int) -> None:
        if step in (warmup_updates, last):
            wait()
            marks.append((time.perf_counter(), time.process_time()))
        if step == last:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        train(
            ROBOT.build(config),
            config.training,
            seed=config.seed,
            run_dir=Path(folder),
            run_config=ROBOT.record(config),
            after_update=after_update,
        )
    wall, cpu = ((end - begin) / updates for begin, end in zip(marks[0], marks[1], strict=True))
    return wall, cpu
