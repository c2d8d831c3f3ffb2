"""Two processes of one run against one process, on the CPUs of this machine.

    python benchmarks/ranks.py --net small
    python benchmarks/ranks.py --net reference --updates 2 --rounds 3

Strong scaling: two processes share the recipe's batch. Weak scaling: they share twice the batch. Beside them one
process with two torch threads, which is what a run takes by itself; all others have one thread. Every measurement has
processes of its own; in each round the sides take turns, in reverse order in every other round.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import socket
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from policy_accel.benchmark.step import CoreSide, Timing, timed
from policy_accel.policy.track import ROBOT
from policy_accel.training.build import build_update
from policy_accel.training.ranks import Ranks, joined

RECIPES = {"small": "small", "reference": "diffusion_policy"}


@dataclass(frozen=True)
class Side:
    """processes, with so many torch threads each, share so many of the recipe's batches."""

    processes: int
    threads: int
    batches: int


ONE, STRONG, WEAK, THREADS = "one process", "two, the same batch", "two, twice the batch", "one, two threads"
SIDES = {ONE: Side(1, 1, 1), STRONG: Side(2, 1, 1), WEAK: Side(2, 1, 2), THREADS: Side(1, 2, 1)}


@dataclass(frozen=True)
class Measured:
    """Of an update: seconds on the clock, CPU seconds of all processes; the loss of the last one."""

    seconds: float
    cpu_seconds: float
    last_loss: float


def timed_updates(ranks: Ranks, overrides: Sequence[str], updates: int, warm_up: int) -> Measured:
    """Updates of this process, which begin when those of the others do."""
    config = ROBOT.config(list(overrides))
    core = CoreSide(build_update(ROBOT.build(config), config.training, config.seed, ranks))
    for _ in range(warm_up):
        core()
    ranks.any(False)
    timing: Timing = timed(core, updates, core.update.device)
    core.read()
    if not math.isfinite(core.last_loss):
        raise SystemExit(f"the loss is {core.last_loss}; a speed without training is worth nothing")
    return Measured(timing.seconds, timing.cpu_seconds, core.last_loss)


def in_this_process(rank: int, port: int, side: Side, overrides: Sequence[str], updates: int, warm_up: int) -> Measured:
    """Join the others as if torchrun had started this process, and measure."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": side.processes, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(side.threads)
    with joined(torch.device("cpu")) as ranks:
        return timed_updates(ranks, overrides, updates, warm_up)


def measure(side: Side, overrides: Sequence[str], updates: int, warm_up: int) -> Measured:
    """One side in processes of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count, spawn = side.processes, multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=spawn) as pool:
        same = map(repeat, (port, side, overrides, updates, warm_up))
        return together(list(pool.map(in_this_process, range(count), *same)))


def together(parts: Sequence[Measured]) -> Measured:
    """The slowest process says when an update is done; all of them work for it."""
    seconds, cpu = max(part.seconds for part in parts), sum(part.cpu_seconds for part in parts)
    return Measured(seconds, cpu, parts[0].last_loss)


def summary(rounds: dict[str, list[Measured]], batch_size: int) -> dict[str, Any]:
    """Rates of every side, medians over the rounds, and how they scale, by round."""
    sides = {
        name: {
            **asdict(SIDES[name]),
            "batch_size": batch_size * SIDES[name].batches,
            "updates_per_second": _rounded(statistics.median(1 / one.seconds for one in found)),
            "samples_per_second": _rounded(
                statistics.median(batch_size * SIDES[name].batches / one.seconds for one in found)
            ),
            "cpu_seconds_per_update": _rounded(statistics.median(one.cpu_seconds for one in found)),
            "last_loss": found[-1].last_loss,
            "rounds": [{"seconds": _rounded(one.seconds), "cpu_seconds": _rounded(one.cpu_seconds)} for one in found],
        }
        for name, found in rounds.items()
    }
    pairs = {
        "strong_scaling": (STRONG, ONE),
        "weak_scaling": (WEAK, ONE),
        "two_threads": (THREADS, ONE),
        "two_processes_over_two_threads": (STRONG, THREADS),
    }
    return {"sides": sides, **{name: _times(rounds, *pair) for name, pair in pairs.items()}}


def _times(rounds: dict[str, list[Measured]], side: str, other: str) -> dict[str, float]:
    """Samples a second of `side`, as a multiple of those of `other`; CPU seconds of a sample, likewise."""
    batches = SIDES[side].batches / SIDES[other].batches
    pairs = list(zip(rounds[side], rounds[other], strict=True))
    rates = [batches * two.seconds / one.seconds for one, two in pairs]
    cpu = statistics.median(one.cpu_seconds / two.cpu_seconds / batches for one, two in pairs)
    figures = {"median": statistics.median(rates), "min": min(rates), "max": max(rates), "cpu_seconds": cpu}
    return {name: _rounded(value) for name, value in figures.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def main() -> None:
    from results import RESULTS, write_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=RECIPES, nargs="+", default=list(RECIPES), help="nets and recipes")
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--updates", type=int, default=20, help="timed updates of a side in a round")
    parser.add_argument("--warm-up", type=int, default=2, help="untimed updates before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "ranks_cpu.json")
    arguments = parser.parse_args()
    if min(arguments.updates, arguments.warm_up, arguments.rounds) < 1:
        parser.error("--updates, --warm-up and --rounds must be at least 1")
    load, nets = os.getloadavg(), dict[str, Any]()
    for net in arguments.net:
        common = [f"recipe={RECIPES[net]}", "training.device=cpu", "evaluation.episodes=0"]
        batch_size = arguments.batch_size or ROBOT.config(common).training.batch_size
        rounds: dict[str, list[Measured]] = {name: [] for name in SIDES}
        for number in range(arguments.rounds):
            for name in SIDES if number % 2 == 0 else reversed(SIDES):
                side = SIDES[name]
                own = [f"training.batch_size={batch_size * side.batches}", f"training.threads={side.threads}"]
                rounds[name].append(measure(side, [*common, *own], arguments.updates, arguments.warm_up))
                print(f"{net}, round {number + 1}: {name}: {rounds[name][-1]}", flush=True)
        nets[net] = {"updates_per_round": arguments.updates, **summary(rounds, batch_size)}
        for name in ("strong_scaling", "weak_scaling", "two_threads", "two_processes_over_two_threads"):
            print(f"{net}: {name.replace('_', ' ')}: {nets[net][name]}")
    write_result(arguments.output, {"load_average_before": [round(value, 2) for value in load], "nets": nets})


if __name__ == "__main__":
    main()
