"""`policy-accel data inspect | fetch`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from policy_accel.data import Inspection, fetch, inspect
from policy_accel.data.formats.recognise import recognised_format
from policy_accel.data.images import image_form, image_path
from policy_accel.data.tree import KNOWN_FORMS
from policy_accel.errors import UserError
from policy_accel.images.inspect import inspect_images
from policy_accel.progress import Progress


def run_inspect(options: argparse.Namespace) -> int:
    """Print what demonstrations or an image set (at a resolution) hold; status 2 when something is wrong with it."""
    inspection = _inspect(options.path, options.resolution, options.layout)
    print(inspection.text)
    return 2 if inspection.problems else 0


def _inspect(path: str, resolution: int | None, layout: Path | None) -> Inspection:
    place = image_path(path)
    try:
        inspection = inspect(place, layout)
    except UserError as error:
        if layout is not None or recognised_format(place) is not None:
            raise
        if image_form(place) is None:
            raise UserError(f"{str(error).rstrip('.')}; nor is it an image set, of which {KNOWN_FORMS}") from error
        return inspect_images(place, resolution=resolution)
    if resolution is not None:
        raise UserError(
            f"{place}: holds demonstrations, for which --resolution={resolution} means nothing; leave it out."
        )
    return inspection


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
    task = f"task={options.name} " if fetched.images else ""
    print(f"To train on it: policy-accel train {task}task.data={fetched.path}", file=sys.stderr)
    return 0
