"""`policy-accel data inspect | fetch | generate`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from policy_accel.errors import UserError

if TYPE_CHECKING:
    from policy_accel.data import Inspection


def run_inspect(path: Path, resolution: int | None = None) -> int:
    """Print what demonstrations or an image set (at a resolution) hold; status 2 when something is wrong with it."""
    inspection = _inspect(path, resolution)
    print(inspection.text)
    return 2 if inspection.problems else 0


def _inspect(path: Path, resolution: int | None) -> Inspection:
    from policy_accel.data import inspect
    from policy_accel.data.images import image_form, image_path, inspect_images
    from policy_accel.data.images.tree import KNOWN_FORMS

    place = image_path(path)
    try:
        inspection = inspect(place)
    except UserError as error:
        if image_form(place) is None:
            raise UserError(f"{str(error).rstrip('.')}; nor is it an image set, of which {KNOWN_FORMS}") from error
        return inspect_images(place, resolution=resolution)
    if resolution is not None:
        raise UserError(
            f"{place}: holds demonstrations, for which --resolution={resolution} means nothing; leave it out."
        )
    return inspection


def run_fetch(name: str, folder: Path) -> int:
    """Download a public set into `folder`."""
    from policy_accel.data import fetch
    from policy_accel.progress import Progress

    bars: list[Progress] = []

    def show(done: int, total: int | None) -> None:
        if total and not bars:
            bars.append(Progress("fetch", total, done, unit="byte"))
        if bars:
            bars[0].to(done)

    try:
        fetched = fetch(name, folder, progress=show)
    finally:
        for bar in bars:
            bar.close()
    print(fetched.message)
    if fetched.images:
        print(f"To train on it: policy-accel train task={name} task.data={fetched.path}", file=sys.stderr)
    else:
        print(f"To train on it: policy-accel train task.data={fetched.path}", file=sys.stderr)
    return 0


def run_generate_shapes(images: int, seed: int, size: int, output: Path | None) -> int:
    """Draw `images` shapes to train on, and a quarter as many to test on, into an NPZ file."""
    from policy_accel.data.images import make_shapes, write_images_npz

    path = output or Path(f"shapes_{images}_{seed}.npz")
    if path.exists():
        raise UserError(f"{path} exists already and is not overwritten; remove it or give another --output.")
    train = make_shapes(images, size=size, seed=seed)
    test = make_shapes(max(1, images // 4), size=size, seed=seed, stream=1)
    write_images_npz(path, train, test)
    print(f"{len(train)} training and {len(test)} test images of {size} x {size}: {path}")
    print(f"To look at them: policy-accel data inspect {path}", file=sys.stderr)
    return 0


def run_generate(task: str, episodes: int, seed: int, output: Path | None, workers: int) -> int:
    """Record demonstrations of the scripted expert of `task` in a replay buffer."""
    from policy_accel.data import Episodes, write_zarr
    from policy_accel.envs.pusht_demonstrations import generate
    from policy_accel.progress import Progress

    path = output or Path(f"{task}_{episodes}_{seed}.zarr.zip")
    if path.exists():
        raise UserError(f"{path} exists already and is not overwritten; remove it or give another --output.")
    progress = Progress("generate", episodes, unit="episode")
    try:
        recorded = generate(
            episodes,
            seed,
            workers=(os.cpu_count() or 1) if workers < 0 else workers,
            progress=lambda done, _: progress.to(done),
        )
    finally:
        progress.close()
    ends = recorded.pop("episode_ends")
    write_zarr(path, Episodes(recorded, ends, str(path)))
    print(f"{len(ends)} episodes, {ends[-1]} steps: {path}")
    print(f"To train on them: policy-accel train task.data={path}", file=sys.stderr)
    return 0
