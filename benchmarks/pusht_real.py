"""Score on the real Push-T demonstrations: the small recipe on this machine, over fresh seeds.

    python benchmarks/pusht_real.py --data pusht_cchi_v7_replay.zarr --steps 6000 --seeds 42

Trains with `policy-accel train recipe=small`, scores the last checkpoint over 100 episodes from seed 100000 at each
number of network evaluations, and records the learning curve. No checkpoint is chosen by its score.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from results import RESULTS, write_result

COMMAND = [sys.executable, "-m", "policy_accel"]


def train(data: Path, steps: int, seed: int, curve_every: int, run_dir: Path, overrides: list[str]) -> None:
    arguments = [
        "train",
        "recipe=small",
        "task=pusht_keypoints",
        f"task.data={data}",
        "task.val_ratio=0",
        f"training.steps={steps}",
        f"training.evaluate_every={curve_every}",
        f"seed={seed}",
        "evaluation.videos=0",
        f"run_dir={run_dir}",
        *overrides,
    ]
    subprocess.run([*COMMAND, *arguments], check=True)


def score(run_dir: Path, evaluations: int) -> dict[str, object]:
    options = ["--episodes", "100", "--seed", "100000", "--sampling-steps", str(evaluations), "--videos", "0", "--json"]
    done = subprocess.run([*COMMAND, "evaluate", str(run_dir), *options], check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    kept = ("score", "score_interval", "success_rate", "success_interval", "sampler", "sampling_spacing", "seconds")
    return {"evaluations_a_chunk": evaluations, **{key: result[key] for key in kept}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="replay buffer of the human demonstrations")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--curve-every", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--output", type=Path, default=RESULTS / "pusht_real_small_cpu.json")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    runs = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            run_dir = Path(scratch) / "run"
            train(options.data, options.steps, seed, options.curve_every, run_dir, options.overrides)
            rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
            losses = {row["step"]: row for row in rows if "loss" in row}
            curve = [
                {
                    "step": row["step"],
                    "training_seconds": round(losses[row["step"]]["training_seconds"], 1),
                    "loss": losses[row["step"]]["loss"],
                    "score_50_episodes": row["score"],
                    "score_interval": row["score_interval"],
                }
                for row in rows
                if "score" in row
            ]
            last = losses[max(losses)]
            runs.append(
                {
                    "seed": seed,
                    "steps": options.steps,
                    "training_seconds": round(last["training_seconds"], 1),
                    "updates_per_second": round(last["step"] / last["training_seconds"], 1),
                    "scores_100_episodes": [score(run_dir, evaluations) for evaluations in options.evaluations],
                    "learning_curve": curve,
                }
            )
    write_result(options.output, {"task": "pusht_keypoints, 206 human episodes", "recipe": "small", "runs": runs})


if __name__ == "__main__":
    main()
