"""`policy-accel evaluate` for an image run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from policy_accel.commands.evaluate import given, sampling_options
from policy_accel.commands.output import describe_images, keep_evaluation
from policy_accel.errors import UserError
from policy_accel.files import check_writable
from policy_accel.images.config import ImageConfig
from policy_accel.images.run import averages, build_evaluator, check_guidance, load_image_run, read_image_config
from policy_accel.images.sets import load_split
from policy_accel.training.devices import choose_device, use_device


def evaluate_images(options: argparse.Namespace) -> int:
    """Score one average of the weights, or all of them and name the best; the last line is one JSON object."""
    device = choose_device(options.device, "--device")
    config = _config(options)
    use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
    known = averages(options.run_dir, options.checkpoint)
    names = known if options.average == "all" else [options.average or "ema"]
    split = load_split(config.task)
    config.evaluation.video = False
    evaluator = build_evaluator(config, split, options.run_dir, device)
    check_writable(options.run_dir)
    results = []
    for name in names:
        loaded = load_image_run(options.run_dir, options.checkpoint, device, average=name)
        if split.train.shape != loaded.shape:
            raise UserError(
                f"{config.task.data} has images of {split.train.shape} (channels, height, width), and "
                f"{options.run_dir} was trained on {loaded.shape}; put the run's data back."
            )
        result = evaluator.measure(loaded.model, _say, full=True)
        if result is None:
            raise UserError("--samples 0 leaves nothing to score; give 2 or more.")
        result = {"step": loaded.step, "average": name, **result}
        results.append(result)
        _say(f"{name}, step {loaded.step}: {describe_images(result)}")
    best = max(results, key=lambda result: result["score"])
    if len(results) > 1:
        best = {**best, "averages": {result["average"]: result["score"] for result in results}}
        _say(f"The best average is {best['average']}: chosen on these very images, so quote it with another --seed.")
    print(json.dumps(best))
    keep_evaluation(options.run_dir, best)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _config(options: argparse.Namespace) -> ImageConfig:
    """The run's configuration with what the command line changes."""
    config = read_image_config(options.run_dir)
    evaluation: dict[str, Any] = given(samples=options.samples, seed=options.seed, batch_size=options.batch_size)
    metrics = given(inception=options.inception, resnet=options.resnet)
    config.evaluation = dataclasses.replace(
        config.evaluation, **evaluation, metrics=dataclasses.replace(config.evaluation.metrics, **metrics)
    )
    config.sampling = dataclasses.replace(
        config.sampling, **sampling_options(options), **given(guidance=options.guidance)
    )
    check_guidance(config)
    return config
