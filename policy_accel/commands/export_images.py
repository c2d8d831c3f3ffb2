"""`policy-accel export` of an image model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from policy_accel.commands.output import suggest
from policy_accel.errors import UserError
from policy_accel.images.foreign.to_diffusers import OWN_PIPELINE, write_pipeline
from policy_accel.images.run import LoadedImageRun
from policy_accel.images.track import IMAGES
from policy_accel.run_files import results_folder
from policy_accel.run_sampling import AskedSampling
from policy_accel.training.averages import MAIN

FORMS = ("diffusers", "safetensors")
SHOWN = 4
"""Images, of as many classes, that the printed lines draw."""


def export_images(home: Path, checkpoint: str, options: argparse.Namespace) -> int:
    """Write the model of a run to a folder that diffusers opens, or to one that `save_pretrained` writes."""
    if options.to not in FORMS:
        raise UserError(f"--to {options.to} is for policies, and {home} is an image model; give {' or '.join(FORMS)}.")
    if options.weights != "fp32":
        raise UserError(f"--weights {options.weights} is for policies, and {home} is an image model; drop it.")
    run = IMAGES.load(home, checkpoint, average=options.average or MAIN, asked=AskedSampling.of(options))
    folder = options.output or _default(home, run, options.to)
    if options.to == "safetensors":
        from policy_accel.images.sharing.hub import save_pretrained

        about = save_pretrained(run, folder)
    else:
        about = write_pipeline(run, folder)
    if options.json:
        print(json.dumps({"folder": str(folder), **about}))
    elif options.to == "safetensors":
        print(f"{folder}: step {run.step}.")
        suggest("draw images with it", ["sample", folder])
    else:
        needs = " and ".join(about["needs"])
        print(f"{folder}: step {run.step}, {about['pipeline']} with {about['scheduler']}; it opens with {needs}:")
        print(_opening(folder, run, about))
    return 0


def _opening(folder: Path, run: LoadedImageRun, about: dict[str, Any]) -> str:
    """Python that opens the pipeline and draws as the run does."""
    lines = ["import policy_accel.diffusion.schedulers"] if "policy_accel" in about["needs"] else []
    own = about["pipeline"] == OWN_PIPELINE
    asked = f", num_inference_steps={about['steps']}"
    if run.classes:
        asked += f", class_labels={list(run.classes[:SHOWN])}, guidance={run.sampler.config.guidance:g}"
    lines += [
        "from diffusers import DiffusionPipeline",
        f"pipeline = DiffusionPipeline.from_pretrained({str(folder)!r}{', trust_remote_code=True' if own else ''})",
        f"images = pipeline(batch_size={len(run.classes[:SHOWN]) or SHOWN}{asked}).images",
    ]
    return "\n".join(lines)


def _default(home: Path, run: LoadedImageRun, form: str) -> Path:
    sampling = run.sampler.config
    return results_folder(home) / "exported" / f"{form}_{run.step:08d}_{sampling.sampler}_{sampling.steps}"
