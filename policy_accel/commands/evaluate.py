"""`policy-accel evaluate`, for every track."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from policy_accel.commands.output import describe_score, keep_evaluation
from policy_accel.errors import UserError
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.run_directory import read_config

POLICY_OPTIONS = ("episodes", "noise_seed", "workers", "videos")
IMAGE_OPTIONS = ("samples", "batch_size", "guidance", "average", "inception", "resnet")


def run_evaluate(options: argparse.Namespace) -> int:
    """Score a checkpoint; the last line printed is the result as one JSON object."""
    images = "policy" not in read_config(options.run_dir)
    idle, whose = (POLICY_OPTIONS, "a policy") if images else (IMAGE_OPTIONS, "an image model")
    for name in idle:
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} is for {whose}, which {options.run_dir} does not hold; drop it.")
    if images:
        from policy_accel.commands.evaluate_images import evaluate_images

        return evaluate_images(options)
    return _evaluate_policy(options)


def _evaluate_policy(options: argparse.Namespace) -> int:
    from policy_accel.policy.run import build_evaluator, load_run

    device = choose_device(options.device, "--device")
    loaded = load_run(options.run_dir, options.checkpoint, device)
    config = loaded.config
    use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
    config.evaluation = dataclasses.replace(
        config.evaluation,
        **given(
            episodes=options.episodes,
            start_seed=options.seed,
            noise_seed=options.noise_seed,
            workers=options.workers,
            videos=options.videos,
        ),
    )
    config.sampling = dataclasses.replace(config.sampling, **sampling_options(options))
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


def sampling_options(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of the sampler that were given."""
    return given(sampler=options.sampler, steps=options.sampling_steps, spacing=options.spacing)


def given(**options: Any) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name, value in options.items() if value is not None}
