"""`policy-accel sample`."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.commands.output import suggest
from policy_accel.commands.sample_arguments import COUNT, EDIT_STRENGTH
from policy_accel.commands.sample_files import Drawn, write_files
from policy_accel.commands.then import trusted
from policy_accel.errors import UserError
from policy_accel.files import check_new, new_path
from policy_accel.images.generation.autoguidance import load_guide
from policy_accel.images.generation.classes import class_numbers
from policy_accel.images.generation.editing import read_mask, read_pictures
from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.run import LoadedImageRun, check_guidance
from policy_accel.images.track import IMAGES, UNKNOWN
from policy_accel.progress import Progress
from policy_accel.run_files import located, results_folder, weights_file
from policy_accel.run_sampling import AskedSampling
from policy_accel.training.averages import MAIN
from policy_accel.training.devices import choose_device, use_device
from policy_accel.trust import admit

INTERRUPTED = 130


def run_sample(options: argparse.Namespace) -> int:
    """Draw images with a trained model into a new folder: grid.png, samples.json and what was asked for.

    Ctrl-C keeps the images that are complete. Returns 0, or 130 after Ctrl-C.
    """
    _check_options(options)
    if options.strength is None:
        options.strength = EDIT_STRENGTH if options.edit else 1.0
    options.run_dir, options.checkpoint = located(options.run_dir, options.checkpoint)
    options.guide = options.guide and weights_file(options.guide)
    for run_dir in filter(None, [options.run_dir, options.guide]):
        admit(run_dir, options.plugins, trust=options.trust)
    device = choose_device(options.device, "--device")
    loaded = IMAGES.load(options.run_dir, options.checkpoint, device, options.average or MAIN)
    training = loaded.config.training
    use_device(device, threads=training.threads, matmul_precision=training.matmul_precision)
    generator = _generator(options, loaded, device, training.precision_on(device))
    sampler = generator.sampler.config.sampler
    if options.resamplings != 1 and sampler != "ddpm":
        raise UserError(
            f"--resamplings {options.resamplings} adds noise again after each step, which only --sampler ddpm does, "
            f"not {sampler}; choose it, or leave out --resamplings."
        )
    turns = _turns(options, loaded)
    pictures, mask = _given(options, loaded)
    if options.per_class is not None:
        count = options.per_class * len(turns)
    else:
        count = options.count or (COUNT if pictures is None else len(pictures))
    indices = range(options.start, options.start + count)
    labels = torch.tensor([turns[index % len(turns)] for index in indices]) if turns else None
    output = options.output or _free_folder(results_folder(options.run_dir) / "generated")

    with new_path(output) as folder:
        folder.mkdir()
        began = time.perf_counter()
        # Picture by picture, and again from the first: variants, which differ by their noise.
        turn = torch.arange(count)
        sources, masks = (given if given is None else given[turn % len(given)] for given in (pictures, mask))
        starts = None if pictures is None else loaded.representation.see(pictures)[turn % len(pictures)]
        parts: list[Tensor] = []
        stopped = False
        try:
            for x0 in _draw(options, generator, indices, labels, starts, masks):
                parts.append(loaded.representation.decode(x0))
        except KeyboardInterrupt:
            if not parts:
                raise
            stopped = True
        images = torch.cat(parts)
        drawn = Drawn(
            images,
            labels=None if labels is None else labels[: len(images)],
            sources=None if sources is None else sources[: len(images)],
            indices=indices[: len(images)],
            turns=turns,
            seconds=time.perf_counter() - began,
        )
        write_files(folder, options, loaded, generator, drawn, film=options.video and not stopped)
    print(f"{len(images)} images: {output / 'grid.png'}")
    if stopped:
        left = options.start + len(images)
        print(f"policy-accel: stopped after {len(images)} of {count}; go on with --start {left}.", file=sys.stderr)
    elif not (options.edit or options.inpaint):
        against = ["--data", "PATH"] if loaded.config.task.data == UNKNOWN else []
        suggest("measure such images", ["evaluate", options.run_dir, *trusted(options), *against])
    return INTERRUPTED if stopped else 0


def _check_options(options: argparse.Namespace) -> None:
    """Raise UserError for arguments that do not go together."""
    given = options.edit or options.inpaint
    if options.strength is not None and not given:
        raise UserError(f"--strength {options.strength} has no effect without --edit or --inpaint; give a picture.")
    if options.mask is not None and not options.inpaint:
        raise UserError(f"--mask {options.mask} has no effect without --inpaint; give the picture to paint into.")
    if options.resamplings != 1 and not options.inpaint:
        raise UserError(f"--resamplings {options.resamplings} has no effect without --inpaint; leave it at 1.")
    if options.inpaint and options.mask is None:
        raise UserError(
            f"--inpaint {options.inpaint} needs --mask: a PNG that is white where to paint, or x0,y0,x1,y1."
        )
    if options.per_class is not None and given:
        raise UserError(f"--per-class {options.per_class} is for images from pure noise; give --count with a picture.")
    if options.video and given:
        raise UserError("--video films images that form from pure noise; leave it out with --edit and --inpaint.")
    if options.output is not None:
        check_new(options.output)


def _generator(options: argparse.Namespace, loaded: LoadedImageRun, device: Any, precision: str) -> ImageGenerator:
    """The run's model with the run's sampling, changed by the arguments."""
    guide = load_guide(IMAGES.load, options.run_dir, options, device)
    asked, _ = AskedSampling.of(options).of_run(loaded.config.sampling)
    sampling = asked.asked(options.guidance, options.guidance_interval)
    generator = ImageGenerator(
        loaded.model,
        shape=loaded.shape,
        sampler=dataclasses.replace(loaded.sampler, config=sampling),
        seed=options.seed,
        classes=len(loaded.classes),
        condition_dim=loaded.condition_dim,
        batch_size=options.batch_size or loaded.config.evaluation.batch_size,
        device=device,
        precision=precision,
        guide=guide,
    )
    check_guidance(dataclasses.replace(loaded.config, sampling=sampling), guide=guide is not None)
    return generator


def _given(options: argparse.Namespace, loaded: LoadedImageRun) -> tuple[Tensor | None, Tensor | None]:
    """The pictures uint8 [n, C, H, W] to start from, and what to paint anew [n, 1, H, W] of what the model sees of
    them; each None without."""
    path = options.edit or options.inpaint
    if path is None:
        return None, None
    if loaded.representation.latents and loaded.representation.autoencoder is None:
        raise UserError(
            f"{options.run_dir} is a model of latents, which {path} is not, and has no autoencoder that makes some; "
            "train it with task.autoencoder, or give a model of pixels."
        )
    given = read_pictures(path, loaded.representation.picture_shape(loaded.shape))
    return given.pixels, None if options.mask is None else read_mask(options.mask, loaded.shape[1:], given)


def _turns(options: argparse.Namespace, loaded: LoadedImageRun) -> tuple[int, ...]:
    """Classes that the images take in turn; none for a model without.

    Image i has class i modulo the number of turns, so that a later start goes on as one run would have.
    """
    classes, text = loaded.classes, options.labels
    if not classes:
        for name in ("labels", "per_class"):
            if (value := getattr(options, name)) is not None:
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} {value}: the model was trained without classes; leave {option} out.")
        return ()
    if text is None and (options.edit or options.inpaint):
        raise UserError(
            f"--labels must say of which of the model's {len(classes)} classes the results are to be; give one, as "
            f"--labels {shlex.quote(classes[0])}."
        )
    turns = class_numbers("all" if text is None else text, classes)
    return turns if options.per_class is None else tuple(dict.fromkeys(turns))


def _draw(
    options: argparse.Namespace,
    generator: ImageGenerator,
    indices: range,
    labels: Tensor | None,
    image: Tensor | None,
    masks: Tensor | None,
) -> Iterator[Tensor]:
    """x0 [<= batch_size, C, H, W] batch by batch, with progress in predictions of the network."""
    batches = math.ceil(len(indices) / generator.batch_size)
    asked = {"strength": options.strength, "resamplings": options.resamplings}
    keep = None if masks is None else ~masks
    done = 0
    predictions = batches * generator.sampler.predictions(**asked)
    with closing(Progress("sample", predictions, unit="prediction")) as progress:
        for x0 in generator.batches(
            indices, labels, image=image, keep=keep, watch=lambda *_: progress.advance(), **asked
        ):
            done += len(x0)
            progress.to(progress.done, f"{done} of {len(indices)} images")
            yield x0


def _free_folder(parent: Path) -> Path:
    """The first of parent/001, parent/002 ... that does not exist."""
    number = 1
    while (parent / f"{number:03d}").exists():
        number += 1
    return parent / f"{number:03d}"
