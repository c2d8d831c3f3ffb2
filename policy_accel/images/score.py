"""An image model's checkpoint scored anew: what `policy-accel evaluate` does for a run of images."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.evaluate import ImageEvaluator
from policy_accel.images.metrics import table
from policy_accel.images.run import LoadedImageRun, averages, check_guidance
from policy_accel.images.sets import load_split
from policy_accel.track import Report, replaced
from policy_accel.training.devices import use_device


def score_run(
    config: ImageConfig,
    run_dir: Path,
    load: Callable[[str], LoadedImageRun],
    device: torch.device,
    options: argparse.Namespace,
    report: Report,
) -> dict[str, Any]:
    """Score one average of the weights, or all of them; the best is the result.

    Args:
        config: of the run; what the arguments of the command name is changed in it.
        run_dir: the run.
        load: loads an average by its name.
        device: where images are made and measured.
        options: the arguments of `policy-accel evaluate`.
        report: takes a line for the user.
    """
    _change(config, options)
    use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
    names = averages(run_dir, options.checkpoint) if options.average == "all" else [options.average or "ema"]
    split = load_split(config.task)
    evaluator = ImageEvaluator(config, split, run_dir, device)
    results = []
    for name in names:
        loaded = load(name)
        if split.train.shape != loaded.shape:
            raise UserError(
                f"{config.task.data} has images of {split.train.shape} (channels, height, width), and "
                f"{run_dir} was trained on {loaded.shape}; put the run's data back."
            )
        measured = evaluator.measure(loaded.model, report, full=True)
        if measured is None:
            raise UserError("--samples 0 leaves nothing to score; give 2 or more.")
        results.append({"step": loaded.step, "average": name, **measured})
        report(f"{name}, step {loaded.step}: {describe_images(results[-1])}")
    best: dict[str, Any] = max(results, key=lambda result: float(result["score"]))
    if len(results) > 1:
        best = {**best, "averages": {result["average"]: result["score"] for result in results}}
        report(f"The best average is {best['average']}: chosen on these very images, so quote it with another --seed.")
    return best


def _change(config: ImageConfig, options: argparse.Namespace) -> None:
    evaluation = replaced(
        config.evaluation, samples=options.samples, seed=options.seed, batch_size=options.batch_size, video=False
    )
    evaluation.metrics = replaced(evaluation.metrics, inception=options.inception, resnet=options.resnet)
    config.evaluation = evaluation
    config.sampling = replaced(
        config.sampling,
        sampler=options.sampler,
        steps=options.sampling_steps,
        spacing=options.spacing,
        guidance=options.guidance,
    )
    check_guidance(config)


def describe_images(result: dict[str, Any]) -> str:
    """The measures of generated images beside their floors, and how the images were made."""
    guidance = f", guidance {result['guidance']:g}" if result["guidance"] != 1 else ""
    return (
        f"{result['images']} images by {result['sampler']} with {result['network_evaluations']} network evaluations "
        f"each{guidance}, seed {result['seed']}:\n{table(result['measures'])}"
    )
