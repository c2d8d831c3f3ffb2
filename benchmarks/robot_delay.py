"""What a late policy scores: Push-T beside delays of the prediction, by how it is driven and how chunks are joined.

    python benchmarks/robot_delay.py runs/fast-1 runs/fast-2 runs/fast-3 --sampling-times 99 25

Each run is a policy of its own training seed, scored on the same episodes by the rollouts of `policy-accel evaluate
RUN --delay-ms MS --rate 10 --mode MODE --joining JOINING`, in which the simulator does not wait. `sync` waits for each
chunk with the last action held. What is scored is kept in the output file, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from pusht_speedrun import estimate
from results import RESULTS, write_result

from policy_accel.evaluation.statistics import bootstrap_interval
from policy_accel.policy.track import ROBOT
from policy_accel.robot.control.config import JOININGS, ControlConfig
from policy_accel.robot.control.delayed import DelayConfig
from policy_accel.robot.control.evaluate import DelayedEvaluator
from policy_accel.run_sampling import AskedSampling
from policy_accel.training.devices import use_device

WAYS = [
    ("sync", "receding"),
    *(("async", joining) for joining in JOININGS),
    *(("streaming", joining) for joining in ("receding", "ensembling", "real_time_chunking", "inpainting")),
]


def score_run(run_dir: Path, options: argparse.Namespace, kept: dict[str, Any]) -> Iterator[None]:
    """Score one run in all ways that are not kept yet, each into `kept`; one at a time."""
    asked = AskedSampling(steps=options.sampling_steps, times=options.sampling_times)
    loaded = ROBOT.load(run_dir, asked=asked)
    config = loaded.config
    use_device(loaded.policy.device, threads=1, matmul_precision="highest")
    config.evaluation.episodes, config.evaluation.start_seed = options.episodes, options.start_seed
    config.evaluation.videos = 0
    none = DelayConfig(0.0, ControlConfig(options.rate))
    evaluator = DelayedEvaluator(config, loaded.policy, run_dir, loaded.env_args, delay=none)
    with closing(evaluator):
        for milliseconds in options.delays:
            for mode, joining in WAYS:
                name = f"{run_dir.name} {milliseconds:g} ms {mode} {joining}"
                if name in kept:
                    continue
                how = ControlConfig(options.rate, mode=mode, joining=joining)
                evaluator.delay = DelayConfig(milliseconds / 1000, how)
                result = evaluator(loaded.policy, print)
                kept[name] = {
                    "scores": [round(episode["score"], 4) for episode in result["episodes"]],
                    "success_rate": result["success_rate"],
                    "late_share": result["late_calls"] / result["calls"],
                }
                print(f"{name}: {result['score']:.3f}, late {kept[name]['late_share']:.3f}", flush=True)
                yield


def table(options: argparse.Namespace, kept: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each delay and way of which all runs are scored."""
    rows = []
    for milliseconds in options.delays:
        for mode, joining in WAYS:
            names = [f"{run_dir.name} {milliseconds:g} ms {mode} {joining}" for run_dir in options.run_dirs]
            if not all(name in kept for name in names):
                continue
            scores = np.array([kept[name]["scores"] for name in names])
            found = estimate([scores], [1.0], "score")
            if len(names) == 1:  # over episodes alone
                low, high = bootstrap_interval(scores[0].tolist(), 0.95)
                found["score_interval"] = [round(low, 4), round(high, 4)]
            rows.append(
                {
                    "delay_ms": milliseconds,
                    "mode": mode,
                    "joining": joining,
                    **found,
                    "success_rate": round(float(np.mean([kept[name]["success_rate"] for name in names])), 3),
                    "late_share": round(float(np.mean([kept[name]["late_share"] for name in names])), 4),
                }
            )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Scores with intervals and late actions: a line for each way, a column for each delay."""
    delays = sorted({row["delay_ms"] for row in rows})
    lines = [f"| mode | joining |{''.join(f' {delay:g} ms |' for delay in delays)}", f"|---|---|{'---|' * len(delays)}"]
    for mode, joining in WAYS:
        own = {row["delay_ms"]: row for row in rows if (row["mode"], row["joining"]) == (mode, joining)}
        cells = []
        for delay in delays:
            low, high = own[delay]["score_interval"]
            late = f", {own[delay]['late_share']:.0%} late" if own[delay]["late_share"] else ""
            cells.append(f" {own[delay]['score']:.3f} [{low:.2f}, {high:.2f}]{late} |")
        lines.append(f"| {mode} | {joining} |{''.join(cells)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN", help="of one task, other training seeds")
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 50, 100, 200], help="milliseconds of a chunk")
    parser.add_argument("--rate", type=float, default=10.0, help="steps of the environment a second")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--start-seed", type=int, default=500_000)
    parser.add_argument("--sampling-steps", type=int)
    parser.add_argument("--sampling-times", type=int, nargs="+")
    parser.add_argument("--output", type=Path, default=RESULTS / "robot_delay_cpu.json")
    options = parser.parse_args()
    kept = json.loads(options.output.read_text())["runs"] if options.output.is_file() else {}
    figures = {"episodes": options.episodes, "start_seed": options.start_seed, "rate": options.rate}
    for run_dir in options.run_dirs:
        for _ in score_run(run_dir, options, kept):
            write_result(options.output, {**figures, "rows": table(options, kept), "runs": kept})
    print(markdown(table(options, kept)))


if __name__ == "__main__":
    main()
