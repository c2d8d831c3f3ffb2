"""A policy's checkpoint scored anew, beside what chose it: what `policy-accel evaluate` does for a robot run."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.evaluation.statistics import EXPLANATION, missing_seeds, selection_bias
from policy_accel.policy.config import EvaluationConfig
from policy_accel.policy.demonstrations import TaskConfig
from policy_accel.policy.evaluate import PolicyEvaluator, Recorded
from policy_accel.policy.run import LoadedRun
from policy_accel.track import Report, replaced
from policy_accel.training.checkpoint import best_checkpoint, evaluation_of
from policy_accel.training.devices import use_device
from policy_accel.training.metrics import read_metrics


def check_trusted(task: TaskConfig, run_dir: Path) -> None:
    """Raise UserError when scoring a run would import a module that only its config.yaml names: it may be a stranger's,
    and the module beside it."""
    prefix = (task.environment or "").rpartition(":")[0]  # gymnasium imports what stands before the colon of an id
    for module in filter(None, (task.environment_module, prefix)):
        if module != TaskConfig.environment_module and module not in sys.modules:
            raise UserError(
                f"{run_dir} has its environment from the module '{module}', which is imported only when you name it: "
                f"--plugins {module}."
            )


def score_run(loaded: LoadedRun, run_dir: Path, options: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Score `loaded`, a checkpoint of `run_dir`, with what the arguments of `policy-accel evaluate` change."""
    config = loaded.config
    device = next(loaded.policy.parameters()).device
    use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
    choice = _choice(run_dir, loaded.step, options, config.evaluation, report)
    config.evaluation = replaced(
        config.evaluation,
        episodes=options.episodes,
        start_seed=options.seed,
        noise_seed=options.noise_seed,
        workers=options.workers,
        videos=options.videos,
        camera=options.camera,
    )
    config.evaluation.check()
    config.sampling = replaced(
        config.sampling, sampler=options.sampler, steps=options.sampling_steps, spacing=options.spacing
    )
    if not config.is_scored():
        raise UserError(f"{run_dir} cannot be scored: its task has no environment, or --episodes is 0.")
    evaluator = PolicyEvaluator(config, loaded.policy, run_dir, Recorded(loaded.env_args), start=True)
    try:
        result = {"task": config.task.name, "step": loaded.step, **evaluator(loaded.policy, report)}
        report(describe_score(result))
        if choice is not None:
            seeds, why = choice
            start, episodes = result["start_seed"], result["episodes"]
            missing = missing_seeds(range(start, start + len(episodes)), seeds)
            more: dict[str, Any] = {"episodes": [], "seconds": 0.0}
            if missing:
                evaluator.config = dataclasses.replace(
                    evaluator.config, start_seed=missing.start, episodes=len(missing), videos=0
                )
                more = evaluator(loaded.policy, report)
            result["selection_bias"] = {
                **selection_bias([*episodes, *more["episodes"]], seeds, confidence=result["confidence"]),
                **why,
                "more_episodes": more["episodes"],
                "seconds": more["seconds"],
            }
            report(describe_selection(result["selection_bias"]))
    finally:
        evaluator.close()
    return result


def _choice(
    run_dir: Path, step: int, options: argparse.Namespace, trained: EvaluationConfig, report: Report
) -> tuple[range, dict[str, Any]] | None:
    """The seeds on which checkpoints were compared during training (those of the settings `trained`), and how that of
    `step` came to be chosen; None where nothing was chosen by score and --fresh was not given."""
    folder = run_dir / "checkpoints"
    best = best_checkpoint(folder)
    candidates = len({row["step"] for row in read_metrics(run_dir / "metrics.jsonl") if "score" in row})
    by_score = options.checkpoint != "last" and best == folder / f"{step:08d}" and candidates > 1
    if options.checkpoint == "best" and not by_score:
        report(
            "One checkpoint was scored during training, so none was chosen by its score: there is no selection bias."
        )
    if not by_score and not options.fresh:
        return None
    if trained.episodes == 0:
        raise UserError(
            f"--fresh has no seeds to compare with: {run_dir} was trained with evaluation.episodes=0; drop it."
        )
    recorded = evaluation_of(folder / f"{step:08d}") or {}
    seeds = range(trained.start_seed, trained.start_seed + trained.episodes)
    return seeds, {"candidates": candidates, "chosen_by_score": by_score, "recorded_score": recorded.get("score")}


def describe_score(result: dict[str, Any]) -> str:
    """Score, success and their intervals in one line."""
    low, high = result["score_interval"]
    success_low, success_high = result["success_interval"]
    episodes = len(result["episodes"])
    metrics = "".join(f"{name} {value:.3g}, " for name, value in result.get("metrics", {}).items())
    return (
        f"Score {result['score']:.3f} ({result['confidence']:.0%} interval {low:.3f} to {high:.3f}), "
        f"success {result['success_rate']:.0%} ({success_low:.0%} to {success_high:.0%}), "
        f"{metrics}over {episodes} episodes from seed {result['start_seed']}, "
        f"{result['sampler']} with {result['network_evaluations']} evaluations a chunk."
    )


def describe_selection(bias: dict[str, Any]) -> str:
    """The score on the seeds that chose a checkpoint, on fresh ones and the difference, and what that means."""
    low, high = bias["difference_interval"]
    chosen, fresh = (_group(bias[name]) for name in ("chosen", "fresh"))
    if bias["chosen_by_score"]:
        seeds, why = "that chose it", f"This checkpoint has the best of {bias['candidates']} scores during training"
    else:
        seeds, why = "of the training", "This checkpoint was not chosen for its score"
    return (
        f"{why}: {chosen} on the seeds {seeds}, {fresh} on fresh ones, "
        f"difference {bias['difference']:+.3f} ({bias['confidence']:.0%} interval {low:+.3f} to {high:+.3f}).\n"
        f"{EXPLANATION} Quote the score on fresh seeds."
    )


def _group(group: dict[str, Any]) -> str:
    low, high = group["score_interval"]
    return f"score {group['score']:.3f} ({low:.3f} to {high:.3f}; {group['episodes']} from {group['start_seed']})"
