"""A ladder on the real Push-T demonstrations: each rung is a way to train and to sample, with its score and its cost.

    python benchmarks/pusht_speedrun.py --data pusht_cchi_v7_replay.zarr --folder runs/speedrun

Every rung has three training seeds and the same 500 episodes, which nothing was chosen by. CPU-seconds are those of the
whole command `policy-accel train` (and `distill`), from start to exit, on one thread; scoring is not counted. Where
other jobs share the machine they are too many: `--seconds` trains each once more, for its seconds alone. Intervals of
scores hold the luck of training seeds, see `policy_accel.comparison.statistics`. A rung is compared with the one
that it builds on, on the same episodes. What is done is kept in the folder, and the same command
goes on; commands with some of the --seeds each may share it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from results import RESULTS, write_result

from policy_accel.comparison.statistics import TwoLevels
from policy_accel.files import replace_json

COMMAND = [sys.executable, "-m", "policy_accel"]
COMMON = [
    "task=pusht_keypoints",
    "task.val_ratio=0",
    "training.threads=1",
    "training.validate_every=0",
    "evaluation.episodes=0",
]
LINEAR = ["training.optimizer.schedule=linear", "training.optimizer.warmup_steps=100"]
ADAMW = [
    "recipe=small",
    "training/optimizer=adamw",
    "training.optimizer.schedule=cosine",
    "training.optimizer.lr=1e-3",
    "training.optimizer.warmup_steps=200",
]
MUON = ["recipe=small", "training/optimizer=muon", "training.optimizer.lr=1e-3", *LINEAR]
TARGET = 0.93
AGAIN = "again"
LEAST_SHOWN = 0.6


@dataclass(frozen=True)
class Training:
    """Settings of `policy-accel train`, or of `distill` where there is a teacher."""

    settings: Sequence[str]
    teacher: str = ""


@dataclass(frozen=True)
class Rung:
    """What is scored: a training, and options of `evaluate`; `on` is the rung that it is compared with."""

    training: str
    sampling: Sequence[str]
    on: str = ""


EIGHT = ("--sampling-steps", "8")
TRAILING = ("--sampling-steps", "2")
GRID = ("--sampling-times", "99,25")
LATER = ("--sampling-times", "99,18")
ONE = ("--sampling-steps", "1")
SHORT = ("--average", "ema_0.05")
TRAININGS = {
    "published": Training(
        [
            "recipe=diffusion_policy",
            "model=unet_small",
            "training.steps=1500",
            "training.batch_size=128",
            "training.precision=auto",
            "training.matmul_precision=auto",
        ]
    ),
    "small": Training([*ADAMW, "training.steps=4000"]),
    "adamw": Training([*ADAMW, "training.steps=1500"]),
    "muon": Training([*MUON, "training.steps=1500"]),
    "muon_short": Training([*MUON, "training.steps=1000"]),
    "muon_averages": Training(
        [*MUON, "training.steps=1000", "training.optimizer.newton_schulz_steps=3", "training.ema.lengths=[0.05,0.1]"]
    ),
    "distilled": Training([], teacher="muon"),
    "distilled_short": Training([], teacher="muon_short"),
}
LADDER = {
    "published settings, 1,500 updates": Rung("published", ("--sampler", "ddim", "--sampling-steps", "16")),
    "AdamW, 4,000 updates (recipe=small)": Rung("small", EIGHT),
    "AdamW, 1,500 updates": Rung("adamw", EIGHT, on="published settings, 1,500 updates"),
    "the same, 2 evaluations": Rung("adamw", TRAILING, on="AdamW, 1,500 updates"),
    "Muon, 1,500 updates (recipe=fast)": Rung("muon", EIGHT, on="AdamW, 1,500 updates"),
    "Muon, 1,000 updates": Rung("muon_short", EIGHT, on="AdamW, 1,500 updates"),
    "Muon, 1,500, 2 evaluations": Rung("muon", TRAILING, on="the same, 2 evaluations"),
    "+ grid (99, 25)": Rung("muon", GRID, on="Muon, 1,500, 2 evaluations"),
    "Muon, 1,000, grid (99, 25)": Rung("muon_short", GRID, on="+ grid (99, 25)"),
    "Muon, 1,500, 1 evaluation": Rung("muon", ONE, on="+ grid (99, 25)"),
    "+ distilled, 1 evaluation": Rung("distilled", ONE, on="Muon, 1,500, 1 evaluation"),
    "the same student, grid (99, 25)": Rung("distilled", GRID, on="+ grid (99, 25)"),
    "Muon, 1,000, + distilled, 1 evaluation": Rung("distilled_short", ONE, on="+ distilled, 1 evaluation"),
}

AVERAGES = {
    "Muon, 1,000 updates, 3 steps of Newton and Schulz": Rung("muon_averages", EIGHT),
    "the same, shorter average": Rung(
        "muon_averages", (*EIGHT, *SHORT), on="Muon, 1,000 updates, 3 steps of Newton and Schulz"
    ),
    "the same, grid (99, 25)": Rung("muon_averages", (*GRID, *SHORT)),
    "the same, grid (99, 18)": Rung("muon_averages", (*LATER, *SHORT), on="the same, grid (99, 25)"),
}
"""What was looked at after the ladder."""
RUNGS = LADDER | AVERAGES


def run(command: Sequence[str]) -> tuple[dict[str, float], str]:
    """Run a command; its wall and CPU seconds, and what it printed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*COMMAND, *command], check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": cpu, "wall_seconds": time.perf_counter() - began}, done.stdout


class Kept:
    """Results by name, in JSON files of the folder, one for each set of seeds that is run by a command of its own."""

    def __init__(self, folder: Path, seeds: Sequence[int]) -> None:
        self.path = folder / f"speedrun-{'-'.join(map(str, seeds))}.json"
        self.own: dict[str, Any] = json.loads(self.path.read_text()) if self.path.is_file() else {}
        parts = [json.loads(path.read_text()) for path in sorted(folder.glob("speedrun-*.json"))]
        self.values = {name: value for part in parts for name, value in part.items()}

    def get(self, name: str, make: Any) -> Any:
        """The value of `name`; made by `make()` where there is none yet."""
        if name not in self.values:
            print(f"speedrun: {name}", file=sys.stderr, flush=True)
            self.own[name] = self.values[name] = make()
            replace_json(self.path, self.own)
        return self.values[name]


def trained(name: str, seed: int, options: argparse.Namespace, kept: Kept, folder: str = "") -> dict[str, float]:
    """Train `name` with its teachers; updates and seconds of all of it together."""
    runs = options.folder / folder
    training, run_dir = TRAININGS[name], runs / f"{name}-seed{seed}"
    spent: dict[str, float] = {"updates": 0, "cpu_seconds": 0.0, "wall_seconds": 0.0}
    if training.teacher:
        spent = dict(trained(training.teacher, seed, options, kept, folder))
        teacher = runs / f"{training.teacher}-seed{seed}"
        command = ["distill", str(teacher), "--evaluations", "1", f"run_dir={run_dir}", *training.settings]
    else:
        command = ["train", *training.settings, *COMMON, f"task.data={options.data}", f"seed={seed}"]
        command += [f"run_dir={run_dir}"]

    def make() -> dict[str, float]:
        seconds, _ = run(command)
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        last = [row for row in rows if "loss" in row][-1]
        return {**seconds, "updates": last["step"], "training_seconds": last["training_seconds"], "loss": last["loss"]}

    own = kept.get(" ".join(filter(None, ["train", name, "seed", str(seed), folder])), make)
    return {key: spent[key] + own[key] for key in spent}


def scored(rung: Rung, seed: int, options: argparse.Namespace, kept: Kept) -> dict[str, Any]:
    """Score a rung's run: the scores of its episodes, and how it was sampled."""
    run_dir = options.folder / f"{rung.training}-seed{seed}"
    episodes = ["--episodes", str(options.episodes), "--seed", str(options.start_seed), "--videos", "0"]

    def make() -> dict[str, Any]:
        _, printed = run(["evaluate", str(run_dir), *rung.sampling, *episodes, "--json"])
        result = json.loads(printed.splitlines()[-1])
        scores = [episode["score"] for episode in result["episodes"]]
        return {
            "scores": scores,
            "network_evaluations": result["network_evaluations"],
            "success": result["success_rate"],
        }

    words = f"{' '.join(rung.sampling)}, {options.episodes} from {options.start_seed}"
    found: dict[str, Any] = kept.get(f"score {rung.training} seed {seed} {words}", make)
    return found


def summary(names: Sequence[str], options: argparse.Namespace, kept: Kept) -> list[dict[str, Any]]:
    """The ladder's rungs with means, intervals and differences."""
    scores, rows = {}, []
    for name in names:
        results = [scored(RUNGS[name], seed, options, kept) for seed in options.seeds]
        again = [trained(RUNGS[name].training, options.seeds[0], options, kept, AGAIN)] if options.seconds else []
        costs = again or [trained(RUNGS[name].training, seed, options, kept) for seed in options.seeds]
        scores[name] = np.array([result["scores"] for result in results])
        training = TRAININGS[RUNGS[name].training]
        rows.append(
            {
                "rung": name,
                "training": list(training.settings) or f"distill of {training.teacher}",
                "sampling": " ".join(RUNGS[name].sampling),
                "updates": costs[0]["updates"],
                "network_evaluations_a_chunk": results[0]["network_evaluations"],
                "cpu_seconds": round(float(np.mean([cost["cpu_seconds"] for cost in costs])), 1),
                "wall_seconds": round(float(np.mean([cost["wall_seconds"] for cost in costs])), 1),
                "by_seed": {
                    str(seed): round(float(np.mean(result["scores"])), 4)
                    for seed, result in zip(options.seeds, results, strict=True)
                },
                "success_rate": round(float(np.mean([result["success"] for result in results])), 3),
            }
        )
    for row in rows:
        name, on = row["rung"], RUNGS[row["rung"]].on
        row |= estimate([scores[name]], [1.0], "score")
        if on in scores:
            row |= {"compared_with": on, **estimate([scores[on], scores[name]], [-1.0, 1.0], "difference")}
    return rows


def estimate(scores: Sequence[np.ndarray], factors: Sequence[float], name: str) -> dict[str, Any]:
    """A mean, or a difference of means, of scores [seeds, episodes], with its interval."""
    found = TwoLevels(list(scores)).estimate(np.array(factors))
    return {name: round(found.value, 4), f"{name}_interval": _rounded(found.interval)}


def _rounded(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [round(value, 4) for value in interval]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Scores with their intervals, a line for each rung, one colour for each number of network evaluations."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 0.42 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    counts = sorted({row["network_evaluations_a_chunk"] for row in rows})
    for place, row in enumerate(rows):
        score, count = row["score"], row["network_evaluations_a_chunk"]
        low, high = row["score_interval"] or (score, score)
        label = f"{count} evaluation{'s' if count > 1 else ''} a chunk"
        error = [[max(0.0, score - low)], [max(0.0, high - score)]]
        colour = f"C{counts.index(count)}"
        axes.errorbar([score], [place], xerr=error, fmt="o", capsize=3, color=colour, label=label)
        axes.plot(list(row["by_seed"].values()), [place] * len(row["by_seed"]), "|", color=colour, markersize=9)
        if score < LEAST_SHOWN:
            axes.annotate(
                f"{score:.2f}", (LEAST_SHOWN, place), xytext=(4, -3), textcoords="offset points", color=colour
            )
        seconds = f"{row['updates']:,} updates, {row['cpu_seconds']:.0f} s"
        axes.annotate(seconds, (1.0, place), xytext=(4, -3), textcoords="offset points", annotation_clip=False)
    axes.axvline(TARGET, color="grey", linestyle=":")
    axes.set_yticks(range(len(rows)), [row["rung"] for row in rows])
    axes.set_xlim(LEAST_SHOWN, 1.0)
    axes.invert_yaxis()
    axes.set_xlabel("mean of the largest reward; bars: 95 % over training seeds and episodes; ticks: the seeds")
    axes.set_title("Push-T, 206 human demonstrations; CPU-seconds of one core, start to exit, without scoring")
    axes.grid(alpha=0.3)
    named = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend(named.values(), named.keys(), loc="lower left", fontsize=8)
    figure.savefig(path, dpi=110)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The ladder for docs/results/push_t.md, a line for each rung."""
    lines = [
        "| how | updates | evaluations a chunk | CPU-seconds | score | training seeds | against |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seeds = ", ".join(f"{score:.3f}" for score in row["by_seed"].values())
        against = ""
        if "difference" in row:
            low, high = row["difference_interval"]
            against = f"{row['compared_with']}: {row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        low, high = row["score_interval"]
        cells = (
            row["rung"],
            f"{row['updates']:,}",
            str(row["network_evaluations_a_chunk"]),
            f"{row['cpu_seconds']:.0f}",
            f"**{row['score']:.3f}** [{low:.2f}, {high:.2f}]",
            seeds,
            against,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="replay buffer of the human demonstrations")
    parser.add_argument("--folder", type=Path, required=True, help="where runs and what is done are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--start-seed", type=int, default=300_000)
    parser.add_argument(
        "--seconds", action="store_true", help="train the first seed of each once more, for its seconds"
    )
    parser.add_argument("--rungs", nargs="+", default=list(LADDER), choices=list(RUNGS), metavar="RUNG")
    parser.add_argument("--output", type=Path, default=RESULTS / "pusht_speedrun_cpu.json")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(options.folder, options.seeds)
    for seed in options.seeds:  # a seed at a time: what is there after the first says something already
        for name in options.rungs:
            trained(RUNGS[name].training, seed, options, kept)
            scored(RUNGS[name], seed, options, kept)
    rows = summary(options.rungs, options, kept)
    figures = {"task": "pusht_keypoints, 206 human episodes", "target": TARGET, "seeds": options.seeds}
    write_result(
        options.output, {**figures, "episodes": options.episodes, "start_seed": options.start_seed, "rungs": rows}
    )
    draw(rows, options.output.with_suffix(".png"))
    print(table(rows))


if __name__ == "__main__":
    main()
