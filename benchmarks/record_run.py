"""Record a run directory as a result: how long it trained, and every score that it was given.

policy-accel demo
policy-accel evaluate runs/demo --episodes 100 --seed 200000 --videos 0
python benchmarks/record_run.py runs/demo --command "policy-accel demo" --output benchmarks/results/demo_cpu.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from results import write_result

from policy_accel.run_files import read_config


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--command", required=True, help="what made the run")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--note", help="what a reader of the figures should know")
    options = parser.parse_args()
    trained = [row for row in rows(options.run_dir / "metrics.jsonl") if "loss" in row][-1]
    scores = [
        {**result, "episodes": len(result["episodes"])} if "episodes" in result else result
        for result in rows(options.run_dir / "evaluations.jsonl")
    ]
    figures = {
        "made_by": options.command,
        **({"note": options.note} if options.note else {}),
        "training_seed": read_config(options.run_dir)["seed"],
        "updates": trained["step"],
        "training_seconds": round(trained["training_seconds"], 1),
        "updates_per_second": round(trained["step"] / trained["training_seconds"], 1),
        "last_loss": trained["loss"],
        "scores": scores,
    }
    write_result(options.output, figures)


if __name__ == "__main__":
    main()
