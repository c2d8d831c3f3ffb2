"""Where the second of two evaluations belongs: held-out scores and rollouts of policies with other targets.

    for t in sample epsilon v; do policy-accel train recipe=small task.data=pusht_v7_u8.zarr.zip task.val_ratio=0.05 \\
        training/optimizer=muon training.optimizer.lr=2e-3 training.optimizer.schedule=linear seed=1 \\
        training.optimizer.warmup_steps=100 training.steps=1000 training.threads=1 evaluation.episodes=0 \\
        diffusion.target=$t run_dir=$t; done                                   # and method=flow run_dir=flow
    python benchmarks/few_step_grids.py sample epsilon v flow --episodes 200 --seed 400000

Scores of episodes go to few_step_grids.jsonl beside the first run as they are made, and are not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import scipy
import torch
from results import RESULTS, write_result

from policy_accel.diffusion import Sampler
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.evaluation.statistics import bootstrap_interval
from policy_accel.files import append_text
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.held_out import HeldOut, chunk_norm, energy_scores
from policy_accel.policy.run import LoadedRun
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import AS_TRAINED
from policy_accel.tuning.grid_search import standard_error
from policy_accel.tuning.tune import noise_draws

SECOND = (0.1, 0.18, 0.25, 0.35, 0.5, 0.62, 0.75, 0.88)
"""Shares of the range of times that the second evaluation takes."""
REFERENCE = 16
"""Evaluations of the sample that one measure compares with, from the same noise."""
MEASURES = ("action_error", "energy_score", "distance_to_16")


def main() -> None:
    """Measure every run and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=400_000)
    parser.add_argument("--windows", type=int, default=256)
    parser.add_argument("--noises", type=int, default=4)
    parser.add_argument("--output", type=Path, default=RESULTS / "few_step_grids_cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = {run_dir.name: measured(run_dir, options) for run_dir in options.runs}
    settings = {name: getattr(options, name) for name in ("episodes", "seed", "windows", "noises")}
    write_result(options.output, {**settings, "training_seeds": 1, "runs": runs})


def measured(run_dir: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The run's own sampling, even ones of four, two and one evaluation, and two with the second at SECOND."""
    run = ROBOT.load(run_dir, asked=AS_TRAINED)
    process, own = run.sampler.objective.process, run.sampler.config
    first = process.grid(1).timesteps[0]
    seconds = [share if process.timesteps is None else round(share * process.timesteps) for share in SECOND]
    grids = [own.grid(process).timesteps, process.grid(4).timesteps, (first,), *((first, time) for time in seconds)]
    task = ROBOT.build(run.config)
    indices = torch.arange(task.validation_samples)[:: -(-task.validation_samples // options.windows)]
    held_out = HeldOut(run.policy, task.validation_batch(indices))
    reference = samples(run, held_out, own.with_steps(REFERENCE), options.noises)
    even = energy_scores(samples(run, held_out, own.with_steps(2), options.noises), held_out.true)
    rows = []
    for times in grids:
        settings = dataclasses.replace(own, times=list(times))
        chunks = samples(run, held_out, settings, options.noises)
        energy = energy_scores(chunks, held_out.true)
        scores, last = played(run, run_dir, settings, options), process.level(times[-1])
        rows.append(
            {
                "times": list(times),
                "sigma_over_alpha_of_the_last": last.sigma / last.alpha if last.alpha > 0 else None,
                "score": sum(scores) / len(scores),
                "score_interval": list(bootstrap_interval(scores)),
                "action_error": float((chunks - held_out.true).square().mean()),
                "energy_score": float(energy.mean()),
                "energy_over_even": float((energy - even).mean()),
                "energy_error": standard_error(energy - even),
                "distance_to_16": float(chunk_norm(chunks - reference).mean()),
            }
        )
        print(run_dir.name, rows[-1], flush=True)
    two = [row for row in rows if len(row["times"]) == 2]
    order = {name: scipy.stats.rankdata([-row[name] for row in two]) for name in MEASURES}
    score = scipy.stats.rankdata([row["score"] for row in two])
    return {
        "target": run.config.diffusion.target,
        "family": run.config.diffusion.family,
        "step": run.step,
        "rows": rows,
        "rank_correlation_with_score": {
            name: float(scipy.stats.pearsonr(score, ranks).statistic) for name, ranks in order.items()
        },
    }


def played(run: LoadedRun, run_dir: Path, settings: SamplingConfig, options: argparse.Namespace) -> list[float]:
    """The scores of the episodes, recorded ones where there are some."""
    place = options.runs[0].parent / "few_step_grids.jsonl"
    key = {
        "run": run_dir.name,
        "sampler": settings.sampler,
        "times": settings.times,
        "episodes": options.episodes,
        "seed": options.seed,
    }
    for line in place.read_text().splitlines() if place.is_file() else []:
        row = json.loads(line)
        if all(row[name] == value for name, value in key.items()):
            return list(row["scores"])
    evaluation = dataclasses.replace(
        run.config.evaluation, episodes=options.episodes, start_seed=options.seed, videos=0, workers=0, slots=100
    )
    config = dataclasses.replace(run.config, evaluation=evaluation, sampling=settings)
    with closing(PolicyEvaluator(config, run.policy, run_dir)) as evaluator:
        scores = [episode["score"] for episode in evaluator(run.policy, print)["episodes"]]
    append_text(place, json.dumps({**key, "scores": scores}) + "\n")
    return scores


def samples(run: LoadedRun, held_out: HeldOut, settings: SamplingConfig, noises: int) -> torch.Tensor:
    """Chunks [noises, W, n_action_steps, A]."""
    sampler = Sampler(run.sampler.objective, settings)
    return torch.stack([held_out.sample(sampler, draws) for draws in noise_draws(held_out, noises)])


if __name__ == "__main__":
    main()
