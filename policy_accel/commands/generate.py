"""`policy-accel data generate`: demonstrations of scripted experts, and procedural images."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path

from policy_accel.commands.arguments import EXPERTS, WITH_CAMERAS
from policy_accel.commands.output import suggest
from policy_accel.data import Episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import write_episodes
from policy_accel.errors import UserError
from policy_accel.files import check_new
from policy_accel.images.shapes import make_shapes, write_images_npz
from policy_accel.progress import Progress
from policy_accel.training.devices import available_cores
from policy_accel.written_formats import SUFFIXES

TRAINING_TASKS = {"pusht": "pusht_keypoints"}


def run_generate(options: argparse.Namespace) -> int:
    """Record demonstrations of the scripted expert of a task, in any format that can be written."""
    path = options.output or Path(f"{options.task}_{options.episodes}_{options.seed}{SUFFIXES[options.to]}")
    check_new(path)
    generate = _expert(options)
    with closing(Progress("generate", max(1, options.episodes), unit="episode")) as progress:
        episodes = generate(
            options.episodes,
            options.seed,
            workers=available_cores() if options.workers < 0 else options.workers,
            progress=lambda done, _: progress.to(done),
        )
    write_episodes(path, MemoryReader(episodes), options.to)
    print(f"{len(episodes)} episodes, {episodes.steps} steps: {path}")
    training_task = TRAINING_TASKS.get(options.task, options.task)
    suggest("train on them", ["train", f"task={training_task}", f"task.data={path}"])
    return 0


def _expert(options: argparse.Namespace) -> Callable[..., Episodes]:
    module, arguments = EXPERTS[options.task]
    if options.task in WITH_CAMERAS:
        cameras = tuple(name for name in options.cameras.split(",") if name)
        if options.image_size is not None and not cameras:
            raise UserError(
                f"--image-size={options.image_size} means nothing without cameras; name some, as --cameras agentview, "
                "or leave it out."
            )
        sizes = {} if options.image_size is None else {"image_size": options.image_size}
        arguments = {**arguments, "cameras": cameras, **sizes}
    return partial(import_module(f"policy_accel.envs.{module}").generate, **arguments)


def run_generate_shapes(options: argparse.Namespace) -> int:
    """Draw shapes to train on, and a quarter as many to test on, into an NPZ file."""
    path = options.output or Path(f"shapes_{options.images}_{options.seed}.npz")
    check_new(path)
    train = make_shapes(options.images, size=options.size, seed=options.seed)
    test = make_shapes(max(1, options.images // 4), size=options.size, seed=options.seed, stream=1)
    write_images_npz(path, train, test)
    print(f"{len(train)} training and {len(test)} test images of {options.size} x {options.size}: {path}")
    suggest("look at them", ["data", "inspect", path])
    return 0
