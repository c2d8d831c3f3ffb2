"""What fewer bits cost a policy: the score of its ONNX files, beside that of the run, on the same episodes.

    python benchmarks/export_weights.py RUN --sampling-steps 4 --episodes 200

Each file is made by `policy-accel export RUN --to onnx --weights W` and scored by `policy-accel evaluate FILE`. The
difference from the run is paired by episode. Latency is that of one prediction, on one thread; it says the load.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import RESULTS, write_result

from policy_accel.benchmark.latency import benchmark_latency
from policy_accel.cli import main as policy_accel
from policy_accel.commands.export_arguments import WEIGHTS
from policy_accel.evaluation.statistics import bootstrap_interval
from policy_accel.policy.controller import Policy


def scored(path: Path, words: list[str]) -> list[float]:
    """Scores of the episodes of a run or a file, in order of their seeds."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = policy_accel(["evaluate", str(path), "--videos", "0", "--json", *words])
    if status:
        raise SystemExit(status)
    return [episode["score"] for episode in json.loads(printed.getvalue())["episodes"]]


def row(name: str, path: Path, scores: list[float], beside: list[float], steps: int | None) -> dict[str, Any]:
    """The figures of one file, or of the run."""
    policy = Policy.load(path, device="cpu", sampling_steps=steps)
    difference = (np.array(scores) - np.array(beside)).tolist()
    return {
        "what": name,
        "megabytes": round(path.stat().st_size / 1e6, 2) if path.is_file() else None,
        "score": round(float(np.mean(scores)), 4),
        "score_interval": [round(end, 4) for end in bootstrap_interval(scores, 0.95)],
        "difference": round(float(np.mean(difference)), 4),
        "difference_interval": [round(end, 4) for end in bootstrap_interval(difference, 0.95)],
        "latency": benchmark_latency(policy, calls=200, seconds=10.0),
    }


def main() -> None:
    """Score all files and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--sampling-steps", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--start-seed", type=int, default=200_000)
    parser.add_argument("--output", type=Path, default=RESULTS / "export_weights.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = ["--episodes", str(options.episodes), "--seed", str(options.start_seed)]
    steps = ["--sampling-steps", str(options.sampling_steps)]
    beside = scored(options.run_dir, [*words, *steps])
    rows = [row("run", options.run_dir, beside, beside, options.sampling_steps)]
    with tempfile.TemporaryDirectory() as folder:
        for weights in WEIGHTS:
            path = Path(folder, f"{weights}.onnx")
            exported = ["export", str(options.run_dir), "--to", "onnx", "--weights", weights, "--output", str(path)]
            if policy_accel([*exported, *steps]):
                raise SystemExit(2)
            rows.append(row(f"onnx {weights}", path, scored(path, words), beside, None))
    for line in rows:
        print(json.dumps(line))
    write_result(options.output, {"episodes": options.episodes, "start_seed": options.start_seed, "rows": rows})


if __name__ == "__main__":
    main()
