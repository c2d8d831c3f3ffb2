"""Episodes of a policy, many at once and one after the other."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.evaluation.environments import EnvironmentSpec, import_environment, make_environment
from policy_accel.policy.controller import Policy
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.track import ROBOT
from policy_accel.track import Report, replaced
from policy_accel.training.devices import choose_device, use_device


def benchmark_rollouts(
    run_dir: Path, *, episodes: int, sequential: int, workers: int, device_name: str, report: Report
) -> dict[str, Any]:
    """Score a run's policy as `evaluate` does, and by a plain loop over `Policy.act`, on the same seeds.

    Each side plays one episode that is not timed. CPU seconds are those of this process and of the workers, with their
    start; without workers there is none.

    Args:
        run_dir: of a trained policy.
        episodes: played side by side, as many at once as the run's evaluation.slots.
        sequential: the first of them, also played one after the other.
        workers: processes of the environments; 0 plays in this one.
        device_name: auto, cpu, cuda or cuda:N.
        report: takes a line for the user.

    Returns:
        JSON-able; "largest_score_difference" is that between the two ways of playing a seed.

    Raises:
        UserError: not a run of a policy with an environment; no episodes.
    """
    if not 1 <= sequential <= episodes:
        raise UserError(f"--sequential {sequential} must be at least 1 and at most --episodes {episodes}.")
    device = choose_device(device_name, "--device")
    loaded = ROBOT.load(run_dir, device=device)
    config = loaded.config
    use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
    config.evaluation = replaced(config.evaluation, episodes=episodes, workers=workers, videos=0)
    evaluator = PolicyEvaluator(config, loaded.policy, run_dir, loaded.env_args)
    seeds = range(config.evaluation.start_seed, config.evaluation.start_seed + episodes)
    scores: dict[str, list[float]] = {}

    def together() -> None:
        scores["vectorised"] = [row["score"] for row in evaluator(loaded.policy, report)["episodes"]]

    def one_by_one() -> None:
        policy = Policy(loaded, noise_seed=config.evaluation.noise_seed)
        scores["sequential"] = play(policy, evaluator.pool.spec, seeds[:sequential])

    if not workers:
        play(Policy(loaded), evaluator.pool.spec, seeds[:1])
    report(f"{episodes} episodes, {evaluator.pool.slots} at once")
    vectorised = _cost(together, episodes, then=evaluator.close)
    report(f"{sequential} episodes, one after the other")
    plain = _cost(one_by_one, sequential)
    pairs = zip(scores["sequential"], scores["vectorised"], strict=False)
    return {
        "task": config.task.name,
        "slots": evaluator.pool.slots,
        "workers": workers,
        "network_evaluations": loaded.sampler.network_evaluations(),
        "start_seed": seeds.start,
        "vectorised": {"episodes": episodes, **vectorised},
        "sequential": {"episodes": sequential, **plain},
        "times_the_sequential_loop": vectorised["episodes_per_second"] / plain["episodes_per_second"],
        "times_the_sequential_loop_in_cpu_seconds": plain["cpu_seconds"] / vectorised["cpu_seconds"],
        "largest_score_difference": max(abs(one - other) for one, other in pairs),
    }


def play(policy: Policy, spec: EnvironmentSpec, seeds: Sequence[int]) -> list[float]:
    """The plain loop: one episode for each seed, one after the other; the largest reward of each."""
    import_environment(spec)
    scores = []
    with contextlib.closing(make_environment(spec, filmed=False)) as environment:
        for seed in seeds:
            observation, _ = environment.reset(seed=seed)
            policy.reset(seed)
            rewards = []
            for _ in range(spec.max_steps):
                observation, reward, terminated, truncated, _ = environment.step(policy.act(observation))
                rewards.append(float(reward))
                if terminated or truncated:
                    break
            scores.append(max(rewards))
    return scores


def _cost(work: Callable[[], None], episodes: int, then: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Episodes a second of `work`, and CPU seconds of an episode; `then` ends processes, whose time counts only so."""
    clock, cpu = time.perf_counter(), cpu_seconds()
    work()
    seconds = time.perf_counter() - clock
    then()
    return {"episodes_per_second": episodes / seconds, "cpu_seconds": (cpu_seconds() - cpu) / episodes}


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
