"""The papers' methods on an image set: what each costs to reach a quality, in images, FLOPs and seconds.

    python benchmarks/image_methods.py benchmarks/plans/image_methods_16px.yaml task.data=cifar10.npz

The file names the settings of all runs, and bases (diffusion processes with settings of their own), each with its arms:
a method, or `method:key=value:key=value`. The first arm of a base is what the others of it are compared with. Arms
train with the same settings, seeds and evaluations, each run in a fresh process; what is done is kept in the output
file, and the same command goes on. `image_methods_cifar10.yaml` is the same at full size, for a GPU.

At every evaluation during training the averaged model is measured; after training every average of the weights is
scored, the best one chosen, in every arm alike, and scored again with other noise. For qualities that all runs of the
first arm pass on their way, the table gives its cost over each arm's, paired by seed; costs between two evaluations are
interpolated in the logarithm of the distance.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from image_methods_table import COSTS, draw, markdown, tables
from results import RESULTS, without_folders, write_result


@dataclass(frozen=True)
class Base:
    """A process with its settings, and the arms that are compared on it."""

    arms: list[str]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Plan:
    """All of the file."""

    quality: str
    """The measure of the curves, as `policy-accel evaluate` prints it."""
    bases: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    final_samples: int = 2000
    """Images that the best average is scored on."""
    all_measures: bool = True
    """Whether those get every measure; else the quality alone, which takes a tenth of a short run's time less."""
    threads: int = 1
    jobs: int = 2
    """Runs side by side."""
    note: str = ""
    """What a reader must know about the data."""

    def __post_init__(self) -> None:
        self.bases = {name: Base(**base) for name, base in self.bases.items()}

    def todo(self, done: set[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
        """Base, arm and seed of what is left, one seed of all arms after the other."""
        pairs = [(name, arm) for name, base in self.bases.items() for arm in base.arms]
        wanted = [(name, arm, seed) for seed in self.seeds for name, arm in pairs]
        return [one for one in wanted if one not in done]


def overrides(options: argparse.Namespace, base: str, arm: str, seed: int, run_dir: Path) -> list[str]:
    """The configuration of a run; what stands later wins."""
    plan: Plan = options.plan
    method, *own = arm.split(":")
    settings = {**plan.settings, **plan.bases[base].settings}
    return [
        *(f"{key}={json.dumps(value) if isinstance(value, bool | None) else value}" for key, value in settings.items()),
        f"method={method}",
        *options.settings,
        *own,
        f"evaluation.curve_measures=[{plan.quality}]",
        f"evaluation.score_measure={plan.quality}",
        "training.validate_every=0",
        "training.checkpoint.every=0",
        "training.checkpoint.keep_best=0",
        "evaluation.video=false",
        f"training.threads={plan.threads}",
        f"seed={seed}",
        f"run_dir={run_dir}",
    ]


def run_one(options: argparse.Namespace, base: str, arm: str, seed: int) -> dict[str, Any]:
    """Train and score one arm with one seed in this process."""
    import torch

    torch.set_num_threads(options.plan.threads)
    from policy_accel.images.scoring.evaluate import ImageEvaluator
    from policy_accel.images.sets import load_split
    from policy_accel.images.track import IMAGES
    from policy_accel.run_files import read_metrics
    from policy_accel.training.averages import averages
    from policy_accel.training.devices import choose_device

    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        config = IMAGES.config(overrides(options, base, arm, seed, run_dir))
        config.evaluation.samples = config.evaluation.curve_samples  # one count along the whole curve
        trained = IMAGES.train(config)
        rows = read_metrics(run_dir / "metrics.jsonl")
        costs = {row["step"]: row for row in rows if "loss" in row}
        curve = [
            {
                "step": row["step"],
                **{cost: costs[row["step"]][cost] for cost in COSTS},
                "measures": {name: [part["value"], part.get("floor")] for name, part in row["measures"].items()},
            }
            for row in rows
            if "measures" in row
        ]
        device = choose_device(config.training.device)
        split = load_split(config.task)

        evaluator = ImageEvaluator(config, split, run_dir, device)  # one for all averages: it keeps the floors

        def score(name: str, *, full: bool) -> dict[str, Any]:
            model = IMAGES.load(run_dir, device=device, average=name).model
            result = evaluator.measure(model, lambda line: print(line, file=sys.stderr), full=full)
            assert result is not None
            return result

        scores = {name: score(name, full=False)["score"] for name in averages(run_dir)}
        best = max(scores, key=lambda name: scores[name])
        config.evaluation.seed += 1  # the choice was made on other images
        config.evaluation.samples = config.evaluation.curve_samples = options.plan.final_samples
        evaluator = ImageEvaluator(config, split, run_dir, device)
        final = score(best, full=options.plan.all_measures)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            name = f"{base}-{arm.replace(':', '_').replace('/', '_')}-seed{seed}.png"
            picture = run_dir / "samples" / f"{trained.step:08d}.png"
            (options.pictures / name).write_bytes(picture.read_bytes())
        return {
            "base": base,
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


def run_apart(options: argparse.Namespace, base: str, arm: str, seed: int) -> dict[str, Any]:
    """The same in a fresh process."""
    arguments = [sys.executable, __file__, *sys.argv[1:], "--one", base, arm, str(seed)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        print(f"{base} {arm} seed {seed} failed:\n{done.stderr[-2000:]}", file=sys.stderr, flush=True)
        return {"base": base, "arm": arm, "seed": seed, "failed": done.stderr.strip().splitlines()[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    quality = options.plan.quality
    distances = [round(point["measures"][quality][0], 4) for point in result["curve"]]
    final = round(result["final"]["measures"][quality]["value"], 4)
    print(
        base, arm, seed, f"{result['training_seconds']:.0f} s", distances, "final", final, file=sys.stderr, flush=True
    )
    return result


def record(options: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """Write all that is known, and its picture."""
    plan: Plan = options.plan
    found = {name: tables([run for run in runs if run["base"] == name], plan.quality) for name in plan.bases}
    write_result(options.output, {**told(options), "note": plan.note, "runs": runs, "tables": found})
    draw(runs, plan.quality, options.output.with_suffix(".png"))


def told(options: argparse.Namespace) -> dict[str, Any]:
    """What runs that stand in one file must share."""
    plan: Plan = options.plan
    return {
        "quality": plan.quality,
        "settings": plan.settings,
        "bases": {name: base.settings for name, base in plan.bases.items()},
        "more_settings": [without_folders(setting) for setting in options.settings],
        "final_samples": plan.final_samples,
        "threads": plan.threads,
        "runs_side_by_side": plan.jobs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=lambda text: Plan(**yaml.safe_load(Path(text).read_text())), metavar="PLAN.yaml")
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="settings that all runs share, such as task.data"
    )
    parser.add_argument("--pictures", type=Path, help="folder for the last sample grid of every run")
    parser.add_argument("--one", nargs=3, metavar=("BASE", "ARM", "SEED"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS / "image_methods_cpu.json")
    options = parser.parse_args()
    if options.one:
        base, arm, seed = options.one
        print(json.dumps(run_one(options, base, arm, int(seed))))
        return
    before = json.loads(options.output.read_text()) if options.output.is_file() else {"runs": []}
    now = told(options)
    both = now["bases"].keys() & before.get("bases", {})  # a base may be added
    changed = [name for name, value in now.items() if name != "bases" and before.get(name, value) != value]
    changed += [f"bases ({name})" for name in sorted(both) if before["bases"][name] != now["bases"][name]]
    if changed:
        parser.error(f"{options.output} was made with other {', '.join(changed)}; give another --output")
    runs = [run for run in before["runs"] if "failed" not in run]
    todo = options.plan.todo({(run["base"], run["arm"], run["seed"]) for run in runs})
    with ThreadPoolExecutor(options.plan.jobs) as pool:
        for result in pool.map(lambda one: run_apart(options, *one), todo):
            runs.append(result)
            record(options, runs)
    record(options, runs)  # with the tables and the note of today also where nothing was left to do
    for name in options.plan.bases:
        print(markdown(name, tables([run for run in runs if run["base"] == name], options.plan.quality)))


if __name__ == "__main__":
    main()
