"""Validation and checkpoints beside the updates, on the simulated device: what waits, what is written, what fails."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import signalled_at
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.errors import UserError
from policy_accel.run_files import checkpoint_steps, read_metrics
from policy_accel.training import Trained, TrainingConfig, snapshots
from policy_accel.training.checkpoint import CheckpointConfig, load_checkpoint
from policy_accel.training.snapshots import Snapshots

Run = Callable[..., Trained]
pytestmark = pytest.mark.usefixtures("quick_warm_up")


def logged(run_dir: Path) -> list[tuple[int, str, float]]:
    rows = read_metrics(run_dir / "metrics.jsonl")
    return [(row["step"], key, row[key]) for row in rows for key in ("loss", "validation_loss") if key in row]


def test_the_host_waits_at_log_points_alone(
    device_task: Callable[..., Any], config: TrainingConfig, run: Run, tmp_path: Path, cuda: SimulatedCuda
) -> None:
    """Once each, for losses and validation losses together, also where a checkpoint is saved."""
    config.device, config.steps = "cuda", 60
    config.logging.every, config.validate_every, config.checkpoint.every = 10, 7, 20
    waits: dict[int, int] = {}
    run(device_task(), config, after_update=lambda step: waits.__setitem__(step, cuda.waits["setup"].total()))
    per_step = {step: waits[step] - waits[step - 1] for step in range(11, 61)}
    assert {step: count for step, count in per_step.items() if count} == {21: 1, 31: 1, 41: 1, 51: 1, 11: 1}
    assert not cuda.hazards
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [40, 60]


def test_validation_rows_keep_their_step_and_come_in_order(
    device_task: Callable[..., Any], config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.steps, config.logging.every, config.validate_every, config.checkpoint.every = 20, 6, 4, 0
    run(device_task(), config, "cpu")
    on_cpu = logged(tmp_path / "cpu")
    assert [step for step, key, _ in on_cpu if key == "loss"] == [4, 8, 12, 16, 20], "each validation ends a row"
    config.device = "cuda"
    with SimulatedCuda():
        run(device_task(), config, "cuda")
    on_cuda = logged(tmp_path / "cuda")
    order = [(step, "loss" if key == "loss" else "v") for step, key, _ in on_cuda]
    assert order == [
        (4, "v"), (6, "loss"), (8, "v"), (12, "loss"), (12, "v"), (16, "v"), (18, "loss"), (20, "loss"), (20, "v"),
    ]  # fmt: skip
    values, expected = ([row[2] for row in rows if row[1] != "loss"] for rows in (on_cuda, on_cpu))
    assert values == pytest.approx(expected, rel=2e-3), "rounding alone moves a bias"


class InPlace(Snapshots):
    """Writes while the training waits, as on the CPU."""

    def __init__(self, folder: Path, config: CheckpointConfig, device: torch.device, **options: Any) -> None:
        super().__init__(folder, config, torch.device("cpu"), **options)


def contents(folder: Path) -> dict[str, Any]:
    """Every file of every checkpoint; of state.json all but the seconds."""
    found: dict[str, Any] = {"last": os.readlink(folder / "last")}
    for path in sorted(folder.glob("0*/*")):
        found[str(path.relative_to(folder))] = path.read_bytes()
        if path.name == "state.json":
            found[str(path.relative_to(folder))] = {**json.loads(path.read_text()), "training_seconds": 0}
    return found


def test_a_checkpoint_is_the_one_that_is_written_in_place(
    device_task: Callable[..., Any],
    config: TrainingConfig,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cuda: SimulatedCuda,
) -> None:
    """Each is written only after two more updates have changed the weights."""
    config.device, config.checkpoint.keep_last, config.ema.lengths = "cuda", 4, [0.1]
    with monkeypatch.context() as patch:
        patch.setattr("policy_accel.training.loop.Snapshots", InPlace)
        run(device_task(), config, "in place")
    moved, write = threading.Semaphore(0), snapshots.save_checkpoint
    written: list[tuple[int, str]] = []

    def late(folder: Path, step: int, *args: Any) -> Path:
        assert moved.acquire(timeout=60)
        written.append((step, threading.current_thread().name.partition("_")[0]))
        return write(folder, step, *args)

    def after(step: int) -> None:
        if step in (5, 8, 11, 12):
            moved.release()

    monkeypatch.setattr(snapshots, "save_checkpoint", late)
    run(device_task(), config, "beside", after_update=after)
    assert written == [(step, "checkpoints") for step in (3, 6, 9, 12)]
    in_place, beside = (contents(tmp_path / name / "checkpoints") for name in ("in place", "beside"))
    assert len(in_place) == 1 + 4 * 5
    assert beside == in_place
    assert not cuda.hazards


def test_pinned_buffers_are_kept_for_the_run(tmp_path: Path, cuda: SimulatedCuda) -> None:
    store, finite = Snapshots(tmp_path, CheckpointConfig(), CUDA), torch.ones((), dtype=torch.bool, device="cuda")
    weight = torch.ones(3, device="cuda")
    buffers = []
    for step in (1, 2):
        store.save(step, {"model": {"w": step * weight}}, {}, finite=finite, otherwise="")
        buffers.append(store._pinned["model"]["w"])
    store.close()
    assert buffers[0] is buffers[1]
    saved = [load_checkpoint(tmp_path / f"{step:08d}").tensors["model"]["w"] for step in (1, 2)]
    assert torch.equal(saved[0], torch.ones(3))
    assert torch.equal(saved[1], torch.full((3,), 2.0))


@pytest.mark.parametrize("at_the_end", [False, True])
def test_weights_that_are_not_finite_are_said_at_the_next_log_point(
    at_the_end: bool,
    device_task: Callable[..., Any],
    config: TrainingConfig,
    run: Run,
    tmp_path: Path,
    cuda: SimulatedCuda,
) -> None:
    config.device, config.steps = "cuda", 6 if at_the_end else 12
    task, seen = device_task(), []

    def poison(step: int) -> None:
        seen.append(step)
        if step == 6:
            next(task.model.parameters()).data.fill_(math.inf)

    with pytest.raises(UserError, match=r"weights after update 6 are not finite.*checkpoints/00000003"):
        run(task, config, after_update=poison)
    assert seen[-1] == (6 if at_the_end else 8)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [3]


@pytest.mark.parametrize("stop", [None, 7])
def test_a_full_disk_is_said_and_what_was_there_stays(
    stop: int | None,
    device_task: Callable[..., Any],
    config: TrainingConfig,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cuda: SimulatedCuda,
) -> None:
    """At the next log point, or by a run that is interrupted before it."""
    config.device, config.logging.every, config.validate_every = "cuda", 12, 0
    config.checkpoint.every = 6
    run(device_task(), config, after_update=signalled_at(5))
    sync = os.fsync

    def full(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    def interrupt(step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"00000006: the disk is full.*free some space"):
        run(device_task(), config, after_update=interrupt)
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["00000005", "last"]
    assert load_checkpoint(folder / "last").step == 5


def test_a_failed_write_ends_the_run_at_the_next_log_point(
    device_task: Callable[..., Any],
    config: TrainingConfig,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    cuda: SimulatedCuda,
) -> None:
    config.device, config.logging.every, config.validate_every, config.checkpoint.every = "cuda", 2, 0, 6
    failed, seen = threading.Event(), []

    def full(*_: Any) -> None:
        failed.set()
        raise UserError("the disk is full")

    def wait(step: int) -> None:
        seen.append(step)
        if step == 7:
            assert failed.wait(10)
            time.sleep(0.1)  # until the thread has handed the error on

    monkeypatch.setattr("policy_accel.training.snapshots.save_checkpoint", full)
    with pytest.raises(UserError, match="the disk is full"):
        run(device_task(), config, after_update=wait)
    assert seen[-1] == 8


def test_a_run_that_is_killed_in_the_middle_of_a_write_goes_on_bit_for_bit(
    device_task: Callable[..., Any],
    config: TrainingConfig,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cuda: SimulatedCuda,
) -> None:
    """A copy of the directory as it is before the checkpoint gets its name is what SIGKILL would leave."""
    config.device, replace = "cuda", os.replace

    def kill(source: Path, target: Path) -> None:
        if Path(target).name == "00000009":
            shutil.copytree(tmp_path / "whole", tmp_path / "killed", symlinks=True)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        run(device_task(), config, "whole")
    folder = tmp_path / "killed" / "checkpoints"
    assert checkpoint_steps(folder) == [3, 6]
    assert list(folder.glob(".00000009.*.partial/model.safetensors")), "the write was under way"
    run(device_task(), config, "killed")
    last = (contents(tmp_path / name / "checkpoints") for name in ("killed", "whole"))
    killed, whole = ({name: value for name, value in found.items() if "00000012" in name} for found in last)
    assert len(whole) == 4
    assert killed == whole
    assert not list(folder.glob(".*"))
