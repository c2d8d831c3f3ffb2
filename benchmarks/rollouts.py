"""CPU-seconds an episode of a policy's rollouts: the evaluator beside a plain loop and gymnasium's AsyncVectorEnv.

    policy-accel train recipe=demo training.steps=400 evaluation.episodes=0 run_dir=runs/short
    python benchmarks/rollouts.py runs/short

Sides, which take turns in every round, in one process with one torch thread:

    evaluator             `PolicyEvaluator` with all episodes side by side, environments in this process
    evaluator, workers    the same with processes for the environments; their start counts
    AsyncVectorEnv        all episodes side by side, a process for each and one step of all at a time
    plain loop            one episode after the other over `Policy.act`; `--plain` of the episodes

CPU time (user and system, of children too) and not the clock: machines are shared. Every side gives an episode the same
noise, and their scores are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from results import RESULTS, write_result

from policy_accel.benchmark.rollouts import cpu_seconds, play
from policy_accel.evaluation.environments import EnvironmentSpec, make_environment
from policy_accel.policy.controller import Policy
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.run import LoadedRun
from policy_accel.policy.track import ROBOT
from policy_accel.training.randomness import named_generator

TOLERANCE = 0.05
"""By which mean scores may differ: sums of a batch are rounded in another order than those of one row."""


def evaluated(run: LoadedRun, seeds: range, workers: int) -> list[float]:
    """Scores by the evaluator."""
    evaluation = replace(
        run.config.evaluation, episodes=len(seeds), start_seed=seeds.start, slots=len(seeds), workers=workers, videos=0
    )
    evaluator = PolicyEvaluator(replace(run.config, evaluation=evaluation), run.policy, run_dir=Path("unused"))
    try:
        result = evaluator(run.policy, print)
    finally:
        evaluator.close()
    return [row["score"] for row in result["episodes"]]


def vectorised(run: LoadedRun, seeds: range, spec: EnvironmentSpec) -> list[float]:
    """Scores of all episodes side by side in gymnasium's AsyncVectorEnv."""
    environments = gymnasium.vector.AsyncVectorEnv([lambda: make_environment(spec, filmed=False)] * len(seeds))
    shape = run.policy.noise_shape(run.sampler)
    observation, _ = environments.reset(seed=list(seeds))
    history = deque([observation] * spec.n_obs_steps, maxlen=spec.n_obs_steps)
    best, ended, steps, chunk = np.zeros(len(seeds)), np.zeros(len(seeds), bool), 0, 0
    while steps < spec.max_steps and not ended.all():
        noise = torch.stack(
            [
                torch.randn(shape, generator=named_generator(run.config.evaluation.noise_seed, "rollout", seed, chunk))
                for seed in seeds
            ]
        )
        actions = run.policy.predict(torch.from_numpy(np.stack(history, axis=1)), noise, sampler=run.sampler).numpy()
        for step in range(min(actions.shape[1], spec.max_steps - steps)):
            observation, rewards, terminated, _, _ = environments.step(actions[:, step])
            history.append(observation.copy())
            best = np.where(ended, best, np.maximum(best, rewards))
            ended |= terminated
            steps += 1
        chunk += 1
    environments.close()
    return [float(score) for score in best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="of a policy for numbers, not pictures")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--plain", type=int, default=10, help="episodes of the plain loop, the first ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "rollouts_cpu.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = ROBOT.load(arguments.run_dir)
    evaluation = run.config.evaluation
    evaluator = PolicyEvaluator(run.config, run.policy, run_dir=Path("unused"))
    spec = evaluator.pool.spec
    seeds = range(evaluation.start_seed, evaluation.start_seed + arguments.episodes)
    sides: dict[str, tuple[range, Callable[[range], list[float]]]] = {
        "evaluator": (seeds, lambda own: evaluated(run, own, 0)),
        f"evaluator, {arguments.workers} workers": (seeds, lambda own: evaluated(run, own, arguments.workers)),
        "AsyncVectorEnv": (seeds, lambda own: vectorised(run, own, spec)),
        "plain loop": (
            seeds[: arguments.plain],
            lambda own: play(Policy(run, noise_seed=evaluation.noise_seed), spec, own),
        ),
    }
    load = os.getloadavg()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    scores: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name, (own, side) in sides.items():
            before = cpu_seconds()
            scores[name] = side(own)
            seconds[name].append((cpu_seconds() - before) / len(own))
            print(f"{name}: {seconds[name][-1]:.4f} CPU-seconds an episode", flush=True)
    figures: dict[str, Any] = {}
    for name, values in seconds.items():
        first = slice(None, arguments.plain)
        difference = float(np.mean(scores[name][first]) - np.mean(scores["plain loop"]))
        assert abs(difference) < TOLERANCE, f"{name} does not play the same episodes: {difference}"
        ratios = [plain / value for plain, value in zip(seconds["plain loop"], values, strict=True)]
        figures[name] = {
            "cpu_seconds_an_episode": round(statistics.median(values), 5),
            "rounds": [round(value, 5) for value in values],
            "times_the_plain_loop": {
                "median": round(statistics.median(ratios), 3),
                "min": round(min(ratios), 3),
                "max": round(max(ratios), 3),
            },
            "score": round(float(np.mean(scores[name])), 5),
            "score_of_the_plain_episodes": round(float(np.mean(scores[name][first])), 5),
            "episodes": len(scores[name]),
        }
        print(f"{name}: {figures[name]['times_the_plain_loop']['median']} times the plain loop")
    write_result(
        arguments.output,
        {
            "task": run.config.task.name,
            "step": run.step,
            "start_seed": seeds.start,
            "max_steps": spec.max_steps,
            "network_evaluations": run.sampler.network_evaluations(),
            "load_average_before": [round(value, 2) for value in load],
            "sides": figures,
        },
    )


if __name__ == "__main__":
    main()
