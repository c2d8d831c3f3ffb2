"""`policy-accel evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from policy_accel.commands.output import describe_score
from policy_accel.errors import UserError
from policy_accel.files import explained, replace_json
from policy_accel.policy.run import build_evaluator, load_run
from policy_accel.progress import Progress
from policy_accel.training.devices import choose_device


def run_evaluate(options: argparse.Namespace) -> int:
    """Score a checkpoint; the last line printed is the result as one JSON object."""
    loaded = load_run(options.run_dir, options.checkpoint, choose_device(options.device))
    config = loaded.config
    config.evaluation = dataclasses.replace(
        config.evaluation,
        **_given(
            episodes=options.episodes,
            start_seed=options.seed,
            noise_seed=options.noise_seed,
            workers=options.workers,
            videos=options.videos,
        ),
    )
    config.sampling = dataclasses.replace(
        config.sampling,
        **_given(sampler=options.sampler, steps=options.sampling_steps, spacing=options.spacing),
    )
    evaluator = build_evaluator(config, options.run_dir)
    if evaluator is None:
        raise UserError(f"{options.run_dir} cannot be scored: its task has no environment, or --episodes is 0.")
    progress = Progress("evaluate", config.evaluation.episodes, unit="episode")
    try:
        result = evaluator(loaded.policy, progress.say, lambda done, _: progress.to(done))
    finally:
        progress.close()
        evaluator.close()
    result = {"step": loaded.step, **result}
    replace_json(options.run_dir / "evaluation.json", result)
    history = options.run_dir / "evaluations.jsonl"
    with explained(history), open(history, "a") as file:
        file.write(json.dumps(result) + "\n")
    print(describe_score(result), file=sys.stderr)
    print(json.dumps(result))
    return 0


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
