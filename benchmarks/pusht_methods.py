"""Every method and control once on the real Push-T demonstrations: score, training cost and condition leak.

    python benchmarks/pusht_methods.py --data pusht_cchi_v7_replay.zarr --methods baseline immiscible kl

Trains `policy-accel train recipe=small method=NAME` for the same number of updates from the same seed, then scores the
last checkpoint over the same episodes with DDIM at several numbers of steps and with 100 stochastic DDPM steps. The
leak says how well the observation can be predicted from the noise that the method chose (chance: safe).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from results import RESULTS, write_result

METHODS = tuple(sorted(path.stem for path in (RESULTS.parents[1] / "configs/method").glob("*.yaml")))
LEAK_ROWS = 4096
KEPT = ("score", "score_interval", "success_rate", "success_interval")


def overrides(options: argparse.Namespace, method: str, run_dir: Path) -> list[str]:
    return [
        "recipe=small",
        f"method={method}",
        "task=pusht_keypoints",
        f"task.data={options.data}",
        "task.val_ratio=0",
        f"training.steps={options.steps}",
        "training.threads=1",
        "training.checkpoint.every=0",
        "evaluation.workers=0",
        "evaluation.videos=0",
        f"evaluation.episodes={options.episodes}",
        f"seed={options.seed}",
        f"run_dir={run_dir}",
    ]


def leak(settings: list[str], trained: Any = None) -> dict[str, Any]:
    """How well the condition is predicted from the noise, for the choice of noise in its active state.

    `trained` is the policy around whose prediction noise is assigned, where the method does that.
    """
    import torch

    from policy_accel.acceleration.diagnostics import condition_leak
    from policy_accel.acceleration.noise_choices import ChosenNoiseConfig
    from policy_accel.policy.track import ROBOT
    from policy_accel.training.ema import EMA, EMAConfig
    from policy_accel.training.feed import Feed
    from policy_accel.training.randomness import DataOrder, Generators
    from policy_accel.training.weights import Weights

    config = ROBOT.config(list(settings))
    if isinstance(config.acceleration.noise, ChosenNoiseConfig):
        config.acceleration.noise.start_score = None
    task = ROBOT.build(config)
    # With the sample as target the noise follows from x_t, and no choice of noise depends on the target.
    task.objective = dataclasses.replace(task.objective, target="sample")
    cpu = torch.device("cpu")
    task.to(cpu)
    batch_size = config.training.batch_size
    order = DataOrder(task.samples, batch_size, config.seed, cpu, groups=task.groups, run=task.group_run)
    average = EMA(Weights(task.model), EMAConfig()).model if trained is None else trained
    feed = Feed(task, order, Generators(config.seed, cpu), steps=config.training.steps, average=average)
    conditions, noises = [], []
    for step in range(LEAK_ROWS // batch_size):
        batch, noised = feed(step).examples()
        at = task.objective.process.coefficients(noised.t)
        rows = noised.x_t.shape[0]
        shape = (rows, *[1] * (noised.x_t.ndim - 1))
        noise = (noised.x_t - at.alpha.view(shape) * noised.target) / at.sigma.view(shape)
        conditions.append(batch.condition.flatten(1).repeat_interleave(noised.repeats, 0)[:: noised.repeats])
        noises.append(noise[:: noised.repeats].float())
    found = condition_leak(torch.cat(conditions), torch.cat(noises), seed=0)
    choice = task.objective.noise
    moved = choice.statistics().get("noise_rows_moved") if hasattr(choice, "statistics") else None
    return {
        "linear_r2": round(found.score, 5),
        "local": round(found.local, 5),
        "p_value": found.p_value,
        "rows_moved": moved,
    }


def run_one(options: argparse.Namespace, method: str) -> dict[str, Any]:
    """Train and score one method in this process."""
    import torch

    torch.set_num_threads(1)
    from policy_accel.policy.evaluate import PolicyEvaluator
    from policy_accel.policy.track import ROBOT
    from policy_accel.run_files import read_metrics

    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        settings = overrides(options, method, run_dir)
        config = ROBOT.config(settings)
        during = config.training.evaluate_every
        trained = ROBOT.train(ROBOT.config([*settings, *([] if during else ["evaluation.episodes=0"])]))
        losses = [row for row in read_metrics(run_dir / "metrics.jsonl") if "loss" in row]
        loaded = ROBOT.load(run_dir)
        scores = []
        discrete = config.diffusion.family == "ddpm"
        plans = [("ddim", n) for n in options.evaluations] + ([("ddpm", 100)] if discrete else [])
        for sampler, steps in plans:
            sampling = dataclasses.replace(config.sampling, sampler=sampler, spacing="trailing")
            config.sampling = sampling.with_steps(steps)
            evaluator = PolicyEvaluator(config, loaded.policy, run_dir, loaded.env_args)
            began = time.perf_counter()
            result = evaluator(loaded.policy, print)
            evaluator.close()
            seconds = round(time.perf_counter() - began, 1)
            scores.append(
                {"sampler": sampler, "evaluations": steps, **{key: result[key] for key in KEPT}, "seconds": seconds}
            )
        repetition = config.acceleration.path.repetition()
        centering = 1 if config.acceleration.noise.center == "denoiser" else 0
        return {
            "method": method,
            "updates": trained.step,
            "network_evaluations": trained.step
            * config.training.batch_size
            * (repetition.repeats * repetition.samples_factor + centering),
            "training_seconds": round(trained.training_seconds, 1),
            "loss_last_log": losses[-1]["loss"],
            "scores": scores,
            "leak": leak(settings, loaded.policy) if discrete else None,
        }


def run_apart(options: argparse.Namespace, method: str) -> dict[str, Any]:
    """The same in a fresh process, so that two can run side by side."""
    arguments = [sys.executable, __file__, "--one", method, *sys.argv[1:]]
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        print(f"{method} failed:\n{done.stderr[-2000:]}", file=sys.stderr, flush=True)
        return {"method": method, "failed": done.stderr.strip().splitlines()[-1]}
    result = json.loads(done.stdout.splitlines()[-1])
    by_steps = {f"{s['sampler']}-{s['evaluations']}": round(s["score"], 3) for s in result["scores"]}
    print(method, f"{result['training_seconds']} s", by_steps, "leak", result["leak"], file=sys.stderr, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="replay buffer of the human demonstrations")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--leaks-only", action="store_true", help="measure the leaks of the recorded runs again")
    parser.add_argument("--output", type=Path, default=RESULTS / "pusht_methods_cpu.json")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options, options.one)))
        return
    rows: dict[str, Any] = {}
    if options.output.is_file():
        rows = {row["method"]: row for row in json.loads(options.output.read_text())["methods"]}
    if options.leaks_only:
        for name, row in rows.items():
            if row["leak"] is not None and name != "immiscible_denoiser":
                row["leak"] = leak(overrides(options, name, Path("unused")))
                print(name, row["leak"], file=sys.stderr, flush=True)
        record(options, rows)
        return
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda method: run_apart(options, method), options.methods):
            rows[result["method"]] = result
            record(options, rows)


def record(options: argparse.Namespace, rows: dict[str, Any]) -> None:
    write_result(
        options.output,
        {
            "task": "pusht_keypoints, 206 human episodes",
            "recipe": "small (predicts the sample), training.threads=1",
            "updates": options.steps,
            "seed": options.seed,
            "episodes": options.episodes,
            "start_seed": 100_000,
            "methods": [rows[name] for name in sorted(rows)],
        },
    )


if __name__ == "__main__":
    main()
