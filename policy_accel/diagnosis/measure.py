"""What each method would change on a set of demonstrations, measured before any training.

The noise of every choice comes from the objective that `train` would build, over the batches that it would make.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policy_accel.acceleration.assigned_noise import GroupedAssignmentConfig
from policy_accel.acceleration.diagnostics import (
    USEFUL_LOG_SNR,
    condition_leak,
    miscibility,
    noise_shrink,
    snr_coverage,
    target_variance,
    transport_distance,
)
from policy_accel.acceleration.nearest_noise import NearestNoiseConfig
from policy_accel.acceleration.noise_choices import ChosenNoiseConfig, NoiseConfig
from policy_accel.acceleration.timesteps import CurriculumConfig
from policy_accel.diagnosis.data import data_facts
from policy_accel.diagnosis.facts import INDEPENDENT, Diagnosis, LevelFacts, NoiseFacts, ScheduleFacts
from policy_accel.diffusion import Batch, DiscreteProcess, Process, Repetition, Sampler
from policy_accel.diffusion.deferred import Deferred
from policy_accel.diffusion.noise import Noise, NoiseChoice
from policy_accel.diffusion.processes import Level
from policy_accel.errors import UserError, naming
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.task import ChunkTask
from policy_accel.policy.track import ROBOT
from policy_accel.track import Report
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.randomness import DataOrder, named_generator

ROWS = 4096
FEWEST_ROWS = 64
MOST_ROWS = 16384  # the leak holds a few matrices of rows x rows
WIDEST_CONDITION = 4096
PROFILE_ROWS = 2048
LEVELS = 11
SHOWN_LOG_SNR = (-8.0, 10.0)  # beyond, nothing changes any more
DRAWN_TIMES = 65536

CHOICES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (INDEPENDENT, ("method=baseline",)),
    ("whole batch", ("method=immiscible",)),
    ("whole batch, standardised", ("method=immiscible_policy",)),
    ("nearest of 2", ("method=immiscible_knn",)),
    ("nearest of 4", ("method=immiscible_knn", "acceleration.noise.candidates=4")),
    ("nearest of 8", ("method=immiscible_knn", "acceleration.noise.candidates=8")),
    ("nearest of 2, dot", ("method=immiscible_dot",)),
    ("groups", ("method=immiscible_groups",)),
    ("C2OT", ("method=immiscible_c2ot",)),
    ("residual", ("method=immiscible_residual",)),
)
PROFILED = (INDEPENDENT, "whole batch", "nearest of 2")
CONFIGURED = "as configured"


@dataclass
class _Recorder(NoiseChoice):
    """Stands in an objective for its choice of noise and keeps what it is given and what it gives."""

    choice: NoiseChoice
    rows: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)  # x0, noise before and after the choice
    moved: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def begin(self, batch: Batch, draw: Callable[[], Tensor], generator: torch.Generator, step: int) -> Deferred[Noise]:
        """Choose and wait."""
        pools: list[Tensor] = []

        def drawn() -> Tensor:
            pools.append(draw())
            return pools[-1]

        started = time.perf_counter()
        chosen = self.choice.begin(batch, drawn, generator, step).result()
        chosen.noise.flatten()[0].item()  # waits for the device
        self.seconds.append(time.perf_counter() - started)
        self.rows.append((batch.x0, pools[0] if pools else draw(), chosen.noise))
        permutation = chosen.permutation
        if permutation is not None:
            self.moved.append(permutation != torch.arange(len(permutation), device=permutation.device))
        return Deferred.of(chosen)


@dataclass(frozen=True)
class _Drawn:
    """Chunks and noise [N, horizon, A], observations [N, n_obs_steps, O]."""

    x0: Tensor
    before: Tensor
    noise: Tensor
    condition: Tensor
    rows_moved: float | None
    milliseconds: float


def diagnose(
    dataset: str,
    overrides: Sequence[str],
    *,
    config_dir: Path | None = None,
    rows: int = ROWS,
    report: Report = lambda _: None,
) -> Diagnosis:
    """Measure the methods on `dataset` under the `overrides` of `train`.

    config_dir: as of `train`. rows: windows whose noise is looked at, rounded down to whole batches. report: told what
    comes next.

    Raises:
        UserError: what configuration and data raise; rows out of range, fewer than 64 windows, in-painting, an
            observation that is too wide, all observations equal.
    """
    if not FEWEST_ROWS <= rows <= MOST_ROWS:
        raise UserError(f"--rows {rows} must lie between {FEWEST_ROWS} and {MOST_ROWS}.")
    given = next((o for o in overrides if o.startswith("task.data=")), None)
    if given is not None:
        raise UserError(f"{given} names the data a second time; leave it out, or diagnose that file.")
    base = [*overrides, f"task.data={dataset}"]
    config = ROBOT.config(base, config_dir)
    if config.policy.conditioning != "global":
        raise UserError(
            f"policy.conditioning={config.policy.conditioning} gives the denoiser no condition that noise could tell; "
            "diagnose with policy.conditioning=global."
        )
    if config.task.images:
        raise UserError(
            f"task.images={config.task.images} are pictures, and what is measured here are numbers; diagnose with "
            "task.images=[]."
        )
    if config.diffusion.family == "mip":
        raise UserError(
            "diffusion.family=mip has no noise at its first step, and what is measured here is noise; diagnose with "
            "method=baseline."
        )
    device = choose_device(config.training.device)
    use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
    plain = tuple(o for o in base if not o.startswith(("method=", "acceleration.noise.", "acceleration/noise=")))
    report("data")
    task = ROBOT.build(_with_noise(config, NoiseConfig()))
    task.to(device)
    if task.samples < FEWEST_ROWS:
        raise UserError(
            f"{dataset} gives {task.samples} training windows, and a measurement needs {FEWEST_ROWS} or more; record "
            "more demonstrations, or lower task.val_ratio."
        )
    wide = task.policy.observation_dim * config.policy.n_obs_steps
    if wide > WIDEST_CONDITION:
        raise UserError(
            f"task.observation holds {wide} numbers a window, and diagnose compares up to {WIDEST_CONDITION}; leave "
            "images out of task.observation."
        )
    facts = data_facts(task, config)
    measured: list[NoiseFacts] = []
    refused: dict[str, str] = {}
    kept: dict[str, _Drawn] = {}
    choices = list(_choices(config, overrides, plain, config_dir, task.samples))
    for number, (name, own, noise) in enumerate(choices, start=1):
        report(f"noise {number} of {len(choices)}: {name}")
        try:
            drawn = _draw(ROBOT.build(_with_noise(config, noise)), config, rows, device)
        except UserError as error:
            refused[name] = str(error)
            continue
        measured.append(_noise_facts(name, own, drawn, noise, config.seed))
        if name in PROFILED:
            kept[name] = drawn
    report("noise levels")
    return Diagnosis(
        dataset,
        plain,
        len(kept[INDEPENDENT].x0),
        _batch_size(config, task),
        config.seed,
        facts,
        tuple(measured),
        refused,
        _level_facts(task, config, kept),
        _schedule_facts(Sampler(task.objective, config.sampling), config),
    )


def _with_noise(config: RobotConfig, noise: NoiseConfig) -> RobotConfig:
    """`config` with this choice of noise, in force from the first update on."""
    if isinstance(noise, ChosenNoiseConfig):
        noise = replace(noise, start_step=0, start_score=None)
    return replace(config, acceleration=replace(config.acceleration, noise=noise))


def _choices(
    config: RobotConfig, overrides: Sequence[str], plain: Sequence[str], config_dir: Path | None, windows: int
) -> Iterator[tuple[str, tuple[str, ...], NoiseConfig]]:
    """Every choice with its overrides and settings; the configured one too where it is none of them."""
    known = []
    for name, own in CHOICES:
        noise = ROBOT.config([*plain, *own], config_dir).acceleration.noise
        if isinstance(noise, GroupedAssignmentConfig) and noise.groups > windows // 4:
            noise = replace(noise, groups=windows // 4)
            own = (*own, f"acceleration.noise.groups={noise.groups}")
        known.append(noise)
        yield name, own, noise
    configured = config.acceleration.noise
    if configured != NoiseConfig() and configured not in known:
        yield CONFIGURED, tuple(o for o in overrides if o not in plain), configured


def _batch_size(config: RobotConfig, task: ChunkTask) -> int:
    return min(config.training.batch_size, task.samples)


def _draw(task: ChunkTask, config: RobotConfig, rows: int, device: torch.device) -> _Drawn:
    """The first batches of a run with their noise; chunks with padding that does not count are left out."""
    task.to(device)
    size = _batch_size(config, task)
    order = DataOrder(task.samples, size, config.seed, device, groups=task.groups, run=task.group_run)
    recorder = _Recorder(task.objective.noise)
    objective = replace(task.objective, noise=recorder, repetition=Repetition())
    times, noises = (named_generator(config.seed, "diagnosis", name, device=device) for name in ("time", "noise"))
    conditions, whole = [], []
    for step in range(max(1, min(rows, task.samples) // size)):
        batch = task.batch(order.batch(step))
        objective.draw(batch, times, noises)
        assert isinstance(batch.condition, Tensor)
        conditions.append(batch.condition)
        counted = torch.ones_like(batch.x0[:, :, :1], dtype=torch.bool) if batch.counted is None else batch.counted
        whole.append(counted.flatten(1).all(1))
    use = torch.cat(whole)
    if int(use.sum()) < FEWEST_ROWS:
        raise UserError(f"{int(use.sum())} of {len(use)} windows are without padding; set task.mask_padding=false.")
    x0, before, noise = (torch.cat(parts)[use] for parts in zip(*recorder.rows, strict=True))
    return _Drawn(
        x0,
        before,
        noise,
        torch.cat(conditions)[use],
        float(torch.cat(recorder.moved).double().mean()) if recorder.moved else None,
        1000.0 * float(np.median(recorder.seconds)),
    )


def _noise_facts(name: str, overrides: tuple[str, ...], drawn: _Drawn, noise: NoiseConfig, seed: int) -> NoiseFacts:
    shrink = noise_shrink(drawn.noise)
    with naming("task.observation"):
        leak = condition_leak(drawn.condition, drawn.noise, seed, rows=len(drawn.noise))
    return NoiseFacts(
        name,
        overrides,
        transport_distance(drawn.x0, drawn.before),
        transport_distance(drawn.x0, drawn.noise),
        shrink.mean_square,
        shrink.divergence,
        drawn.rows_moved,
        leak,
        drawn.milliseconds,
        noise.candidates if isinstance(noise, NearestNoiseConfig) else None,
    )


def _level_facts(task: ChunkTask, config: RobotConfig, kept: dict[str, _Drawn]) -> LevelFacts:
    levels = _levels(task.objective.process, config.seed)
    rows = min(PROFILE_ROWS, *(len(drawn.x0) for drawn in kept.values()))
    plain = kept[INDEPENDENT]
    targets = dict.fromkeys((config.diffusion.target, "epsilon", "sample", "v"))
    return LevelFacts(
        rows,
        tuple(2.0 * level.half_log_snr for level in levels),
        {
            name: tuple(miscibility(drawn.x0[:rows], drawn.noise[:rows], levels).tolist())
            for name, drawn in kept.items()
        },
        {name: tuple(target_variance(plain.x0[:rows], plain.noise[:rows], levels, name).tolist()) for name in targets},
    )


def _levels(process: Process, seed: int) -> list[Level]:
    """Levels evenly spread in log-SNR over what uniform times (or the process' own) visit, cleanest first."""
    times = _own_times(process, seed) if process.timesteps is None else torch.arange(process.timesteps)
    log_snr = process.log_snr_at(times).cpu()
    low, high = (float(end.clamp(*SHOWN_LOG_SNR)) for end in (log_snr.min(), log_snr.max()))
    wanted = torch.linspace(high, low, LEVELS, dtype=torch.float64)
    nearest = (log_snr - wanted.unsqueeze(1)).abs().argmin(1)
    return [process.level(time) for time in dict.fromkeys(times[nearest].tolist())]


def _own_times(process: Process, seed: int) -> Tensor:
    return process.times().draw((DRAWN_TIMES,), named_generator(seed, "diagnosis", "times"), 0.0)


def _schedule_facts(sampler: Sampler, config: RobotConfig) -> ScheduleFacts:
    process, grid = sampler.objective.process, sampler.grid
    if isinstance(process, DiscreteProcess):
        timesteps = config.acceleration.timesteps
        curriculum = timesteps if isinstance(timesteps, CurriculumConfig) else CurriculumConfig()
        bump = curriculum.over(process).probabilities(1.0)
        coverage = {
            "uniform": snr_coverage(process.log_snr),
            "curriculum, complete": snr_coverage(process.log_snr, bump),
        }
    else:
        coverage = {"its own": snr_coverage(process.log_snr_at(_own_times(process, config.seed)))}
    start = process.level(grid.timesteps[0])
    return ScheduleFacts(
        config.diffusion.family,
        config.diffusion.target,
        config.sampling.sampler,
        config.sampling.spacing if config.sampling.times is None else None,
        sampler.network_evaluations(),
        float(grid.timesteps[0]),
        start.alpha / start.sigma,
        USEFUL_LOG_SNR,
        coverage,
    )
