"""`policy-accel data inspect | fetch`."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.contact_sheet import draw_sheet
from policy_accel.commands.output import suggest
from policy_accel.commands.ready import ready_for_images, ready_to_train, use_of_model
from policy_accel.data import Inspection, fetch
from policy_accel.data.formats.recognise import recognised_format
from policy_accel.data.images import KNOWN_FORMS, image_form, image_path, read_images
from policy_accel.data.inspect import inspect_reader
from policy_accel.data.readers import open_reader
from policy_accel.errors import UserError
from policy_accel.images.inspect import inspect_images
from policy_accel.progress import Progress


def run_inspect(options: argparse.Namespace) -> int:
    """Print what demonstrations or an image set (at a resolution) hold and how to train on it, and draw some episodes
    where asked; status 2 when something is wrong with it."""
    place = image_path(options.path)
    try:
        reader = open_reader(place, options.layout)
    except UserError as error:
        if options.layout is not None or recognised_format(place) is not None:
            raise
        if use := use_of_model(place):
            raise UserError(f"{options.path}: is {use}.") from error
        if image_form(place) is None:
            raise UserError(f"{str(error).rstrip('.')}; nor is it an image set, of which {KNOWN_FORMS}") from error
        return _inspect_images(options, place)
    with reader:
        if options.resolution is not None:
            raise UserError(
                f"{place}: holds demonstrations, for which --resolution={options.resolution} means nothing; leave it "
                "out."
            )
        found = inspect_reader(reader)
        _show(found, ready_to_train(options.path, reader, found, options.layout))
        if options.sheet is not None:
            draw_sheet(reader, options.sheet)
            print(f"Some episodes: {options.sheet}")
    return 2 if found.problems else 0


def _inspect_images(options: argparse.Namespace, place: Path) -> int:
    if options.sheet is not None:
        raise UserError(f"{place}: is an image set, and --sheet draws demonstrations; leave it out.")
    found = inspect_images(place, resolution=options.resolution)
    try:
        images = read_images(place, "train", resolution=options.resolution, skip_bad=True)
    except UserError:  # which is among the problems
        images = None
    _show(found, "" if images is None else ready_for_images(options.path, images, options.resolution))
    return 2 if found.problems else 0


def _show(found: Inspection, command: str) -> None:
    print(found.text)
    if command:
        print(f"To train on it:\n  {command}")


def run_fetch(options: argparse.Namespace) -> int:
    """Download a public set."""
    bars: list[Progress] = []

    def show(done: int, total: int | None) -> None:
        if total and not bars:
            bars.append(Progress("fetch", total, done, unit="byte"))
        if bars:
            bars[0].to(done)

    try:
        fetched = fetch(options.name, options.to, progress=show)
    finally:
        for bar in bars:
            bar.close()
    print(fetched.message)
    task = [f"task={options.name}"] if fetched.images else []
    suggest("train on it", ["train", *task, f"task.data={fetched.path}"])
    return 0
