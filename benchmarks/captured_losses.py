"""Losses of captured updates against those of the same updates run eagerly, for every method of both tracks.

    python benchmarks/captured_losses.py

Each method trains a net of a few hundred weights for 200 updates twice: eagerly on the CPU, and captured in CUDA graphs
on the simulated device of the tests, which draws the same random numbers. What is said is the largest relative
difference of two losses of one update. On a GPU `benchmarks/gpu/run.sh check` does the same with its own arithmetic.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from results import RESULTS, write_result

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.captured import CPU, losses_of
from support.methods import METHODS, NOT_FOR_IMAGES, images, robot
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT

TOLERANCE = 1e-5


def cases() -> dict[str, tuple[Any, list[str]]]:
    """Track and overrides by name."""
    found: dict[str, tuple[Any, list[str]]] = {f"robot/{method}": (ROBOT, robot(method)) for method in METHODS}
    return found | {f"images/{method}": (IMAGES, images(method)) for method in METHODS if method not in NOT_FOR_IMAGES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--only", default="", help="methods whose name holds this, for example robot/kl")
    parser.add_argument("--output", type=Path, default=RESULTS / "captured_losses_simulated.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for name, (track, overrides) in cases().items():
        if options.only not in name:
            continue
        began = time.monotonic()
        lengths = [f"training.steps={options.updates}", f"training.logging.every={options.updates}"]
        config = track.config([*overrides, *lengths])
        eager = losses_of(track, config, CPU, captured=False)
        with SimulatedCuda():
            captured = losses_of(track, config, CUDA, captured=True)
        found[name] = float(((captured - eager).abs() / eager.abs()).max())
        print(f"{name}: {found[name]:.2g} ({time.monotonic() - began:.1f} s)", flush=True)
    worst = max(found, key=lambda name: found[name])
    figures = {"updates": options.updates, "largest": {"name": worst, "difference": found[worst]}, "differences": found}
    write_result(options.output, figures)
    return 0 if found[worst] <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
