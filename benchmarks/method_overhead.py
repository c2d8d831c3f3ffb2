"""What each method adds to a training step, as a share of the baseline's step on the same machine.

    python benchmarks/method_overhead.py --device cpu --batch 64 256 2048 --dims 32 112 3072
    python benchmarks/method_overhead.py --device cuda --batch 64 256 2048 --dims 32 112 3072

Samples: 32 = chunks of 16 x 2, 112 = chunks of 16 x 7, both with 2 observations of 20 numbers and the small 1-D U-Net
(configs/model/unet_small.yaml, 0.8 M parameters); 3072 = images 3 x 32 x 32 with one of 10 classes and diffusers'
UNet2DModel (channels 32 and 64, one layer a block, 0.7 M parameters). On a CPU images are measured up to a batch of
256: larger ones take most of a minute a step. 8192 random samples; grouped assignment goes by 256 k-means clusters of
the observation (or by the class), in runs of 16.

Two figures, in rounds in which all sides take turns, in reverse order every other round; the median of the rounds, with
smallest and largest:

- part: mean seconds, over an epoch, in which the batch of a step is ordered, gathered and noised and rate and momentum
  are set, minus the same for the baseline in the same round, over the median seconds of the baseline's whole step;
- whole: seconds of a whole step (`policy_accel.training.update.Update`: loss, gradient, AdamW, EMA; fp32, eager) over
  the baseline's in the same round, minus 1.

A part is the finer figure: whole steps on a shared machine spread by more than most methods add. Where the solver runs
beside the step ("overlapped") the part has none of it; the wait for it and the core it takes show in the whole alone,
which is the overhead there. Elsewhere the part is the overhead, and the whole is measured too where a step of the
baseline is shorter than `--whole-below`.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from results import RESULTS, write_result
from torch import Tensor

from policy_accel.acceleration.assigned_noise import AssignedNoise, GroupedAssignmentConfig
from policy_accel.acceleration.build import build_objective
from policy_accel.acceleration.conditional import kmeans_groups
from policy_accel.acceleration.noise_assignment import Assignment
from policy_accel.diffusion.objective import Batch, Objective
from policy_accel.models import Denoiser, build_denoiser
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.optimizer import step_values
from policy_accel.training.randomness import DataOrder, Generators, named_generator
from policy_accel.training.task import NOTHING, Draws
from policy_accel.training.update import Update

SAMPLES, RUN_STEPS = 8192, 100_000
OBSERVATION_SHAPE, CLASSES, CLUSTERS, GROUP_RUN = (2, 20), 10, 256, 16
SHAPES: dict[int, tuple[int, ...]] = {32: (16, 2), 112: (16, 7), 3072: (3, 32, 32)}
LARGEST_IMAGE_BATCH_ON_CPU = 256
BASELINE = "baseline"


@dataclass(frozen=True)
class Method:
    """overrides: of the configuration. overlapped: its solver runs while the step before trains. target: the overhead
    that it is meant to stay below, where `target_batch` is given for that batch only."""

    overrides: tuple[str, ...] = ()
    overlapped: bool = False
    target: float | None = None
    target_batch: int | None = None


METHODS = {
    BASELINE: Method(),
    **{
        f"nearest of {k}": Method(("method=immiscible_knn", f"acceleration.noise.candidates={k}"), target=0.01)
        for k in (2, 4, 8)
    },
    "Karhunen-Loeve tables": Method(("method=kl_schedule",), target=0.01),
    "curriculum": Method(("method=clts",), target=0.01),
    "logit-normal times": Method(("method=logit_normal",), target=0.01),
    "stratified times": Method(("method=stratified",), target=0.01),
    "loss second moment": Method(("method=loss_second_moment",)),
    "min-SNR weight": Method(("method=min_snr",), target=0.01),
    "FDM": Method(("method=fdm",), target=0.01),
    "FDM with its cap": Method(("method=fdm_cap", f"acceleration.momentum.cap_warmup={RUN_STEPS}"), target=0.01),
    "momentum decay": Method(("method=momentum_decay",), target=0.01),
}
for kind, overrides, goal in (
    ("whole batch", ("method=immiscible",), None),
    ("blocks of 64", ("method=immiscible", "acceleration.noise.metric=dot", "acceleration.noise.block_size=64"), None),
    ("groups", ("method=immiscible_groups",), 0.03),
):
    METHODS[f"assignment, {kind}, inline"] = Method(overrides)
    METHODS[f"assignment, {kind}, overlapped"] = Method(overrides, overlapped=True, target=goal, target_batch=256)


def configured(method: Method) -> RobotConfig:
    """The configuration of a run with `method`."""
    return ROBOT.config(["recipe=small", "diffusion.target=epsilon", *method.overrides])


class ImageDenoiser(Denoiser):
    """diffusers' class-conditional 2-D U-Net as a denoiser of this package."""

    def __init__(self) -> None:
        super().__init__()
        unet: Any = diffusers.UNet2DModel
        self.net = unet(
            sample_size=32,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            num_class_embeds=CLASSES,
        )

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Prediction for images x [B, 3, 32, 32] at t [B] of classes `condition` [B]."""
        return self.net(x, t, class_labels=condition).sample


def build_model(dims: int) -> Denoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if dims == 3072:
            return ImageDenoiser()
        horizon, channels = SHAPES[dims]
        model = configured(METHODS[BASELINE]).model
        return build_denoiser(model, channels=channels, horizon=horizon, condition_shape=OBSERVATION_SHAPE)


class RandomTask:
    """Random samples as a task of the training core."""

    validation_samples = 0
    fingerprint = "random"
    objective: Objective
    groups: Tensor | None
    samples = SAMPLES
    group_run = GROUP_RUN

    def __init__(self, dims: int, device: torch.device) -> None:
        generator = named_generator(0, "samples")
        self.x0 = torch.randn(SAMPLES, *SHAPES[dims], generator=generator)
        if dims == 3072:
            self.condition = torch.randint(CLASSES, (SAMPLES,), generator=generator)
            self.clusters = self.condition
        else:
            self.condition = torch.randn(SAMPLES, *OBSERVATION_SHAPE, generator=generator)
            self.clusters = kmeans_groups(self.condition, CLUSTERS, 0)
        self.model = build_model(dims)
        self.to(device)

    def configured(self, config: RobotConfig, device: torch.device) -> RandomTask:
        """The same data and network, trained as `config` says."""
        task = copy.copy(self)
        task.objective = build_objective(config.diffusion, config.acceleration).to(device)
        task.groups = self.clusters if isinstance(config.acceleration.noise, GroupedAssignmentConfig) else None
        return task

    def to(self, device: torch.device) -> None:
        self.model.to(device)
        self.x0, self.condition = self.x0.to(device), self.condition.to(device)
        self.clusters = self.clusters.to(device)

    def batch(self, indices: Tensor, drawn: Draws = NOTHING) -> Batch:
        groups = None if self.groups is None else self.groups[indices]
        return Batch(self.x0[indices], condition=self.condition[indices], groups=groups)

    def validation_batch(self, indices: Tensor) -> Batch:
        return self.batch(indices)

    def evaluate(self, model: Denoiser, report: Callable[[str], None], *, step: int) -> dict[str, Any] | None:
        return None


class Side:
    """One method on one machine: whole steps, or the part of them that prepares a batch."""

    def __init__(self, task: RandomTask, method: Method, batch_size: int, device: torch.device) -> None:
        self.device, self.step = device, 0
        config = configured(method)
        self.task, self.optimizer = task.configured(config, device), config.training.optimizer
        self.order = DataOrder(SAMPLES, batch_size, 0, device, groups=self.task.groups, run=GROUP_RUN)
        generators = Generators(0, device)
        self.update = Update(
            self.task, self.order, self.optimizer, config.training.ema, steps=RUN_STEPS, generators=generators
        )
        if not method.overlapped:
            self.update.feed.ahead = False
            if isinstance(self.task.objective.noise, AssignedNoise):
                self.task.objective.noise.solver = None  # type: ignore[assignment]

    def whole(self) -> None:
        """One training step."""
        self.update(self.step)
        self.step += 1

    def part(self) -> None:
        """What the step before the network takes, and what follows from the losses."""
        step_values(self.optimizer, self.step, RUN_STEPS)
        _, noised = self.update.feed(self.step).examples()
        if self.update.learns:
            self.task.objective.times.update(noised.t, noised.t.float())  # type: ignore[attr-defined]
        self.step += 1

    def seconds_of_steps(self, count: int) -> float:
        """Mean seconds of a step over `count`, after an untimed one, so that the first has its solver beside it too."""
        self.whole()
        seconds = self._timed(self.whole, count)
        self._solved()
        return seconds

    def seconds_of_parts(self, count: int) -> float:
        """Mean seconds of a part over `count`, each timed alone; a solver that runs beside the step is waited for."""
        total = 0.0
        for _ in range(count):
            self._solved()
            total += self._timed(self.part, 1)
        return total / count

    def _timed(self, turn: Callable[[], None], count: int) -> float:
        self._synchronize()
        started = time.perf_counter()
        for _ in range(count):
            turn()
        self._synchronize()
        return (time.perf_counter() - started) / count

    def _solved(self) -> None:
        solver = getattr(self.task.objective.noise, "solver", None)
        if solver is not None:
            solver.submit(int).result()

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def solver_milliseconds(self) -> float | None:
        """What the last assignment took on the host."""
        last = getattr(self.task.objective.noise, "last", None)
        return rounded(last.milliseconds) if isinstance(last, Assignment) else None


def in_rounds(
    baseline: Side, others: dict[str, Side], rounds: int, seconds: Callable[[Side], float]
) -> dict[str, list[float]]:
    """Seconds of every side, one figure a round; each side goes once before, untimed."""
    sides = {BASELINE: baseline, **others}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        seconds(side)
    for number in range(rounds):
        for name in sides if number % 2 == 0 else reversed(sides):
            found[name].append(seconds(sides[name]))
    return found


def measure(dims: int, batch_size: int, device: torch.device, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of every method for one shape and batch."""
    base = RandomTask(dims, device)
    sides = {name: Side(base, METHODS[name], batch_size, device) for name in (BASELINE, *arguments.methods)}
    first = sides.pop(BASELINE)
    step = first.seconds_of_steps(2)
    count = max(1, round(arguments.turn_seconds / step))

    def whole(names: list[str]) -> dict[str, list[float]]:
        return in_rounds(
            first, {name: sides[name] for name in names}, arguments.rounds, lambda side: side.seconds_of_steps(count)
        )

    overlapped = [name for name in sides if METHODS[name].overlapped]
    rest = [name for name in sides if name not in overlapped] if step <= arguments.whole_below else []
    turns = [whole(names) for names in (overlapped, rest) if names]
    parts = in_rounds(first, sides, arguments.rounds, lambda side: side.seconds_of_parts(max(1, SAMPLES // batch_size)))
    steps = [seconds for turn in turns for seconds in turn[BASELINE]]
    step = statistics.median(steps) if steps else first.seconds_of_steps(count)
    found: dict[str, Any] = {"step_milliseconds": rounded(1e3 * step), "steps_per_turn": count, "methods": {}}
    for name, side in sides.items():
        method = METHODS[name]
        pairs = zip(parts[name], parts[BASELINE], strict=True)
        figures: dict[str, Any] = {"part": spread([(mine - theirs) / step for mine, theirs in pairs])}
        for turn in turns:
            if name in turn:
                pairs = zip(turn[name], turn[BASELINE], strict=True)
                figures["whole"] = spread([mine / theirs - 1.0 for mine, theirs in pairs])
        overhead = figures["whole" if method.overlapped else "part"]["median"]
        solver = side.solver_milliseconds()
        figures = {"overhead": overhead, **figures} | ({} if solver is None else {"solver_milliseconds": solver})
        if method.target is not None and method.target_batch in (None, batch_size):
            figures |= {"target": method.target, "holds": overhead < method.target}
        found["methods"][name] = figures
    return found


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": rounded(statistics.median(values)),
        "min": rounded(min(values)),
        "max": rounded(max(values)),
    }


def rounded(value: float) -> float:
    return float(f"{value:.3g}")


def report(case: str, found: dict[str, Any]) -> None:
    print(f"\n{case}: baseline {found['step_milliseconds']} ms a step\n| method | overhead | part | whole | target |")
    for name, figures in found["methods"].items():
        cells = [f"{100 * figures['overhead']:.2f} %"]
        for kind in ("part", "whole"):
            values = figures.get(kind)
            cells.append(f"{100 * values['min']:.2f} to {100 * values['max']:.2f} %" if values else "")
        target = (
            f"{100 * figures['target']:.0f} %: {'holds' if figures['holds'] else 'MISSED'}"
            if "target" in figures
            else ""
        )
        print(f"| {name} | {' | '.join(cells)} | {target} |", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256, 2048])
    parser.add_argument("--dims", type=int, nargs="+", choices=SHAPES, default=list(SHAPES))
    known = [name for name in METHODS if name != BASELINE]
    parser.add_argument("--methods", nargs="+", choices=known, default=known, metavar="METHOD", help="default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--turn-seconds", type=float, default=2.0, help="about the length of a side's turn of whole steps"
    )
    parser.add_argument("--whole-below", type=float, default=0.02, help="seconds of a baseline's step")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if min(*arguments.batch, arguments.rounds, arguments.threads) < 1:
        parser.error("--batch, --rounds and --threads must be at least 1")
    if max(arguments.batch) > SAMPLES:
        parser.error(f"--batch must be at most {SAMPLES}")
    return arguments


def main() -> None:
    arguments = parse()
    device = choose_device(arguments.device)
    use_device(device, threads=arguments.threads, matmul_precision="highest")
    load = os.getloadavg()
    cases: dict[str, Any] = {}
    for dims in arguments.dims:
        for batch_size in arguments.batch:
            if dims == 3072 and device.type == "cpu" and batch_size > LARGEST_IMAGE_BATCH_ON_CPU:
                print(f"\nimages at batch {batch_size} are left out on a CPU")
                continue
            case = f"{' x '.join(map(str, SHAPES[dims]))}, batch {batch_size}"
            cases[case] = measure(dims, batch_size, device, arguments)
            report(case, cases[case])
    write_result(
        arguments.output or RESULTS / f"method_overhead_{device.type}.json",
        {
            "device": device.type,
            "rounds": arguments.rounds,
            "seed": 0,
            "load_average_before": [round(value, 2) for value in load],
            "cases": cases,
        },
    )


if __name__ == "__main__":
    main()
