"""Updates of the training core beside what the hardware allows and beside an eager loop, in interleaved rounds."""

from __future__ import annotations

import copy
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from policy_accel.benchmark.counting import Counted, count_update
from policy_accel.benchmark.eager import EagerLoop
from policy_accel.benchmark.operations import Operations
from policy_accel.benchmark.rates import copy_rate, matmul_rate, wait_for
from policy_accel.errors import UserError
from policy_accel.models.denoiser import Denoiser
from policy_accel.track import Track
from policy_accel.training.build import build_update
from policy_accel.training.config import RunConfig, TrainingConfig
from policy_accel.training.graphs import WARM_UP
from policy_accel.training.loss import denoising_loss
from policy_accel.training.randomness import DataOrder, Generators
from policy_accel.training.update import Update

QUEUED = 4
"""Updates that the host may queue without waiting for the device: fewer than `step_numbers.SLOTS`."""
ENDLESS = 1_000_000
"""Updates of the run that is measured, so that it does not end meanwhile."""


@dataclass(frozen=True)
class Floor:
    """Seconds that an update takes at least: its arithmetic at the rate of large matrix products, and what the state
    must read and write at the rate of large copies, one after the other."""

    arithmetic_seconds: float
    memory_seconds: float

    @property
    def seconds(self) -> float:
        """Both."""
        return self.arithmetic_seconds + self.memory_seconds


def floor_of(counted: Counted, flops_per_second: float, bytes_per_second: float) -> Floor:
    """The floor of an update on a device with these rates."""
    return Floor(counted.flops / flops_per_second, counted.state_bytes / bytes_per_second)


@dataclass(frozen=True)
class Timing:
    """Of one update, a mean over a round: seconds on the clock, CPU seconds of the process."""

    seconds: float
    cpu_seconds: float


class CoreSide:
    """The training core's update, as a run makes it; losses are read when the log is full."""

    def __init__(self, update: Update) -> None:
        self.update, self.step = update, 0
        self.last_loss = math.nan

    def __call__(self) -> None:
        """Make the next update."""
        self.update(self.step)
        self.step += 1
        if self.update.log.full:
            self.read()

    def read(self) -> None:
        """Wait for the losses."""
        if self.update.log.count:
            self.last_loss = float(self.update.log.read().losses[-1])


class EagerSide:
    """The same network in the eager loop, on batches that the task gathers, with as many rows and independent noise."""

    def __init__(self, update: Update, training: TrainingConfig, seed: int) -> None:
        task, device = update.task, update.device
        self.update, self.task, self.step = update, task, 0
        self.model: Denoiser = copy.deepcopy(task.model)
        rows = update.batch_size * task.objective.repetition.repeats
        self.order = DataOrder(task.samples, rows, seed, device if task.resident else torch.device("cpu"))
        self.generators, self.objective = Generators(seed, device), task.objective.plain()
        self.loop = EagerLoop(self.model, training.optimizer, training.steps)
        self.last_loss = math.nan

    def __call__(self) -> None:
        """Make the next update."""
        indices = self.order.batch(self.step)
        batch = self.task.batch(indices, self.task.draw(len(indices), self.generators.batch))
        noised = self.objective.draw(batch, self.generators.time, self.generators.noise)
        with self.update.autocast():
            loss = denoising_loss(self.model, batch, noised)
        self.last_loss = self.loop.update(loss)
        self.step += 1


def timed(side: Callable[[], None], updates: int, device: torch.device) -> Timing:
    """So many updates of one side, done when the device is."""
    wait_for(device)
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(updates):
        side()
    wait_for(device)
    return Timing((time.perf_counter() - clock) / updates, (time.process_time() - cpu) / updates)


def host_seconds(side: Callable[[], None], device: torch.device) -> float:
    """CPU seconds of the main thread for an update, while the device has room to queue it."""
    wait_for(device)
    began = time.thread_time()
    for _ in range(QUEUED):
        side()
    return (time.thread_time() - began) / QUEUED


def peak_bytes(device: torch.device) -> int:
    """Most memory that was in use: of the GPU by torch, or of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def benchmark_step(
    track: Track[Any],
    config: RunConfig,
    *,
    rounds: int,
    seconds: float,
    updates: int | None = None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Count an update of a run with the settings `config`, and measure it where `rounds` is above 0.

    Args:
        track: of the run.
        config: its settings.
        rounds: each times both sides; every other round in reverse order.
        seconds: for all rounds together, about.
        updates: timed in a round on each side; None for what fits into `seconds`.
        report: takes a line for the user.

    Returns:
        JSON-able: "counted", and when measured "rates", "floor", "core", "eager" and their ratios.

    Raises:
        UserError: no update, no time; a loss that is not finite.
    """
    least = {"--rounds": (rounds, 0), "--updates": (1 if updates is None else updates, 1)}
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise UserError(f"{name} {value} must be at least {smallest}.")
    if not seconds > 0:
        raise UserError(f"--seconds {seconds} must be positive.")
    training = config.training
    training.check()
    training.steps = max(training.steps, ENDLESS)
    report("counting")
    counted = count_update(track.build(config), training, config.seed)
    result: dict[str, Any] = {"counted": {**asdict(counted), "state_bytes": counted.state_bytes}}
    if not rounds:
        return result
    update = build_update(track.build(config), training, config.seed)
    return {**result, **_measured(update, counted, config, rounds, seconds, updates, report)}


def _measured(
    update: Update,
    counted: Counted,
    config: RunConfig,
    rounds: int,
    seconds: float,
    updates: int | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    device = update.device
    eager, core = EagerSide(update, config.training, config.seed), CoreSide(update)
    report("warming up")
    operations, outside = _launches(core)
    sides: dict[str, Callable[[], None]] = {"core": core, "eager": eager}
    eager()
    both = sum(timed(side, 1, device).seconds for side in sides.values())
    each = updates or max(1, int(seconds / rounds / both))
    rates: list[tuple[float, float]] = []
    timings: dict[str, list[Timing]] = {name: [] for name in sides}
    host = []
    for number in range(rounds):
        report(f"round {number + 1} of {rounds}: {each} updates of each side")
        rates.append((matmul_rate(device, update.precision), copy_rate(device)))
        if number == 0 and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for name in sides if number % 2 == 0 else reversed(sides):
            timings[name].append(timed(sides[name], each, device))
        host.append(host_seconds(core, device))
    core.read()
    for name, loss in (("core", core.last_loss), ("eager loop", eager.last_loss)):
        if not math.isfinite(loss):
            raise UserError(f"the loss of the {name} is {loss}; a speed without training is worth nothing.")
    matmul, copied = (max(values) for values in zip(*rates, strict=True))
    floor = floor_of(counted, matmul, copied)
    taken = statistics.median(timing.seconds for timing in timings["core"])
    return {
        "rates": {"matmul_flops_per_second": matmul, "copy_bytes_per_second": copied},
        "floor": {**asdict(floor), "seconds": floor.seconds},
        "core": {
            **_side(timings["core"]),
            "share_of_floor": floor.seconds / taken,
            "host_seconds": statistics.median(host),
            "operations": sum(operations.calls.values()),
            "operations_bytes": sum(operations.bytes.values()),
            "captured": outside is not None,
            "launches": None if outside is None else sum(outside.calls.values()),
            "graphs": 0 if update.captured is None else update.captured.graphs,
            "peak_bytes": peak_bytes(device),
            "last_loss": core.last_loss,
        },
        "eager": {**_side(timings["eager"]), "last_loss": eager.last_loss},
        "times_the_eager_loop": _ratio(timings, "seconds"),
        "times_the_eager_loop_in_cpu_seconds": _ratio(timings, "cpu_seconds"),
        "updates_of_a_round": each,
    }


def _launches(core: CoreSide) -> tuple[Operations, Operations | None]:
    """Warm up; gives the operations of an update as it is, and those beside the graphs where it is captured."""
    core()
    with Operations() as plain:
        core()
    if core.update.captured is None:
        return plain, None
    for _ in range(2 * WARM_UP + 2):  # two batches may be under way, each with graphs of its own
        core()
    with Operations() as beside:
        core()
    return plain, beside


def _side(timings: list[Timing]) -> dict[str, Any]:
    seconds = [timing.seconds for timing in timings]
    return {
        "updates_per_second": 1.0 / statistics.median(seconds),
        "rounds": [1.0 / value for value in seconds],
        "cpu_seconds": statistics.median(timing.cpu_seconds for timing in timings),
    }


def _ratio(timings: dict[str, list[Timing]], what: str) -> dict[str, float]:
    """Eager loop over core, of the same round: median, smallest and largest."""
    found = [
        getattr(eager, what) / getattr(core, what)
        for core, eager in zip(timings["core"], timings["eager"], strict=True)
    ]
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}
