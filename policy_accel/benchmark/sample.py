"""How long one call of a sampler takes: a chunk of actions, or images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from policy_accel.benchmark.calls import LEAST_CALLS
from policy_accel.benchmark.rates import matmul_rate
from policy_accel.diffusion import Sampler
from policy_accel.errors import UserError
from policy_accel.evaluation.latency import LatencyMeter
from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.run import LoadedImageRun
from policy_accel.images.run import build_sampler as build_image_sampler
from policy_accel.images.task import ImageTask
from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.observations import Observations
from policy_accel.policy.planner import Planner
from policy_accel.policy.run import LoadedRun, build_sampler
from policy_accel.policy.task import ChunkTask
from policy_accel.track import Track
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.graphs import WARM_UP

BATCHES = (1, 50)


@dataclass(frozen=True)
class Sampling:
    """A sampler in use: `call(batch)` gives so many samples on the host."""

    sampler: Sampler
    call: Callable[[int], Tensor]
    precision: str = "fp32"


def benchmark_sample(
    track: Track[Any],
    config: Any,
    run_dir: Path | None = None,
    *,
    device_name: str,
    batches: Sequence[int] = BATCHES,
    calls: int,
    seconds: float,
) -> dict[str, Any]:
    """Time calls of a run's sampler, or of a fresh network with the settings `config`.

    Args:
        track: of the run.
        config: its settings.
        run_dir: of a trained run; None takes a network that is not trained, which takes as long.
        device_name: auto, cpu, cuda or cuda:N.
        batches: samples of a call, each measured.
        calls: of each batch, at most.
        seconds: for each batch, about; at least three calls are made.

    Raises:
        UserError: no calls or no time; no such device or run.
    """
    if calls < LEAST_CALLS:
        raise UserError(f"--calls {calls} must be at least {LEAST_CALLS}.")
    if not seconds > 0:
        raise UserError(f"--seconds {seconds} must be positive.")
    device = choose_device(device_name, "--device")
    use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
    loaded = _untrained(track, config, device) if run_dir is None else track.load(run_dir, device=device)
    sampling = _policy(loaded, device) if isinstance(loaded, LoadedRun) else _images(loaded, device)
    with FlopCounterMode(display=False) as counter:
        sampling.call(1)
    flops = float(counter.get_total_flops())
    rate = matmul_rate(device, sampling.precision)
    timed = [{"batch": batch, **_timed(sampling, batch, device, calls, seconds, flops, rate)} for batch in batches]
    return {
        **sampling.sampler.config.record(),
        "network_evaluations": sampling.sampler.network_evaluations(),
        "flops_of_a_sample": flops,
        "matmul_flops_per_second": rate,
        "precision": sampling.precision,
        "calls": timed,
    }


def _timed(
    sampling: Sampling, batch: int, device: torch.device, calls: int, seconds: float, flops: float, rate: float
) -> dict[str, Any]:
    if device.type == "cuda":  # what is captured runs as it is at first
        for _ in range(WARM_UP + 1):
            sampling.call(batch)
    meter = LatencyMeter(device)
    began, cpu = time.perf_counter(), time.process_time()
    while len(meter.seconds) < LEAST_CALLS or (len(meter.seconds) < calls and time.perf_counter() - began < seconds):
        with meter.call():
            sampling.call(batch)
    return {
        "timed": len(meter.seconds) - 1,
        "milliseconds": meter.milliseconds(),
        "cpu_milliseconds": 1000 * (time.process_time() - cpu) / len(meter.seconds),
        "floor_milliseconds": 1000 * batch * flops / rate,
    }


def _untrained(track: Track[Any], config: Any, device: torch.device) -> LoadedRun | LoadedImageRun:
    task = track.build(config)
    config.training.lay_out(task.model, device)
    model = task.model.eval().requires_grad_(False)
    if isinstance(task, ChunkTask):
        return LoadedRun(task.policy, config, 0, build_sampler(config))
    assert isinstance(task, ImageTask)
    shape, classes = task.description["shape"], tuple(task.description["classes"][: task.classes])
    sampler = build_image_sampler(config)
    return LoadedImageRun(model, config, 0, sampler, tuple(shape), classes, task.condition_dim, task.representation)


def _policy(run: LoadedRun, device: torch.device) -> Sampling:
    policy, planner = run.policy, Planner(run.policy, run.sampler, run.config.training)

    def call(batch: int) -> Tensor:
        steps = policy.config.n_obs_steps
        numbers = torch.zeros(batch, steps, policy.input_dim, device=device)
        observations: Observations = numbers
        if policy.images:
            pictures = {
                name: torch.zeros(batch, steps, *shape, dtype=torch.uint8, device=device)
                for name, shape in policy.images.items()
            }
            observations = {STATE: numbers, **pictures}
        noise = torch.randn(batch, *policy.noise_shape(run.sampler), device=device)
        return policy.executed(planner(observations, noise)).cpu()

    return Sampling(run.sampler, call)


def _images(run: LoadedImageRun, device: torch.device) -> Sampling:
    precision = run.config.training.precision_on(device)
    generator = ImageGenerator(
        run.model,
        shape=run.shape,
        sampler=run.sampler,
        seed=0,
        classes=len(run.classes),
        condition_dim=run.condition_dim,
        device=device,
        precision=precision,
    )

    def call(batch: int) -> Tensor:
        labels = torch.arange(batch) % len(run.classes) if run.classes else None
        return generator.draw(range(batch), labels).cpu()

    return Sampling(run.sampler, call, precision)
