"""`policy-accel evaluate`, for every track."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy_accel.commands.output import describe_score, describe_selection, keep_evaluation, score_table
from policy_accel.errors import UserError
from policy_accel.evaluation.statistics import missing_seeds, selection_bias
from policy_accel.files import check_writable
from policy_accel.training.checkpoint import best_checkpoint, evaluation_of
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.metrics import read_metrics
from policy_accel.training.run_directory import read_config

POLICY_OPTIONS = ("episodes", "noise_seed", "workers", "videos", "camera", "fresh")
IMAGE_OPTIONS = ("samples", "batch_size", "guidance", "average", "inception", "resnet")


def run_evaluate(options: argparse.Namespace) -> int:
    """Score a checkpoint of each run; the last line printed is one JSON object: the result, or {"runs": results}.

    Raises:
        UserError: a run directory that cannot be written, before anything is scored; a result that could not be kept,
            after all are printed.
    """
    images = [run_dir for run_dir in options.run_dirs if "policy" not in read_config(run_dir)]
    if images and len(options.run_dirs) > 1:
        raise UserError(f"{images[0]} is the run of an image model; evaluate such runs one at a time.")
    idle, whose = (POLICY_OPTIONS, "a policy") if images else (IMAGE_OPTIONS, "an image model")
    for name in idle:
        if getattr(options, name) is not None and getattr(options, name) is not False:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} is for {whose}, which {options.run_dirs[0]} does not hold; drop it.")
    if images:
        from policy_accel.commands.evaluate_images import evaluate_images

        return evaluate_images(argparse.Namespace(**vars(options), run_dir=images[0]))
    for run_dir in options.run_dirs:
        check_writable(run_dir)
    results, unkept = [], []
    for run_dir in options.run_dirs:
        if len(options.run_dirs) > 1:
            _say(f"{run_dir}:")
        result = _evaluate_policy(run_dir, options)
        try:
            keep_evaluation(run_dir, result)
        except UserError as error:  # after the result is printed
            unkept.append(error)
        results.append({"run_dir": str(run_dir), **result})
    if len(results) > 1:
        _say(score_table(results))
        print(json.dumps({"runs": results}))
    else:
        print(json.dumps(result))
    if unkept:
        raise unkept[0]
    return 0


def _evaluate_policy(run_dir: Path, options: argparse.Namespace) -> dict[str, Any]:
    from policy_accel.policy.run import build_evaluator, load_run

    device = choose_device(options.device, "--device")
    loaded = load_run(run_dir, options.checkpoint, device)
    config = loaded.config
    use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
    choice = _choice(run_dir, loaded.step, options, config.evaluation)
    config.evaluation = dataclasses.replace(
        config.evaluation,
        **given(
            episodes=options.episodes,
            start_seed=options.seed,
            noise_seed=options.noise_seed,
            workers=options.workers,
            videos=options.videos,
            camera=options.camera,
        ),
    )
    config.sampling = dataclasses.replace(config.sampling, **sampling_options(options))
    evaluator = build_evaluator(config, run_dir)
    if evaluator is None:
        raise UserError(f"{run_dir} cannot be scored: its task has no environment, or --episodes is 0.")
    try:
        evaluator.recorded_in(loaded.env_args)
        evaluator.pool.start()
        evaluator.check_fits(loaded.policy)
        result = {"task": config.task.name, "step": loaded.step, **evaluator(loaded.policy, _say)}
        _say(describe_score(result))
        if choice is not None:

            def score(seeds: range) -> dict[str, Any]:
                evaluator.config = dataclasses.replace(
                    evaluator.config, start_seed=seeds.start, episodes=len(seeds), videos=0
                )
                return evaluator(loaded.policy, _say)

            result["selection_bias"] = _compare(result, choice, score)
            _say(describe_selection(result["selection_bias"]))
    finally:
        evaluator.close()
    return result


@dataclass(frozen=True)
class _Choice:
    """How the checkpoint came to be chosen.

    seeds: on which checkpoints were compared during training. candidates: checkpoints that were scored on them.
    by_score: whether this one was chosen for its score. recorded_score: its score during training, if it had one.
    """

    seeds: range
    candidates: int
    by_score: bool
    recorded_score: float | None


def _choice(run_dir: Path, step: int, options: argparse.Namespace, trained: Any) -> _Choice | None:
    """What the score is to be compared with, or None where nothing was chosen by score and --fresh was not given.

    Args:
        run_dir: the run.
        step: of the checkpoint.
        options: of the command.
        trained: the run's own evaluation settings: the seeds of every score during training.
    """
    folder = run_dir / "checkpoints"
    best = best_checkpoint(folder)
    candidates = len({row["step"] for row in read_metrics(run_dir / "metrics.jsonl") if "score" in row})
    by_score = options.checkpoint != "last" and best == folder / f"{step:08d}" and candidates > 1
    if options.checkpoint == "best" and not by_score:
        _say("One checkpoint was scored during training, so none was chosen by its score: there is no selection bias.")
    if not by_score and not options.fresh:
        return None
    if trained.episodes == 0:
        raise UserError(
            f"--fresh has no seeds to compare with: {run_dir} was trained with evaluation.episodes=0; drop it."
        )
    recorded = evaluation_of(folder / f"{step:08d}") or {}
    seeds = range(trained.start_seed, trained.start_seed + trained.episodes)
    return _Choice(seeds, candidates, by_score, recorded.get("score"))


def _compare(result: dict[str, Any], choice: _Choice, score: Callable[[range], dict[str, Any]]) -> dict[str, Any]:
    """Score the seeds that `result` lacks, and compare those that chose the checkpoint with fresh ones."""
    start = result["start_seed"]
    missing = missing_seeds(range(start, start + len(result["episodes"])), choice.seeds)
    more: dict[str, Any] = score(missing) if missing else {"episodes": [], "seconds": 0.0}
    return {
        **selection_bias([*result["episodes"], *more["episodes"]], choice.seeds, confidence=result["confidence"]),
        "candidates": choice.candidates,
        "chosen_by_score": choice.by_score,
        "recorded_score": choice.recorded_score,
        "more_episodes": more["episodes"],
        "seconds": more["seconds"],
    }


def sampling_options(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of the sampler that were given."""
    return given(sampler=options.sampler, steps=options.sampling_steps, spacing=options.spacing)


def given(**options: Any) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _say(line: str) -> None:
    print(line, file=sys.stderr)
