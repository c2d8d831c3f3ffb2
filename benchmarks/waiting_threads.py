"""Forward and backward passes of the small Push-T net beside a busy process, by how torch's threads wait.

    python benchmarks/waiting_threads.py

Every measurement has a process of its own; the settings take turns. `--busy` processes count meanwhile, at the same
priority; what else runs on the machine is not known, so the load is recorded too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

SETTINGS: dict[str, tuple[int, dict[str, str]]] = {
    "one thread": (1, {}),
    "two threads, OpenMP's default": (2, {}),
    "two threads that wait passively": (2, {"OMP_WAIT_POLICY": "passive"}),
    "two threads that spin briefly (the package's choice)": (2, {"GOMP_SPINCOUNT": "2000"}),
}


def count_for_ever() -> None:
    while True:
        pass


def passes_per_second(threads: int, seconds: float) -> tuple[float, float]:
    """Forward and backward passes a second, and CPU seconds of one; torch is loaded here, before the package
    can set anything."""
    import torch

    from policy_accel.models import build_denoiser
    from policy_accel.policy.track import ROBOT
    from policy_accel.training.devices import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    net = build_denoiser(ROBOT.config(["recipe=small"]).model, channels=2, horizon=16, condition_shape=(2, 20))
    batch = torch.randn(128, 16, 2), torch.randint(100, (128,)), torch.randn(128, 2, 20)
    net(*batch).sum().backward()
    passes, began, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        net(*batch).sum().backward()
        passes += 1
    return passes / (time.perf_counter() - began), (time.process_time() - used) / passes


def measure(threads: int, environment: dict[str, str], seconds: float) -> tuple[float, float]:
    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT"):
        os.environ.pop(name, None)
    os.environ.update(environment)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(passes_per_second, threads, seconds).result()


def main() -> None:
    from results import RESULTS, write_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=1, help="processes that count meanwhile; 0 for a quiet machine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--output", type=Path, default=RESULTS / "waiting_threads_cpu.json")
    arguments = parser.parse_args()
    others = [multiprocessing.Process(target=count_for_ever, daemon=True) for _ in range(arguments.busy)]
    for other in others:
        other.start()
    load, found = os.getloadavg(), {name: [] for name in SETTINGS}
    for _ in range(arguments.rounds):
        for name, (threads, environment) in SETTINGS.items():
            found[name].append(measure(threads, environment, arguments.seconds))
            print(name, found[name][-1], flush=True)
    for other in others:
        other.terminate()
    figures: dict[str, Any] = {
        name: {
            "passes_per_second": round(statistics.median(rate for rate, _ in rows), 3),
            "rounds": [round(rate, 3) for rate, _ in rows],
            "cpu_seconds_per_pass": round(statistics.median(cpu for _, cpu in rows), 4),
        }
        for name, rows in found.items()
    }
    write_result(
        arguments.output,
        {
            "net": "small",
            "batch_size": 128,
            "busy_processes": arguments.busy,
            "load_average_before": [round(value, 2) for value in load],
            "settings": figures,
        },
    )


if __name__ == "__main__":
    main()
