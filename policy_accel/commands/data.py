"""`policy-accel data inspect | fetch | generate`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from policy_accel.errors import UserError


def run_inspect(path: Path) -> int:
    """Print what a replay buffer holds; status 2 when something is wrong with it."""
    from policy_accel.data import inspect

    inspection = inspect(path)
    print(inspection.text)
    return 2 if inspection.problems else 0


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
    print(f"To train on it: policy-accel train task.data={fetched.path}", file=sys.stderr)
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
