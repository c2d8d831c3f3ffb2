"""`policy-accel benchmark`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from policy_accel.benchmark.latency import benchmark_latency
from policy_accel.benchmark.report import latency_table, rollouts_table, sample_table, step_table
from policy_accel.benchmark.rollouts import benchmark_rollouts
from policy_accel.benchmark.sample import benchmark_sample
from policy_accel.benchmark.step import benchmark_step
from policy_accel.commands.output import suggest, words_of
from policy_accel.commands.then import trusted
from policy_accel.configuration import source_of
from policy_accel.errors import UserError
from policy_accel.files import check_file, replace_json
from policy_accel.policy.controller import Policy
from policy_accel.run_files import located
from policy_accel.track import track, track_of_run
from policy_accel.training.config import RunConfig
from policy_accel.training.devices import choose_device
from policy_accel.trust import admit


def run_step(options: argparse.Namespace) -> int:
    """Count and measure an update of a run that `train` would make."""
    _check_output(options)
    chosen = track(source_of(options.overrides, options.config_dir).track)
    config = chosen.config(options.overrides, options.config_dir)
    result = benchmark_step(
        chosen, config, rounds=options.rounds, seconds=options.seconds, updates=options.updates, report=_say
    )
    print(step_table(result))
    _keep(options, {**_run(config, options.overrides), **result})
    suggest("train so", words_of(argparse.Namespace(**{**vars(options), "command": "train"})))
    return 0


def run_sample(options: argparse.Namespace) -> int:
    """Time calls of a sampler."""
    _check_output(options)
    first, *rest = options.overrides
    run_dir = None if "=" in first else Path(first)
    if run_dir is None:
        chosen = track(source_of(options.overrides, options.config_dir).track)
        config = chosen.config(options.overrides, options.config_dir)
    elif rest:
        raise UserError(f"{' '.join(rest)}: a run has its settings already; give the run alone, or settings alone.")
    else:
        admit(run_dir, options.plugins, trust=options.trust, environment=False)
        chosen = track_of_run(run_dir)
        config = chosen.read(run_dir)
    _say(f"Timing calls of two sizes, each for up to {options.seconds:g} s.")
    result = benchmark_sample(
        chosen, config, run_dir, device_name=options.device, calls=options.calls, seconds=options.seconds
    )
    print(sample_table(result))
    command = shlex.join(["policy-accel", "benchmark", "sample", *options.overrides])
    _keep(options, {"command": command, **_place(choose_device(options.device)), **result})
    return 0


def run_latency(options: argparse.Namespace) -> int:
    """Time single predictions of a policy."""
    _check_output(options)
    home, _ = located(options.run_dir)
    admit(home, options.plugins, trust=options.trust, environment=False)
    began = time.perf_counter()
    policy = Policy.load(
        options.run_dir,
        device=options.device,
        sampler=options.sampler,
        sampling_steps=options.sampling_steps,
        precision=options.precision,
    )
    if not options.no_warm_up:
        policy.warm_up()
    ready = time.perf_counter() - began
    _say(f"Timing predictions for up to {options.seconds:g} s.")
    measured = benchmark_latency(policy, calls=options.calls, seconds=options.seconds)
    result = {"run": str(options.run_dir), "warmed_up": not options.no_warm_up, "ready_seconds": ready, **measured}
    if options.json is True:
        print(json.dumps(result))
        return 0
    print(latency_table(result))
    words = ["policy-accel", "benchmark", "latency", str(options.run_dir)]
    if options.sampling_steps is not None:
        words += ["--sampling-steps", str(options.sampling_steps)]
    _keep(options, {"command": shlex.join(words), **_place(policy.device), **result})
    steps = [] if options.sampling_steps is None else ["--sampling-steps", options.sampling_steps]
    suggest("score it so", ["evaluate", options.run_dir, *steps, *trusted(options)])
    return 0


def run_rollouts(options: argparse.Namespace) -> int:
    """Play episodes many at once and one after the other."""
    _check_output(options)
    admit(options.run_dir, options.plugins, trust=options.trust)
    result = benchmark_rollouts(
        options.run_dir,
        episodes=options.episodes,
        sequential=options.sequential,
        workers=options.workers,
        device_name=options.device,
        report=_say,
    )
    print(rollouts_table(result))
    words = ["--episodes", options.episodes, "--sequential", options.sequential, "--workers", options.workers]
    command = shlex.join(["policy-accel", "benchmark", "rollouts", *map(str, [options.run_dir, *words])])
    _keep(options, {"command": command, **_place(choose_device(options.device)), **result})
    workers = ["--workers", options.workers] if options.workers else []
    suggest("score it so", ["evaluate", options.run_dir, *workers, *trusted(options)])
    return 0


def _run(config: RunConfig, overrides: list[str]) -> dict[str, Any]:
    """Of what the figures are."""
    training: Any = config.training
    device = choose_device(training.device)
    return {
        "command": shlex.join(["policy-accel", "benchmark", "step", *overrides]),
        "batch_size": training.batch_size,
        "precision": training.precision_on(device),
        "compile": training.compile,
        **_place(device),
    }


def _place(device: torch.device) -> dict[str, Any]:
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _check_output(options: argparse.Namespace) -> None:
    if isinstance(options.json, Path):
        check_file(options.json)


def _keep(options: argparse.Namespace, result: dict[str, Any]) -> None:
    path: Path | None = options.json
    if path is not None:
        replace_json(path, result)
        _say(f"All numbers: {path}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
