"""Methods against the baseline on an image set: cost to reach a quality, counted in images, FLOPs and seconds.

    python benchmarks/image_methods.py --output results/image_methods_mnist_cpu.json --seeds 0 1 \
        --arms baseline immiscible immiscible_knn kl --settings task=mnist task.data=data/mnist training.steps=1500

Every arm trains `policy-accel train recipe=images_small method=ARM` with the same settings, seeds and evaluations, each
run in a fresh process. At every evaluation during training the quality of the averaged model is measured beside its
floor (real held-out images); after training every average of the weights is scored, the best one chosen, in every arm
alike, and scored again with other noise. For qualities that the baseline passes on its way, the table gives the
baseline's cost over the arm's; costs between two evaluations are interpolated in the logarithm of the distance.

An arm may carry settings of its own: `immiscible_knn:acceleration.noise.candidates=4`.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from results import RESULTS, without_folders, write_result

COSTS = ("samples", "training_flops", "training_seconds")


def overrides(options: argparse.Namespace, arm: str, seed: int, run_dir: Path) -> list[str]:
    method, *own = arm.split(":")
    return [
        "recipe=images_small",
        f"method={method}",
        *options.settings,
        *own,
        f"training.threads={options.threads}",
        "training.checkpoint.every=0",
        "training.checkpoint.keep_best=0",
        "evaluation.video=false",
        f"seed={seed}",
        f"run_dir={run_dir}",
    ]


def run_one(options: argparse.Namespace, arm: str, seed: int) -> dict[str, Any]:
    """Train and score one arm with one seed in this process."""
    import torch

    torch.set_num_threads(options.threads)
    from policy_accel.images.evaluate import ImageEvaluator
    from policy_accel.images.sets import load_split
    from policy_accel.images.track import IMAGES
    from policy_accel.run_files import read_metrics
    from policy_accel.training.averages import averages
    from policy_accel.training.devices import choose_device

    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        config = IMAGES.config(overrides(options, arm, seed, run_dir))
        config.evaluation.samples = config.evaluation.curve_samples  # one count along the whole curve
        trained = IMAGES.train(config)
        rows = read_metrics(run_dir / "metrics.jsonl")
        costs = {row["step"]: row for row in rows if "loss" in row}
        curve = [
            {
                "step": row["step"],
                **{cost: costs[row["step"]][cost] for cost in COSTS},
                "measures": {name: [part["value"], part["floor"]] for name, part in row["measures"].items()},
            }
            for row in rows
            if "measures" in row
        ]
        device = choose_device(config.training.device)
        split = load_split(config.task)

        def score(name: str, *, full: bool) -> dict[str, Any]:
            evaluator = ImageEvaluator(config, split, run_dir, device)
            model = IMAGES.load(run_dir, device=device, average=name).model
            result = evaluator.measure(model, lambda line: print(line, file=sys.stderr), full=full)
            assert result is not None
            return result

        scores = {name: score(name, full=False)["score"] for name in averages(run_dir)}
        best = max(scores, key=lambda name: scores[name])
        config.evaluation.seed += 1  # the choice was made on other images
        config.evaluation.samples = options.final_samples
        final = score(best, full=True)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            name = f"{arm.replace(':', '_').replace('/', '_')}-seed{seed}.png"
            picture = run_dir / "samples" / f"{trained.step:08d}.png"
            (options.pictures / name).write_bytes(picture.read_bytes())
        return {
            "arm": arm,
            "seed": seed,
            "updates": trained.step,
            **{cost: costs[trained.step][cost] for cost in COSTS},
            "last_loss": costs[trained.step]["loss"],
            "network_evaluations_per_image": final["network_evaluations"],
            "curve": curve,
            "final": {"average": best, "images": final["images"], "measures": final["measures"]},
            "scores_of_averages": scores,
        }


def run_apart(options: argparse.Namespace, arm: str, seed: int) -> dict[str, Any]:
    """The same in a fresh process."""
    arguments = [sys.executable, __file__, *sys.argv[1:], "--one", arm, str(seed)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        print(f"{arm} seed {seed} failed:\n{done.stderr[-2000:]}", file=sys.stderr, flush=True)
        return {"arm": arm, "seed": seed, "failed": done.stderr.strip().splitlines()[-1]}
    result = json.loads(done.stdout.splitlines()[-1])
    distances = [round(point["measures"][options.quality][0], 4) for point in result["curve"]]
    final = round(result["final"]["measures"][options.quality]["value"], 4)
    print(arm, seed, f"{result['training_seconds']:.0f} s", distances, "final", final, file=sys.stderr, flush=True)
    return result


def cost_to(run: dict[str, Any], quality: str, distance: float, cost: str) -> float:
    """What the run spent until its distance fell to `distance`; infinite when it never did."""
    before: tuple[float, float] | None = None
    for point in run["curve"]:
        value, spent = point["measures"][quality][0], point[cost]
        if value <= distance:
            if before is None:
                return spent
            share = (math.log(before[0]) - math.log(distance)) / (math.log(before[0]) - math.log(value))
            return before[1] + share * (spent - before[1])
        before = value, spent
    return math.inf


def speed_ups(runs: list[dict[str, Any]], quality: str) -> dict[str, Any]:
    """For each arm: the baseline's cost over the arm's at qualities all baseline runs reach, as [least, mean, largest]
    over the seeds (None: the arm did not get there with every seed). An arm that is there at its first evaluation
    counts with the whole cost of that."""
    good = [run for run in runs if "failed" not in run and run["curve"]]
    baseline = {run["seed"]: run for run in good if run["arm"] == "baseline"}
    if not baseline:
        return {}
    last = max(min(point["measures"][quality][0] for point in run["curve"]) for run in baseline.values())
    first = min(run["curve"][0]["measures"][quality][0] for run in baseline.values())
    table: dict[str, Any] = {}
    for distance in [last * (first / last) ** share for share in (0.0, 0.25, 0.5)]:
        for arm in sorted({run["arm"] for run in good}):
            own = [run for run in good if run["arm"] == arm and run["seed"] in baseline]
            for cost in COSTS:
                ratios = [
                    cost_to(baseline[run["seed"]], quality, distance, cost) / cost_to(run, quality, distance, cost)
                    for run in own
                ]
                reached = [ratio for ratio in ratios if ratio > 0]
                whole = len(reached) == len(baseline)
                entry = [min(reached), sum(reached) / len(reached), max(reached)] if whole else None
                entry = None if entry is None else [round(value, 3) for value in entry]
                table.setdefault(f"{quality} <= {distance:.4g}", {}).setdefault(arm, {})[cost] = entry
    return table


def record(options: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    write_result(
        options.output,
        {
            "recipe": "images_small",
            "settings": [without_folders(setting) for setting in options.settings],
            "threads": options.threads,
            "runs_side_by_side": options.jobs,
            "quality": options.quality,
            "note": options.note,
            "runs": runs,
            "speed_ups": speed_ups(runs, options.quality),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", required=True, help="methods, `method:key=value:key=value`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", default=[], help="settings that all arms share")
    parser.add_argument("--quality", default="fd_random_conv", help="the measure of the curves")
    parser.add_argument("--final-samples", type=int, default=2000, help="images that the best average is scored on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--pictures", type=Path, help="folder for the last sample grid of every run")
    parser.add_argument("--note", default="", help="what a reader must know about the data")
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS / "image_methods_cpu.json")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options, options.one[0], int(options.one[1]))))
        return
    before = json.loads(options.output.read_text()) if options.output.is_file() else {"runs": []}
    same = {
        "settings": [without_folders(setting) for setting in options.settings],
        "threads": options.threads,
        "runs_side_by_side": options.jobs,
    }
    changed = [name for name, value in same.items() if before.get(name, value) != value]
    if changed:
        parser.error(f"{options.output} was made with other {', '.join(changed)}; give another --output")
    runs = before["runs"]
    done = {(run["arm"], run["seed"]) for run in runs if "failed" not in run}
    runs = [run for run in runs if "failed" not in run]
    todo = [(arm, seed) for seed in options.seeds for arm in options.arms if (arm, seed) not in done]
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda pair: run_apart(options, *pair), todo):
            runs.append(result)
            record(options, runs)


if __name__ == "__main__":
    main()
