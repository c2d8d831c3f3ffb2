"""AdamW and Muon on other tasks than Push-T: how many updates each takes to a score, both tuned with the same budget.

    policy-accel data generate pointmaze_medium --episodes 200
    policy-accel data generate lift --episodes 120
    policy-accel data generate can --episodes 150
    python benchmarks/optimizers_by_task.py --task lift --data lift_120_0.hdf5 --folder runs/lift

Each optimiser's rate is chosen among three at the task's middle length, with a training seed and episodes of its own.
Then every length is a run of its own, whose learning rate falls to zero at its end, with three training seeds and one
set of episodes for all. Intervals hold the luck of training seeds (`policy_accel.comparison.statistics`).
`updates_of_adamw` are those after which AdamW's scores, joined by lines over the logarithm of the updates, first reach
Muon's. Held-out loss stands beside the score. What is done is kept in the folder, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pusht_speedrun import LINEAR, Kept, estimate, run
from results import RESULTS, write_result

RATES = {
    "adamw": [["training.optimizer.lr=1e-3"], ["training.optimizer.lr=2e-3"], ["training.optimizer.lr=4e-3"]],
    "muon": [
        ["training.optimizer.lr=1e-3", "training.optimizer.matrix_lr=2e-3"],
        ["training.optimizer.lr=1e-3", "training.optimizer.matrix_lr=4e-3"],
        ["training.optimizer.lr=1e-3", "training.optimizer.matrix_lr=8e-3"],
    ],
}
TUNING_SEED, TUNING_STARTS = 1001, 500_000


@dataclass(frozen=True)
class Task:
    """Updates of the runs of each optimiser, ascending; settings; episodes of a score."""

    lengths: dict[str, Sequence[int]]
    episodes: int
    settings: Sequence[str] = ()


TASKS = {
    "pointmaze_medium": Task({"adamw": (250, 500, 1000), "muon": (250, 500)}, 100),
    "adroit_door": Task({"adamw": (400, 800), "muon": (400, 800)}, 60, ["task.val_ratio=0.1"]),
    "lift": Task({"adamw": (200, 400, 600), "muon": (200, 400)}, 40, ["task.max_steps=120"]),
    "can": Task({"adamw": (250, 500, 750), "muon": (250, 500)}, 40, ["task.max_steps=200"]),
}


@dataclass(frozen=True)
class Arm:
    """A run: an optimiser with its rates, for so many updates, from a training seed."""

    optimizer: str
    rates: Sequence[str]
    updates: int
    seed: int

    @property
    def name(self) -> str:
        """Of its run directory."""
        rates = "-".join(rate.rpartition("=")[2] for rate in self.rates)
        return f"{self.optimizer}-{rates}-{self.updates}-seed{self.seed}"


def trained(arm: Arm, options: argparse.Namespace, kept: Kept) -> dict[str, Any]:
    """Train an arm; its seconds, last loss and held-out loss."""
    run_dir = options.folder / arm.name
    command = ["train", f"task={options.task}", "recipe=small", f"training/optimizer={arm.optimizer}", *LINEAR]
    command += [*arm.rates, *TASKS[options.task].settings, f"task.data={options.data}", "training.threads=1"]
    command += [f"training.steps={arm.updates}", f"training.validate_every={arm.updates}", "evaluation.episodes=0"]

    def make() -> dict[str, Any]:
        seconds, _ = run([*command, f"seed={arm.seed}", f"run_dir={run_dir}"])
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        held_out = [row["validation_loss"] for row in rows if "validation_loss" in row]
        return {
            **seconds,
            "loss": [row["loss"] for row in rows if "loss" in row][-1],
            "held_out_loss": held_out[-1] if held_out else None,
        }

    found: dict[str, Any] = kept.get(f"train {arm.name}", make)
    return found


def scored(arm: Arm, episodes: int, start_seed: int, options: argparse.Namespace, kept: Kept) -> list[float]:
    """Train and score an arm: the scores of its episodes."""
    trained(arm, options, kept)
    played = ["--episodes", str(episodes), "--seed", str(start_seed), "--videos", "0", "--workers", "0"]

    def make() -> list[float]:
        _, printed = run(["evaluate", str(options.folder / arm.name), *played, "--json"])
        return [episode["score"] for episode in json.loads(printed.splitlines()[-1])["episodes"]]

    found: list[float] = kept.get(f"score {arm.name}, {episodes} from {start_seed}", make)
    return found


def tuned(optimizer: str, options: argparse.Namespace, kept: Kept) -> tuple[Sequence[str], list[dict[str, Any]]]:
    """The rates with the highest score, and the scores of all."""
    task, tried = TASKS[options.task], []
    for rates in RATES[optimizer]:
        arm = Arm(optimizer, rates, task.lengths[optimizer][1], TUNING_SEED)
        score = float(np.mean(scored(arm, task.episodes, TUNING_STARTS, options, kept)))
        tried.append({"rates": list(rates), "updates": arm.updates, "score": round(score, 4)})
    best = max(range(len(tried)), key=lambda index: tried[index]["score"])
    return RATES[optimizer][best], tried


def updates_to(score: float, curve: Sequence[tuple[int, float]]) -> float | None:
    """Updates after which the curve, lines over the logarithm of the updates, first reaches a score; None: never."""
    if curve[0][1] >= score:
        return float(curve[0][0])
    for (before, low), (after, high) in pairwise(curve):
        if high >= score:
            share = (score - low) / (high - low)
            return math.exp(math.log(before) + share * (math.log(after) - math.log(before)))
    return None


def summary(options: argparse.Namespace, kept: Kept) -> dict[str, Any]:
    """What was chosen, a row for each optimiser and length, and Muon beside AdamW."""
    task = TASKS[options.task]
    chosen = {optimizer: tuned(optimizer, options, kept) for optimizer in RATES}
    scores: dict[tuple[str, int], np.ndarray] = {}
    rows = []
    for optimizer, lengths in task.lengths.items():
        for updates in lengths:
            arms = [Arm(optimizer, chosen[optimizer][0], updates, seed) for seed in options.seeds]
            own = [scored(arm, task.episodes, options.start_seed, options, kept) for arm in arms]
            costs = [trained(arm, options, kept) for arm in arms]
            scores[optimizer, updates] = np.array(own)
            row: dict[str, Any] = {"optimizer": optimizer, "updates": updates}
            row |= estimate([scores[optimizer, updates]], [1.0], "score")
            row["by_seed"] = [round(float(np.mean(values)), 4) for values in own]
            for name in ("loss", "held_out_loss", "cpu_seconds"):
                row[name] = round(float(np.mean([cost[name] for cost in costs])), 4) if costs[0][name] else None
            rows.append(row)
    curve = [(updates, float(scores["adamw", updates].mean())) for updates in task.lengths["adamw"]]
    beside = []
    for updates in task.lengths["muon"]:
        needed = updates_to(float(scores["muon", updates].mean()), curve)
        beside.append(
            {
                "updates": updates,
                "updates_of_adamw": None if needed is None else round(needed),
                "at_the_first_length": needed == curve[0][0],
                **estimate([scores["adamw", updates], scores["muon", updates]], [-1.0, 1.0], "difference"),
            }
        )
    return {"tuning": {name: tried for name, (_, tried) in chosen.items()}, "runs": rows, "muon_beside_adamw": beside}


def table(result: dict[str, Any]) -> str:
    """The rows of a task for the page of results."""
    best = {name: max(tried, key=lambda one: one["score"])["rates"] for name, tried in result["tuning"].items()}
    lines = []
    for row in result["runs"]:
        rate = best[row["optimizer"]][-1].rpartition("=")[2]
        low, high = row["score_interval"]
        cells = (
            result["task"],
            f"{'Muon' if row['optimizer'] == 'muon' else 'AdamW'} {rate}",
            f"{row['updates']:,}",
            f"{row['score']:.3f}\u00a0[{low:.2f},\u00a0{high:.2f}]",
            f"{row['held_out_loss']:.4f}",
            f"{row['cpu_seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--data", type=Path, required=True, help="its demonstrations")
    parser.add_argument("--folder", type=Path, required=True, help="where runs and what is done are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--start-seed", type=int, default=300_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(options.folder, options.seeds)
    output = options.output or RESULTS / f"optimizers_{options.task}_cpu.json"
    facts = {"task": options.task, "data": options.data.name, "seeds": options.seeds, "start_seed": options.start_seed}
    episodes = {"episodes": TASKS[options.task].episodes, "settings": list(TASKS[options.task].settings)}
    result = {**facts, **episodes, **summary(options, kept)}
    write_result(output, result)
    print(table(result))


if __name__ == "__main__":
    main()
