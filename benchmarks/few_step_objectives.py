"""Objectives for few evaluations: each trained for the same cost, and scored at 1 and 2 evaluations a chunk.

    python benchmarks/few_step_objectives.py --data pusht_cchi_v7_replay.zarr --folder runs/objectives
    python benchmarks/few_step_objectives.py --arms baseline fdm kl clts momentum_decay --steps 1000 ...
    python benchmarks/few_step_objectives.py --recipe two_modes --data two_modes.zarr.zip --folder runs/toy --steps 2000

The cost of an update is counted in passes of the network over a plain batch, a forward and a backward pass as one and a
forward pass alone as a third; every arm has as many updates as `--steps` plain ones pay for. Episodes are the same for
all, and nothing was chosen by them but the baseline's grid of two evaluations, its best, which the others are compared
with. Intervals are those of `policy_accel.comparison.statistics`: of one training seed they are over episodes alone.
What is done is kept in the folder, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pusht_speedrun import COMMON, LINEAR, Kept, estimate, run
from results import RESULTS, write_result

OPTIMIZERS = {
    "muon": ["training/optimizer=muon", *LINEAR],
    "adamw": ["training/optimizer=adamw", *LINEAR],
}
SHARED = {"small": COMMON, "two_modes": [setting for setting in COMMON if setting != "task=pusht_keypoints"]}
BASELINE = "baseline"
ONE_STEP = ["diffusion.family=mip", "diffusion.target=sample", "sampling.sampler=mip", "sampling.steps=2"]


@dataclass(frozen=True)
class Arm:
    """Settings of `train`; passes of an update, in plain ones; options of `evaluate` by number of evaluations."""

    settings: Sequence[str]
    passes: float = 1.0
    sampling: Sequence[Sequence[str]] = (("--sampling-steps", "1"), ("--sampling-steps", "2"))


UP_TO_FOUR = (("--sampling-steps", "1"), ("--sampling-steps", "2"), ("--sampling-steps", "4"))
ARMS = {
    BASELINE: Arm([], sampling=(*UP_TO_FOUR, ("--sampling-times", "99,25"))),
    "mip": Arm(["method=mip"], passes=2.0),
    "mip, one step of each sample": Arm([*ONE_STEP]),
    "mip, paper": Arm(["method=mip", "diffusion.form=paper"], passes=2.0),
    "shortcut": Arm(["method=shortcut"], passes=1.0 + 2 / 3 / 4),
    "flow": Arm(["method=flow"]),
    "fdm": Arm(["method=fdm"], sampling=UP_TO_FOUR),
    "kl": Arm(["method=kl"], passes=4.0, sampling=UP_TO_FOUR),
    "clts": Arm(["method=clts"], sampling=UP_TO_FOUR),
    "momentum_decay": Arm(["method=momentum_decay"], sampling=UP_TO_FOUR),
}


def trained(name: str, optimizer: str, seed: int, options: argparse.Namespace, kept: Kept) -> dict[str, Any]:
    """Train an arm; its updates, seconds and last loss."""
    arm, run_dir = ARMS[name], options.folder / f"{_slug(name)}-{optimizer}-seed{seed}"
    steps = round(options.steps / arm.passes)
    command = ["train", f"recipe={options.recipe}", *OPTIMIZERS[optimizer], *arm.settings, *SHARED[options.recipe]]
    command += [f"task.data={options.data}", f"training.steps={steps}", f"seed={seed}", f"run_dir={run_dir}"]

    def make() -> dict[str, Any]:
        seconds, _ = run(command)
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        return {**seconds, "updates": steps, "loss": [row["loss"] for row in rows if "loss" in row][-1]}

    found: dict[str, Any] = kept.get(f"train {run_dir.name}, {steps} updates", make)
    return found


def scored(
    name: str, optimizer: str, sampling: Sequence[str], seed: int, options: argparse.Namespace, kept: Kept
) -> dict[str, Any]:
    """The scores of the episodes, and the evaluations of the network for a chunk."""
    run_dir = options.folder / f"{_slug(name)}-{optimizer}-seed{seed}"
    episodes = ["--episodes", str(options.episodes), "--seed", str(options.start_seed), "--videos", "0"]

    def make() -> dict[str, Any]:
        _, printed = run(["evaluate", str(run_dir), *sampling, *episodes, "--json"])
        result = json.loads(printed.splitlines()[-1])
        return {
            "scores": [episode["score"] for episode in result["episodes"]],
            "network_evaluations": result["network_evaluations"],
            "metrics": result.get("metrics") or {},
        }

    words = f"{' '.join(sampling)}, {options.episodes} from {options.start_seed}"
    found: dict[str, Any] = kept.get(f"score {run_dir.name} {words}", make)
    return found


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def summary(options: argparse.Namespace, kept: Kept) -> list[dict[str, Any]]:
    """A row for every arm, optimiser and way of sampling, beside the baseline's best of as many evaluations."""
    rows: list[dict[str, Any]] = []
    for optimizer in options.optimizers:
        scores: dict[tuple[str, str], np.ndarray] = {}
        best: dict[int, np.ndarray] = {}
        for name in options.arms:
            for sampling in ARMS[name].sampling:
                results = [scored(name, optimizer, sampling, seed, options, kept) for seed in options.seeds]
                costs = [trained(name, optimizer, seed, options, kept) for seed in options.seeds]
                own = scores[name, " ".join(sampling)] = np.array([result["scores"] for result in results])
                evaluations = results[0]["network_evaluations"]
                if name == BASELINE and (evaluations not in best or own.mean() > best[evaluations].mean()):
                    best[evaluations] = own
                rows.append(
                    {
                        "arm": name,
                        "optimizer": optimizer,
                        "settings": list(ARMS[name].settings),
                        "updates": costs[0]["updates"],
                        "passes_an_update": round(ARMS[name].passes, 3),
                        "cpu_seconds": round(float(np.mean([cost["cpu_seconds"] for cost in costs])), 1),
                        "loss": round(float(np.mean([cost["loss"] for cost in costs])), 5),
                        "sampling": " ".join(sampling),
                        "network_evaluations_a_chunk": evaluations,
                        **estimate([own], [1.0], "score"),
                        "by_seed": [round(float(row.mean()), 4) for row in own],
                        **{
                            name: [round(result["metrics"][name], 4) for result in results]
                            for name in ("distance", "mode_probability_error")
                            if name in results[0].get("metrics", {})
                        },
                    }
                )
                if name != BASELINE and evaluations in best:
                    rows[-1] |= estimate([best[evaluations], own], [-1.0, 1.0], "difference")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="replay buffer of the human demonstrations")
    parser.add_argument("--folder", type=Path, required=True, help="where runs and what is done are kept")
    parser.add_argument("--recipe", choices=SHARED, default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=1500, help="updates of the baseline")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--start-seed", type=int, default=300_000)
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS), choices=OPTIMIZERS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS, metavar="ARM")
    parser.add_argument("--output", type=Path, default=RESULTS / "few_step_objectives_cpu.json")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(options.folder, options.seeds)
    for seed in options.seeds:
        for optimizer in options.optimizers:
            for name in options.arms:
                trained(name, optimizer, seed, options, kept)
                for sampling in ARMS[name].sampling:
                    scored(name, optimizer, sampling, seed, options, kept)
    figures = {"data": options.data.name, "recipe": options.recipe, "seeds": options.seeds}
    episodes = {"episodes": options.episodes, "start_seed": options.start_seed}
    write_result(options.output, {**figures, **episodes, "arms": summary(options, kept)})


if __name__ == "__main__":
    main()
