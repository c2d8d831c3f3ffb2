"""What choosing the noise does to a policy with two modes of unequal probability: calibration and few-step sampling.

    python benchmarks/two_mode_policy.py
    python benchmarks/two_mode_policy.py --observations uniform

The toy: an observation o in R^2, N(0, I) or uniform on [-1, 1]^2 (without the rare observations whose second mode
hardly ever comes), and a chunk of 16 steps x 2 that passes on one of two sides, the mode + with probability
sigmoid(3 o_1):

    step h, tau = h / 15:   (2 tau - 1 + 0.3 o_2,  +- (1 + 0.3 tanh o_2) sin(pi tau)) + 0.05 N(0, I)

so the two modes are mirror images and their place depends on the observation while their probability depends on its
other coordinate. 32,768 chunks are drawn once for each seed. The policy is `policy_accel.models.MLP` (three layers of
256) trained by `policy_accel.training.update.Update` as a flow (`FlowProcess`: straight lines, uniform times) with
AdamW at 1e-3, a half cosine to zero, batch 256 and 2000 updates; its EMA weights are sampled by Euler's method from
N(0, I). All arms of a seed share data, initial weights, times and the samplers' noise; the batches of grouped arms are
others.

Figures of an arm: training loss (mean of the last 200 updates; not comparable between arms); error of the mode
probability, mean |sampled - true P(+ | o)| over 64 observations x 128 samples (about 0.025 of it is sampling noise);
distance, root mean square over entries, to the nearest mode; how often the less probable mode is sampled over how often
it should be, both averaged over the observations; and what the noise of training tells about o
(`policy_accel.acceleration.diagnostics.condition_leak`, on 4096 rows).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from results import RESULTS, write_result
from torch import Tensor

from policy_accel.acceleration.assigned_noise import (
    AssignmentConfig,
    ConditionalAssignmentConfig,
    GroupedAssignmentConfig,
)
from policy_accel.acceleration.build import build_objective
from policy_accel.acceleration.conditional import kmeans_groups
from policy_accel.acceleration.config import AccelerationConfig
from policy_accel.acceleration.diagnostics import condition_leak
from policy_accel.acceleration.nearest_noise import NearestNoiseConfig
from policy_accel.acceleration.noise_choices import NoiseConfig
from policy_accel.diffusion import Batch, Objective, Sampler
from policy_accel.diffusion.config import DiffusionConfig, SamplingConfig
from policy_accel.models import MLP, Denoiser, MLPConfig
from policy_accel.training.devices import choose_device
from policy_accel.training.ema import EMAConfig
from policy_accel.training.optimizer import OptimizerConfig
from policy_accel.training.randomness import DataOrder, Generators, named_generator
from policy_accel.training.task import NOTHING, Draws, Task
from policy_accel.training.update import Update

HORIZON, ACTION_DIM, NOISE = 16, 2, 0.05
SAMPLES, BATCH_SIZE = 32_768, 256
LOSS_UPDATES = 200
LEAK_ROWS = 4096
OBSERVATIONS, DRAWS = 64, 128
EVALUATIONS = (1, 2, 10, 50)
GRID = {"normal": (-1.0, 0.0, 1.0), "uniform": (-0.5, 0.0, 0.5)}  # cuts of each coordinate of the observation


def draw_observations(kind: str, count: int, generator: torch.Generator) -> Tensor:
    """Observations [count, 2]."""
    if kind == "normal":
        return torch.randn(count, 2, generator=generator)
    return 2.0 * torch.rand(count, 2, generator=generator) - 1.0


def plus_probability(observations: Tensor) -> Tensor:
    """P(+ | o) [N] of observations [N, 2]."""
    return (3.0 * observations[:, 0]).sigmoid()


def mode(observations: Tensor, sign: Tensor | float) -> Tensor:
    """The chunk without noise, [N, 16, 2], of observations [N, 2] on the side `sign` (+1 or -1)."""
    tau = torch.linspace(0.0, 1.0, HORIZON)
    along = 2.0 * tau - 1.0 + 0.3 * observations[:, 1:]
    across = (1.0 + 0.3 * observations[:, 1:].tanh()) * (torch.pi * tau).sin()
    side = torch.as_tensor(sign).expand(len(observations)).unsqueeze(1)
    return torch.stack([along, side * across], dim=-1)


@dataclass(frozen=True)
class Arm:
    """A choice of noise; `groups` labels the observations [N, 2] of the data set, drawn from a distribution."""

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    groups: Callable[[Tensor, str], Tensor] | None = None
    group_run: int = 1


def grid_groups(observations: Tensor, kind: str) -> Tensor:
    """Cells of a 4 x 4 grid over the observation, [N] int64."""
    cell = torch.bucketize(observations, torch.tensor(GRID[kind]))
    return 4 * cell[:, 0] + cell[:, 1]


def kmeans(count: int) -> Callable[[Tensor, str], Tensor]:
    """Labels by `kmeans_groups` with `count` clusters."""
    return lambda observations, kind: kmeans_groups(observations, count, seed=0)


GROUPED = GroupedAssignmentConfig()
ARMS = {
    "independent": Arm(),
    "assignment, whole batch": Arm(AssignmentConfig(metric="l2")),
    "nearest of 2": Arm(NearestNoiseConfig(candidates=2)),
    "nearest of 4": Arm(NearestNoiseConfig(candidates=4)),
    "nearest of 8": Arm(NearestNoiseConfig(candidates=8)),
    "nearest of 2, dot": Arm(NearestNoiseConfig(candidates=2, metric="dot")),
    "C2OT, ratio 0.05": Arm(ConditionalAssignmentConfig(condition_ratio=0.05)),
    "assignment in a 4x4 grid": Arm(GROUPED, grid_groups),
    "assignment in 16 k-means groups": Arm(GROUPED, kmeans(16)),
    "assignment in 256 k-means groups, runs of 16": Arm(GROUPED, kmeans(256), group_run=16),
}


class ToyTask(Task):
    """The toy as a task of the training core."""

    fingerprint = "two modes"

    def __init__(self, arm: Arm, kind: str, seed: int) -> None:
        generator = named_generator(seed, "data")
        self.samples = SAMPLES
        self.observations = draw_observations(kind, SAMPLES, generator)
        plus = torch.rand(SAMPLES, generator=generator) < plus_probability(self.observations)
        clean = mode(self.observations, torch.where(plus, 1.0, -1.0))
        self.chunks = clean + NOISE * torch.randn(clean.shape, generator=generator)
        self.groups = None if arm.groups is None else arm.groups(self.observations, kind)
        self.group_run = arm.group_run
        self.objective: Objective = build_objective(
            DiffusionConfig(family="flow", target="flow"), AccelerationConfig(noise=arm.noise)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = MLPConfig(hidden_dims=[256, 256, 256])
            self.model: Denoiser = MLP(config, channels=ACTION_DIM, horizon=HORIZON, condition_shape=(1, 2))

    def to(self, device: torch.device) -> None:
        self.model.to(device)
        self.observations, self.chunks = self.observations.to(device), self.chunks.to(device)
        self.groups = None if self.groups is None else self.groups.to(device)

    def batch(self, indices: Tensor, drawn: Draws = NOTHING) -> Batch:
        groups = None if self.groups is None else self.groups[indices]
        return Batch(self.chunks[indices], condition=self.observations[indices].unsqueeze(1), groups=groups)

    def validation_batch(self, indices: Tensor) -> Batch:
        return self.batch(indices)


def data_order(task: ToyTask, seed: int, device: torch.device) -> DataOrder:
    return DataOrder(SAMPLES, BATCH_SIZE, seed, device, groups=task.groups, run=task.group_run)


def run_arm(arm: Arm, kind: str, seed: int, steps: int, device: torch.device) -> dict[str, Any]:
    """Train one policy and measure it."""
    started = time.perf_counter()
    task = ToyTask(arm, kind, seed)
    task.to(device)
    optimizer = OptimizerConfig(lr=1e-3, betas=[0.9, 0.999], weight_decay=0.0, warmup_steps=0)
    order, generators = data_order(task, seed, device), Generators(seed, device)
    update = Update(task, order, optimizer, EMAConfig(), steps=steps, generators=generators)
    losses = torch.stack([update(step)[0] for step in range(steps)])
    figures = {"train_loss": float(losses[-LOSS_UPDATES:].mean())}
    return (
        figures
        | sampled(update.ema.model, task.objective, kind, device)
        | leak(task, seed, device)
        | {"seconds": time.perf_counter() - started}
    )


@torch.no_grad()
def sampled(model: Denoiser, objective: Objective, kind: str, device: torch.device) -> dict[str, Any]:
    """Figures of samples from N(0, I); the same observations and noise for every arm and seed."""
    generator = named_generator(0, "evaluation")
    observations = draw_observations(kind, OBSERVATIONS, generator)
    noise = torch.randn(OBSERVATIONS * DRAWS, 1, HORIZON, ACTION_DIM, generator=generator).to(device)
    condition = observations.repeat_interleave(DRAWS, dim=0).unsqueeze(1).to(device)
    true = plus_probability(observations)
    modes = torch.stack([mode(observations, 1.0), mode(observations, -1.0)], dim=1).to(device)
    found: dict[str, Any] = {"probability_error": {}, "distance": {}, "minority_ratio": {}}
    for evaluations in EVALUATIONS:
        sampler = Sampler(objective, SamplingConfig(sampler="euler", steps=evaluations, clip_sample=None))
        chunks = sampler(lambda x, t: model(x, t, condition), noise)
        difference = chunks.view(OBSERVATIONS, DRAWS, 1, HORIZON, ACTION_DIM) - modes.unsqueeze(1)
        square, nearest = difference.square().mean((-2, -1)).min(dim=2)
        plus = (nearest == 0).double().mean(1).cpu()
        minority = torch.where(true < 0.5, plus, 1.0 - plus)
        key = str(evaluations)
        found["probability_error"][key] = float((plus - true).abs().mean())
        found["distance"][key] = float(square.mean().sqrt())
        found["minority_ratio"][key] = float(minority.mean() / torch.minimum(true, 1.0 - true).mean())
    return found


def leak(task: ToyTask, seed: int, device: torch.device) -> dict[str, Any]:
    """The probe on the noises of batches as they are trained on."""
    order, generators = data_order(task, seed + 1, device), Generators(seed + 1, device)
    conditions, noises = [], []
    for step in range(LEAK_ROWS // BATCH_SIZE):
        batch = task.batch(order.batch(step))
        noised = task.objective.draw(batch, generators.time, generators.noise)
        assert batch.condition is not None
        conditions.append(batch.condition.flatten(1))
        noises.append(noised.target + batch.x0)  # the velocity is noise - x0
    probe = condition_leak(torch.cat(conditions), torch.cat(noises), seed=0, rows=LEAK_ROWS)
    return {"leak": {"score": probe.score, "permuted": probe.permuted, "p_value": probe.p_value}}


def mean_of(values: list[Any]) -> Any:
    """Means of nested dictionaries of numbers, to four digits."""
    if isinstance(values[0], dict):
        return {key: mean_of([value[key] for value in values]) for key in values[0]}
    return float(f"{statistics.fmean(values):.4g}")


def row(name: str, figures: dict[str, Any]) -> str:
    error, distance = figures["probability_error"], figures["distance"]
    errors = " / ".join(f"{error[str(n)]:.3f}" for n in EVALUATIONS)
    distances = " / ".join(f"{distance[str(n)]:.3f}" for n in EVALUATIONS[:3])
    ratio, leak = figures["minority_ratio"]["10"], figures["leak"]["score"]
    return f"| {name} | {figures['train_loss']:.3f} | {errors} | {distances} | {ratio:.2f} | {leak:.3f} |"


HEADER = "| noise | train loss | error at 1 / 2 / 10 / 50 | distance at 1 / 2 / 10 | minority at 10 | leak |"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help="default: all")
    parser.add_argument("--observations", choices=GRID, default="normal", help="their distribution")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    return arguments


def main() -> None:
    arguments = parse()
    device = choose_device(arguments.device)
    kind, found = arguments.observations, {}
    print(HEADER)
    for name in arguments.arms:
        runs = {str(seed): run_arm(ARMS[name], kind, seed, arguments.steps, device) for seed in arguments.seeds}
        found[name] = {
            "mean": mean_of(list(runs.values())),
            "seeds": {seed: mean_of([figures]) for seed, figures in runs.items()},
        }
        print(row(name, found[name]["mean"]), flush=True)
    write_result(
        arguments.output or RESULTS / f"two_mode_policy_{'' if kind == 'normal' else kind + '_'}{device.type}.json",
        {
            "observations": kind,
            "seeds": arguments.seeds,
            "steps": arguments.steps,
            "batch_size": BATCH_SIZE,
            "arms": found,
        },
    )


if __name__ == "__main__":
    main()
