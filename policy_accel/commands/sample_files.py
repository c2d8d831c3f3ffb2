"""What `policy-accel sample` writes of the images that it has drawn."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from policy_accel.images.generation.class_grids import MOST_COLUMNS, MOST_ROWS, named_rows, write_class_grids
from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.generation.pictures import (
    forming_video,
    grid,
    shown_scale,
    write_folder,
    write_image_npz,
    write_png,
)
from policy_accel.images.run import LoadedImageRun
from policy_accel.training.averages import MAIN

GRID_IMAGES = 100


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    images: uint8 [n, C, H, W], or latents float32.
    labels: [n]; None without classes.
    sources: uint8 [n, C, H, W] that they were made from; None without.
    indices: of the images.
    turns: the classes that they take in turn.
    seconds: that it took.
    """

    images: Tensor
    labels: Tensor | None
    sources: Tensor | None
    indices: range
    turns: tuple[int, ...]
    seconds: float


def write_files(
    folder: Path,
    options: argparse.Namespace,
    loaded: LoadedImageRun,
    generator: ImageGenerator,
    drawn: Drawn,
    *,
    film: bool,
) -> None:
    """Write grid.png, samples.json and what `options` ask for into `folder`."""
    images, turns = drawn.images, drawn.turns
    layout: dict[str, Any] = {
        "columns": len(turns) if 1 < len(turns) <= 20 else None,
        "scale": shown_scale(images.shape[-1]),
    }
    picture = _by_class(folder, loaded, drawn) if options.per_class else None
    write_png(folder / "grid.png", grid(images[:GRID_IMAGES], **layout) if picture is None else picture)
    if drawn.sources is not None:
        write_png(folder / "given.png", grid(drawn.sources[:GRID_IMAGES], **layout))
    if options.png:
        write_folder(folder / "images", images, first=options.start)
    if options.npz:
        write_image_npz(folder / "samples.npz", images, drawn.labels, adm_names=options.npz == "adm")
    if film:
        forming_video(
            folder / "forming.mp4",
            generator,
            indices=drawn.indices[:GRID_IMAGES],
            labels=None if drawn.labels is None else drawn.labels[:GRID_IMAGES],
            decode=loaded.representation.decode,
            **layout,
        )
    (folder / "samples.json").write_text(json.dumps(_record(options, loaded, generator, drawn), indent=2) + "\n")


def _by_class(folder: Path, loaded: LoadedImageRun, drawn: Drawn) -> np.ndarray | None:
    """Write a grid of each class that has images, and return one with a row for each, of the first where they are many;
    None where a class has no image yet."""
    assert drawn.labels is not None
    of_class = {turn: drawn.images[drawn.labels == turn] for turn in drawn.turns}
    drawn_of = {turn: images for turn, images in of_class.items() if len(images)}
    write_class_grids(folder / "classes", {turn: loaded.classes[turn] for turn in drawn_of}, drawn_of)
    if len(drawn_of) < len(of_class):
        return None
    shown = dict(list(of_class.items())[:MOST_ROWS])
    columns = min(MOST_COLUMNS, *(len(images) for images in shown.values()))
    return named_rows([images[:columns] for images in shown.values()], [loaded.classes[turn] for turn in shown])


def _record(
    options: argparse.Namespace, loaded: LoadedImageRun, generator: ImageGenerator, drawn: Drawn
) -> dict[str, Any]:
    """How the images were made."""
    sampler, asked = generator.sampler, (options.strength, options.resamplings)
    guide = generator.guide and {**generator.guide.told, "evaluations": sampler.worse_evaluations(*asked)}
    return {
        "run": str(options.run_dir),
        "step": loaded.step,
        "average": options.average or MAIN,
        "count": len(drawn.images),
        "seed": options.seed,
        "start": options.start,
        "labels_in_turn": list(drawn.turns),
        "class_names": [loaded.classes[turn] for turn in drawn.turns],
        **sampler.config.record(),
        "network_evaluations": sampler.network_evaluations(*asked),
        "guide": guide,
        "edit": None if options.edit is None else str(options.edit),
        "inpaint": None if options.inpaint is None else str(options.inpaint),
        "mask": options.mask,
        "strength": options.strength if options.edit or options.inpaint else None,
        "resamplings": options.resamplings,
        "device": str(generator.device),
        "precision": generator.precision,
        "batch_size": generator.batch_size,
        "seconds": round(drawn.seconds, 3),
    }
