"""`policy-accel evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from policy_accel.commands.output import describe_score, keep_evaluation
from policy_accel.errors import UserError
from policy_accel.policy.run import build_evaluator, load_run
from policy_accel.training.devices import choose_device, use_device


def run_evaluate(options: argparse.Namespace) -> int:
    """Score a checkpoint; the last line printed is the result as one JSON object."""
    device = choose_device(options.device, "--device")
    loaded = load_run(options.run_dir, options.checkpoint, device)
    config = loaded.config
    use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
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
    try:
        evaluator.check_fits(loaded.policy.observation_dim, loaded.policy.action_dim)
        result = evaluator(loaded.policy, lambda line: print(line, file=sys.stderr))
    finally:
        evaluator.close()
    result = {"step": loaded.step, **result}
    keep_evaluation(options.run_dir, result)
    print(describe_score(result), file=sys.stderr)
    print(json.dumps(result))
    return 0


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
