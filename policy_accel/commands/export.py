"""`policy-accel export`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

from policy_accel.commands.then import after_exporting
from policy_accel.errors import UserError
from policy_accel.foreign.kinds import is_foreign
from policy_accel.policy.run import LoadedRun
from policy_accel.policy.track import ROBOT
from policy_accel.robot.exporting.about import SUFFIXES
from policy_accel.robot.exporting.export import companions, export_policy
from policy_accel.run_files import located
from policy_accel.run_sampling import AskedSampling
from policy_accel.track import track_of_run
from policy_accel.training.averages import MAIN
from policy_accel.trust import admit


def run_export(options: argparse.Namespace) -> int:
    """Write a policy to a file that runs without policy_accel, or an image model to a folder of diffusers."""
    home, checkpoint = located(options.run_dir, options.checkpoint)
    admit(home, options.plugins, trust=options.trust, environment=False)
    if track_of_run(home).name == "images":
        from policy_accel.commands.export_images import export_images

        return export_images(home, checkpoint, options)
    if options.to == "diffusers":
        raise UserError(f"--to diffusers is for image models, and {home} is a policy; give {', '.join(SUFFIXES)}.")
    if home.is_file() and home.suffix != SUFFIXES["safetensors"] and not is_foreign(home):
        raise UserError(f"{home} is exported already, with its sampler inside; export the run that it was made of.")
    began = time.perf_counter()
    run = ROBOT.load(home, checkpoint, average=options.average or MAIN, asked=AskedSampling.of(options))
    if run.sampling_note is not None:
        print(run.sampling_note, file=sys.stderr)
    path = options.output or default_path(home, run, options.to, options.weights)
    about = export_policy(
        run, path, options.to, weights=options.weights, say=partial(print, file=sys.stderr, flush=True)
    )
    if options.json:
        print(json.dumps({"file": str(path), **about}))
        return 0
    inputs = ", ".join(f"{name} {entry['shape']}" for name, entry in about["inputs"].items())
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, step {run.step}, {about['sampler']} with "
        f"{about['network_evaluations']} evaluations, weights {options.weights}, {time.perf_counter() - began:.0f} s."
    )
    if inputs:
        print(f"It takes {inputs}, and gives actions {about['outputs']['actions']['shape']} in the data's units.")
        facts, loader = companions(path, options.to)
        print(f"{facts.name} says more of that; {loader.name} drives a robot.")
    after_exporting(path, options)
    return 0


def default_path(home: Path, run: LoadedRun, form: str, weights: str) -> Path:
    """Where a run's export goes that nobody chose a place for."""
    folder = home.parent if home.is_file() else home / "exported"
    kept = "" if weights == "fp32" else f"_{weights}"
    name = f"policy_{run.step:08d}_{run.sampler.config.sampler}_{run.sampler.network_evaluations()}{kept}"
    return folder / f"{name.replace('+', 'p')}{SUFFIXES[form]}"
