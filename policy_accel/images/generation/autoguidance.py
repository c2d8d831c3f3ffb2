"""Which network guides a run, as the arguments of a command ask."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from policy_accel.diffusion.alike import asked_alike
from policy_accel.errors import UserError
from policy_accel.images.generation.guidance import Guide
from policy_accel.images.run import LoadedImageRun
from policy_accel.training.averages import ALL, MAIN

Load = Callable[[Path, str, torch.device, str], LoadedImageRun]


def load_guide(load: Load, run_dir: Path, options: argparse.Namespace, device: torch.device) -> Guide | None:
    """The network that `options` name to guide the run `run_dir`: of another run, or an earlier checkpoint or another
    average of its own; None where they name none.

    Args:
        load: reads a checkpoint of a run, with one of its averages.
        run_dir: of the run that is guided.
        options: arguments of `policy-accel sample` or `evaluate`.
        device: where the network goes.

    Raises:
        UserError: a weight at which a guide has no effect, no such run or checkpoint, the guided network itself, or one
            of other images, classes, process or target.
    """
    if (options.guide, options.guide_checkpoint, options.guide_average) == (None, None, None):
        return None
    guide_dir, checkpoint = options.guide or run_dir, options.guide_checkpoint or "last"
    average = options.guide_average or MAIN
    own_average = MAIN if options.average in (None, ALL) else options.average
    own = load(run_dir, options.checkpoint, device, own_average)
    guide = load(guide_dir, checkpoint, device, average)
    named = f"the guide {guide_dir} (step {guide.step}, {average})"
    if (own.config.sampling.guidance if options.guidance is None else options.guidance) == 1.0:
        raise UserError(f"{named} has no effect at guidance 1; give --guidance, 2 for example.")
    itself = guide_dir.resolve() == run_dir.resolve() and guide.step == own.step
    if itself and average == own_average and options.average != ALL:
        raise UserError(
            f"{named} is the guided network itself, which changes nothing; give --guide-checkpoint of an earlier step, "
            "or another --guide."
        )
    if difference := _difference(own, guide):
        raise UserError(f"{named} cannot guide {run_dir}: {difference}; give a run of the same images and process.")
    told: dict[str, str | int] = {"run": str(guide_dir), "step": guide.step, "average": average}
    return Guide(guide.model, len(guide.classes), guide.condition_dim, told)


def _difference(own: LoadedImageRun, guide: LoadedImageRun) -> str | None:
    """What of two runs does not go together."""
    if guide.shape != own.shape:
        return f"its images are {guide.shape} (channels, height, width), and the others {own.shape}"
    if guide.representation.encoding != own.representation.encoding:
        return "it sees latents, and the other pixels or other latents"
    if guide.classes not in ((), own.classes):
        return f"it knows {len(guide.classes)} classes, which are not the {len(own.classes)} of the other"
    first, second = own.sampler.objective, guide.sampler.objective
    if not asked_alike(first, second):
        both = f"predicts {second.target}, and the other {first.target}" if first.target != second.target else ""
        return f"it {both or 'has another process, diffusion or acceleration settings'}"
    return None
