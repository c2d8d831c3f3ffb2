"""Updates per second of the training core beside the eager baseline: same net, same batch, same data, same machine.

    python benchmarks/steps_per_second.py --net small
    python benchmarks/steps_per_second.py --net reference --batch-size 256 --steps 20
    python benchmarks/steps_per_second.py --net reference --device cuda --compile --precision bf16

`--diffusion-policy FOLDER` measures a clone of real-stanford/diffusion_policy beside them (`reference_loop.py`).

`--beside FOLDER` measures the core of another checkout, for a comparison of before and after.

Every measurement has a process of its own (so that neither side's allocator settings reach the other); within a round
the sides take turns, in reverse order in every other round. The core runs through `train`, with its data order, EMA and
log rows; no side validates, evaluates or saves while it is timed. Ratios are of the CPU time of the training process:
on a machine with other jobs the wall clock says little. The DataLoader's worker is not counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from core_beside import cost
from eager_baseline import BaselineConfig, Clock, Steps
from eager_baseline import run as run_baseline
from reference_loop import run as run_reference
from results import RESULTS, write_result

from policy_accel.benchmark.rates import wait_for
from policy_accel.data.images import image_path
from policy_accel.models import UnetConfig
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.fields import columns
from policy_accel.policy.task_data import read_task_episodes
from policy_accel.policy.track import ROBOT
from policy_accel.training.devices import choose_device

RECIPES = {"small": "small", "reference": "diffusion_policy"}
BASELINE, REFERENCE, BESIDE = "baseline", "diffusion_policy", "core beside"


@dataclass(frozen=True)
class Measurement:
    """What both sides are asked to run: overrides of the configuration, timed updates, untimed ones before them."""

    overrides: tuple[str, ...]
    updates: int
    warmup_updates: int
    threads: int
    diffusion_policy: Path | None = None
    beside: Path | None = None


def seconds_of_core(measurement: Measurement) -> Clock:
    """What an update of `policy_accel.training.loop.train` takes."""
    overrides = list(measurement.overrides)
    device = choose_device(ROBOT.config(overrides).training.device)
    asked = overrides, measurement.updates, measurement.warmup_updates, measurement.threads
    return Clock(*cost(*asked, wait=lambda: wait_for(device)))


def seconds_of_core_beside(measurement: Measurement) -> Clock:
    """The same of another checkout, whose package and configurations are those of its folder."""
    code = "import json, sys; from core_beside import cost; print(json.dumps(cost(*json.loads(sys.argv[1]))))"
    asked = [list(measurement.overrides), measurement.updates, measurement.warmup_updates, measurement.threads]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", str(Path(__file__).parent)])}
    command = [sys.executable, "-c", code, json.dumps(asked)]
    done = subprocess.run(
        command, cwd=measurement.beside, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return Clock(wall, cpu)


def seconds_of_baseline(measurement: Measurement) -> Clock:
    """What an update of the eager loop takes."""
    steps, config = _of_baseline(measurement)
    return run_baseline(steps, config, updates=measurement.updates, warmup_updates=measurement.warmup_updates)


def seconds_of_reference(measurement: Measurement) -> Clock:
    """What an update of Diffusion Policy's own code takes."""
    assert measurement.diffusion_policy is not None
    steps, config = _of_baseline(measurement)
    return run_reference(
        steps,
        config,
        updates=measurement.updates,
        warmup_updates=measurement.warmup_updates,
        folder=measurement.diffusion_policy,
    )


def _of_baseline(measurement: Measurement) -> tuple[Steps, BaselineConfig]:
    torch.set_num_threads(measurement.threads)
    config = ROBOT.config(list(measurement.overrides))
    assert isinstance(config.model, UnetConfig)
    optimizer = config.training.optimizer
    return replay_buffer(config), BaselineConfig(
        net=config.model,
        batch_size=config.training.batch_size,
        lr=optimizer.lr,
        warmup_steps=optimizer.warmup_steps,
        total_steps=config.training.steps,
        prediction=config.diffusion.target,
        betas=(optimizer.betas[0], optimizer.betas[1]),
        weight_decay=optimizer.weight_decay,
        seed=config.seed,
        device=str(choose_device(config.training.device)),
    )


def replay_buffer(config: RobotConfig) -> Steps:
    """The demonstrations of `config` as plain arrays, with the episodes that train."""
    task = config.task
    episodes, split = read_task_episodes(task)
    return Steps(
        columns(episodes, task.observation), columns(episodes, [task.action]), episodes.episode_ends, split.train
    )


def in_own_process(side: Callable[[Measurement], Clock], measurement: Measurement) -> Clock:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(side, measurement).result()


def variants(arguments: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Names of the core's variants and the overrides that make them."""
    found: dict[str, tuple[str, ...]] = {"core": ()}
    if arguments.compile:
        found["core, compiled"] = ("training.compile=true",)
    if arguments.precision == "bf16":
        found |= {f"{name}, bf16": (*extra, "training.precision=bf16") for name, extra in list(found.items())}
    return found


def measure(arguments: argparse.Namespace, overrides: tuple[str, ...]) -> dict[str, list[Clock]]:
    """Seconds of an update of every side, one measurement a round."""
    reference = {REFERENCE: ()} if arguments.diffusion_policy else {}
    beside = {BESIDE: ()} if arguments.beside else {}
    sides = {BASELINE: (), **reference, **beside, **variants(arguments)}
    programs = {BASELINE: seconds_of_baseline, REFERENCE: seconds_of_reference, BESIDE: seconds_of_core_beside}
    spent: dict[str, list[Clock]] = {name: [] for name in sides}
    for number in range(arguments.rounds):
        for name in sides if number % 2 == 0 else reversed(sides):
            measurement = Measurement(
                (*overrides, *sides[name]),
                arguments.steps,
                arguments.warmup_steps,
                arguments.threads,
                arguments.diffusion_policy,
                arguments.beside,
            )
            spent[name].append(in_own_process(programs.get(name, seconds_of_core), measurement))
            print(f"round {number + 1}: {name}: {spent[name][-1]}", flush=True)
    return spent


def summary(spent: dict[str, list[Clock]]) -> dict[str, Any]:
    """Median CPU seconds and rate of every side, and how many times as fast as each loop of the same round it is, in
    CPU time: median, smallest and largest."""
    sides: dict[str, Any] = {}
    loops = [name for name in (BASELINE, REFERENCE, BESIDE) if name in spent]
    for name, clocks in spent.items():
        sides[name] = {
            "cpu_seconds_per_update": rounded(statistics.median(clock.cpu for clock in clocks)),
            "updates_per_second": rounded(statistics.median(1.0 / clock.wall for clock in clocks)),
            "rounds": [{"cpu_seconds": rounded(clock.cpu), "wall_seconds": rounded(clock.wall)} for clock in clocks],
        }
        for loop in loops:
            if name != loop:
                ratios = [base.cpu / clock.cpu for clock, base in zip(clocks, spent[loop], strict=True)]
                figures = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
                sides[name][f"times_the_{loop.replace(' ', '_')}"] = {
                    key: rounded(value) for key, value in figures.items()
                }
    return sides


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=RECIPES, default="small", help="net and settings of which recipe")
    parser.add_argument("--data", type=Path, help="replay buffer; default: the demonstrations that ship")
    parser.add_argument("--diffusion-policy", type=Path, help="a clone of real-stanford/diffusion_policy")
    parser.add_argument("--beside", type=Path, help="another checkout, whose core is measured too")
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--steps", type=int, default=300, help="timed updates of a side in a round")
    parser.add_argument("--warmup-steps", type=int, default=20, help="untimed updates before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="also the core with torch.compile")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: also the core in bf16")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if min(arguments.steps, arguments.warmup_steps, arguments.rounds, arguments.threads) < 1:
        parser.error("--steps, --warmup-steps, --rounds and --threads must be at least 1")
    return arguments


def main() -> None:
    arguments = parse()
    overrides = [
        f"recipe={RECIPES[arguments.net]}",
        f"training.device={arguments.device}",
        "training.validate_every=0",
        "training.evaluate_every=0",
        "training.checkpoint.every=0",
        "evaluation.episodes=0",
    ]
    if arguments.data is not None:
        overrides.append(f"task.data={arguments.data.resolve()}")
    if arguments.batch_size is not None:
        overrides.append(f"training.batch_size={arguments.batch_size}")
    config = ROBOT.config(overrides)
    device = choose_device(arguments.device)
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()
    sides = summary(measure(arguments, tuple(overrides)))
    for name, side in sides.items():
        times = "".join(
            f", {value['median']} {key.replace('_', ' ')} ({value['min']} to {value['max']})"
            for key, value in side.items()
            if key.startswith("times_the_")
        )
        print(f"{name}: {side['cpu_seconds_per_update']} CPU seconds an update{times}")
    write_result(
        arguments.output or RESULTS / f"steps_per_second_{arguments.net}_{device.type}.json",
        {
            "net": arguments.net,
            "data": image_path(config.task.data).name,
            "batch_size": config.training.batch_size,
            "device": device.type,
            "seed": config.seed,
            "updates_per_round": arguments.steps,
            "warmup_updates": arguments.warmup_steps,
            "log_every": config.training.logging.every,
            "load_average_before": [round(value, 2) for value in load],
            "sides": sides,
        },
    )


if __name__ == "__main__":
    main()
