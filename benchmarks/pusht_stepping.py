"""CPU time of Push-T beside an earlier checkout's: a step alone, and the episodes of a policy, with the same bits.

    git worktree add /tmp/before dfeafc7
    policy-accel train recipe=demo training.steps=1000 evaluation.episodes=0 run_dir=runs/short
    python benchmarks/pusht_stepping.py runs/short --before /tmp/before

Only the folder `envs` is taken from the other checkout. Rounds are interleaved, each side in a fresh process with one
torch thread and the environments in it. Steps: an agent that goes from one drawn place to the next, and of whose
observations every eight steps the last two are looked at. Episodes: `PolicyEvaluator` on `--episodes` seeds. SHA-256
of all rewards and of what is looked at, and that of all scores and lengths, must be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from results import RESULTS, write_result

STEPS, STARTS, REPEATS, CHUNK = 300, 5, 8, 8
START_SEED = 700_000


def use_envs_of(checkout: Path) -> None:
    """Take `policy_accel.envs` from a checkout."""
    folder = checkout / "envs"
    spec = importlib.util.spec_from_file_location(
        "policy_accel.envs", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["policy_accel.envs"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def steps() -> dict[str, Any]:
    """Microseconds of a step: the least of some repeats."""
    from policy_accel.envs.pusht import PushT

    digest, found = hashlib.sha256(), []
    environment = PushT("keypoints")
    for _ in range(REPEATS):
        draws, began = np.random.default_rng(0), time.process_time()
        for seed in range(STARTS):
            observation, _ = environment.reset(seed=seed)
            agent = observation[-2:].astype(np.float64)
            for step in range(STEPS):
                if step % CHUNK == 0:
                    place = draws.uniform(100, 400, 2)
                agent = agent + np.clip(place - agent, -30, 30)
                environment.frames_wanted = step % CHUNK >= CHUNK - 2
                observation, reward, *_ = environment.step(agent)
                digest.update(
                    np.float64(reward).tobytes() + (observation.tobytes() if environment.frames_wanted else b"")
                )
        found.append((time.process_time() - began) / (STARTS * STEPS) * 1e6)
    return {"microseconds_a_step": min(found), "sha256": digest.hexdigest()}


def episodes(run_dir: Path, count: int) -> dict[str, Any]:
    """CPU seconds of an episode of a policy."""
    import torch

    from policy_accel.policy.evaluate import PolicyEvaluator
    from policy_accel.policy.track import ROBOT

    torch.set_num_threads(1)
    run = ROBOT.load(run_dir)
    evaluation = replace(run.config.evaluation, episodes=count, start_seed=START_SEED, workers=0, videos=0)
    evaluator = PolicyEvaluator(replace(run.config, evaluation=evaluation), run.policy, run_dir=Path("unused"))
    began = time.process_time()
    result = evaluator(run.policy, print)
    seconds = (time.process_time() - began) / count
    played = [[row["seed"], row["score"], row["length"]] for row in result["episodes"]]
    return {
        "cpu_seconds_an_episode": seconds,
        "score": result["score"],
        "sha256": hashlib.sha256(json.dumps(played).encode()).hexdigest(),
    }


def measured(options: argparse.Namespace, checkout: Path) -> dict[str, Any]:
    """A round of one side, in a process of its own."""
    words = [str(options.run_dir), "--episodes", str(options.episodes), "--one", str(checkout)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="of a Push-T policy")
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS / "pusht_stepping_cpu.json")
    options = parser.parse_args()
    if options.one:
        use_envs_of(options.one)
        print(json.dumps({"step": steps(), "episode": episodes(options.run_dir, options.episodes)}))
        return
    if options.before is None:
        parser.error("--before names the other checkout")
    sides = {"before": options.before, "here": Path(__file__).resolve().parents[1]}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, checkout in sides.items():
            rounds[name].append(measured(options, checkout))
            print(name, rounds[name][-1], flush=True)
    for part in ("step", "episode"):
        digests = {row[part]["sha256"] for rows in rounds.values() for row in rows}
        assert len(digests) == 1, f"the bits of a {part} differ"
    figures = {
        name: {
            "microseconds_a_step": [round(row["step"]["microseconds_a_step"], 2) for row in rows],
            "cpu_seconds_an_episode": [round(row["episode"]["cpu_seconds_an_episode"], 4) for row in rows],
        }
        for name, rows in rounds.items()
    }
    medians = {name: {key: statistics.median(values) for key, values in row.items()} for name, row in figures.items()}
    write_result(
        options.output,
        {
            "episodes": options.episodes,
            "start_seed": START_SEED,
            "score": rounds["here"][0]["episode"]["score"],
            "identical": True,
            "rounds": figures,
            "medians": medians,
            "times_before": {key: round(medians["before"][key] / value, 3) for key, value in medians["here"].items()},
        },
    )


if __name__ == "__main__":
    main()
