"""A loop of 20 Hz around a policy beside a busy process: how many actions are late, by how the policy is driven.

    python benchmarks/robot_loop.py --seconds 60
    python benchmarks/robot_loop.py --run runs/fast --sampling-steps 4

Without --run an untrained small net of Push-T takes the same time. `act` is `Policy.act`, which predicts every eighth
time that it is called. An action is late when it comes after the end of its control step of 50 ms, or when there was
none to hand out. Each way has the same observations, made up.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from results import RESULTS, write_result
from waiting_threads import count_for_ever

from policy_accel import Policy
from policy_accel.policy.track import ROBOT
from policy_accel.robot.control.clock import RealClock

WAYS = {
    "act": {},
    "sync": {"mode": "sync"},
    "async": {"mode": "async"},
    "async, process": {"mode": "async", "process": True},
    "async, real-time priority": {"mode": "async", "real_time": True},
    "async, real-time chunking": {"mode": "async", "joining": "real_time_chunking"},
    "async, in-painting": {"mode": "async", "joining": "inpainting"},
    "streaming, ensembling": {"mode": "streaming", "joining": "ensembling"},
}


def untrained(folder: str) -> Path:
    """A run of one update."""
    settings = ["recipe=small", "task=pusht_keypoints", "training.steps=1", "training.threads=1", "training.device=cpu"]
    settings += ["evaluation.episodes=0", "training.validate_every=0", f"run_dir={folder}/run"]
    ROBOT.train(ROBOT.config(settings))
    return Path(folder) / "run"


def drive(policy: Policy, how: dict[str, Any], rate: float, seconds: float) -> dict[str, Any]:
    """Play for `seconds`; times in milliseconds."""
    policy.latency.seconds.clear()
    policy.reset()
    controller = policy.controller(rate, **how) if how else None
    generator, clock = np.random.default_rng(0), RealClock()
    observations = generator.uniform(0, 500, (int(seconds * rate), policy.run.policy.input_dim))
    calls, late, woken = [], 0, []
    with controller or nullcontext():
        act = policy.act if controller is None else controller.act
        act(observations[0])
        start = clock.now()
        for step, observation in enumerate(observations[1:], 1):
            clock.sleep_until(start + step / rate)
            began = clock.now()
            act(observation)
            ended = clock.now()
            woken.append(began - start - step / rate)
            calls.append(ended - began)
            late += ended > start + (step + 1) / rate
    figures = {"calls": len(calls), "late": late}
    if controller is not None:
        figures |= {"no_action_left": controller.late_calls, "n_latency_steps": controller.n_latency_steps}
    for name, values in (("call", calls), ("woken_late_by", woken), ("prediction", policy.latency.seconds)):
        found = zip(("p50", "p99", "max"), np.percentile(values, [50, 99, 100]), strict=True)
        figures[f"{name}_ms"] = {key: round(1000 * float(value), 3) for key, value in found}
    return {**figures, "predictions": len(policy.latency.seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a trained policy")
    parser.add_argument("--sampling-steps", type=int, default=4)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each way")
    parser.add_argument("--busy", type=int, default=1, help="processes that count meanwhile")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--output", type=Path, default=RESULTS / "robot_loop_cpu.json")
    options = parser.parse_args()
    others = [multiprocessing.Process(target=count_for_ever, daemon=True) for _ in range(options.busy)]
    ways: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        run_dir = options.run or untrained(folder)
        policy = Policy.load(run_dir, device="cpu", sampling_steps=options.sampling_steps)
        for other in others:
            other.start()
        try:
            for name in options.ways:
                ways[name] = drive(policy, WAYS[name], options.rate, options.seconds)
                print(name, ways[name], flush=True)
        finally:
            for other in others:
                other.terminate()
    figures = {"rate": options.rate, "seconds": options.seconds, "busy_processes": options.busy}
    write_result(options.output, {**figures, "sampling_steps": options.sampling_steps, "ways": ways})


if __name__ == "__main__":
    main()
