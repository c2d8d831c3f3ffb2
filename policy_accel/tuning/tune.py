"""Tuning of a run's sampling: grids by held-out demonstrations, the best few by rollouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policy_accel.diffusion import Sampler
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.errors import UserError
from policy_accel.evaluation.statistics import bootstrap_interval
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.held_out import HeldOut, energy_scores
from policy_accel.policy.run import LoadedRun
from policy_accel.policy.task import ChunkTask
from policy_accel.progress import Progress
from policy_accel.run_sampling import TunedSampling
from policy_accel.training.randomness import named_generator
from policy_accel.tuning.grid_search import RUNGS, GridSearch, standard_error

FEW = 2
"""Candidates of each number of evaluations that are rolled out, beside the even grid."""
MOST = 16
Report = Callable[[str], None]


@dataclass(frozen=True)
class TuneConfig:
    """What is tuned, and by what.

    Raises:
        UserError: a number out of range; `use` not among `evaluations`.
    """

    evaluations: tuple[int, ...] = (1, 2, 4)
    """Numbers of evaluations of the network, each with a grid of its own."""
    windows: int = 256
    """Windows of demonstrations, evenly spaced."""
    noises: int = 4
    """Samples for each window."""
    episodes: int = 100
    """Episodes of each sampling that is rolled out; 0 leaves the choice to the demonstrations."""
    seed: int = 500_000
    """Of the first episode."""
    tolerance: float = 0.02
    """Score that fewer evaluations may cost."""
    use: int | None = None
    """Evaluations that the run takes from now on; None for the fewest within the tolerance."""

    def __post_init__(self) -> None:
        least = (("windows", 2), ("noises", 2), ("episodes", 0), ("seed", 0), ("tolerance", 0))
        for name, low in least:
            if not getattr(self, name) >= low:
                raise UserError(f"--{name} {getattr(self, name)} must be at least {low}.")
        for number in self.evaluations:
            if not 1 <= number <= MOST:
                raise UserError(f"--evaluations {number} must lie between 1 and {MOST}.")
        if self.use is not None and self.use not in self.evaluations:
            raise UserError(f"--use {self.use} is not among --evaluations {' '.join(map(str, self.evaluations))}.")


@dataclass
class Row:
    """A sampling, its score on demonstrations and, where it was rolled out, on episodes.

    kind: own (the run's), even (as many steps of the run's spacing) or found. times: of `settings`. energy: see
    `energy_scores`; energy_over: that minus the even grid's, with its standard error; None for the others. scores: of
    the episodes.
    """

    kind: str
    evaluations: int
    settings: SamplingConfig
    times: tuple[float, ...]
    energy: float
    energy_over: float | None = None
    energy_error: float | None = None
    scores: np.ndarray | None = None
    chosen: bool = False

    @property
    def score(self) -> float:
        """The mean over the episodes."""
        assert self.scores is not None
        return float(self.scores.mean())

    def beside(self, other: Row) -> tuple[float, tuple[float, float]] | None:
        """Mean difference of the scores to another sampling's on the same episodes, and its interval."""
        if self.scores is None or other.scores is None or other is self:
            return None
        difference = self.scores - other.scores
        return float(difference.mean()), bootstrap_interval(difference)


@dataclass
class Tuning:
    """The rows of a tuning, and what followed from them."""

    rows: list[Row]
    tuned: TunedSampling
    held_out: bool
    windows: int

    @property
    def own(self) -> Row:
        """The run's own sampling."""
        return self.rows[0]

    def even(self, evaluations: int) -> Row:
        """The even grid of so many evaluations."""
        return next(row for row in self.rows if row.kind == "even" and row.evaluations == evaluations)


def tune(run_dir: Path, run: LoadedRun, task: ChunkTask, config: TuneConfig, workers: int, report: Report) -> Tuning:
    """Choose the times of a run's sampler; nothing is written.

    Args:
        run_dir: of the run.
        run: its policy, sampled as it was trained.
        task: of the run, on the policy's device; its own policy is not looked at.
        config: what is tuned.
        workers: processes for the environments.
        report: takes a line for the user.

    Raises:
        UserError: seeds that scored the run already; a process with steps of its own.
    """
    if run.sampler.objective.process.samplers:
        raise UserError(
            f"diffusion.family={run.config.diffusion.family} has steps of its own, so that there are no times to "
            "choose among."
        )
    scored = config.episodes > 0 and run.config.task.environment is not None
    if scored:
        _check_seeds(run, config)
    held_out = task.validation_samples > 0
    count = task.validation_samples if held_out else task.samples
    indices = torch.arange(count)[:: -(-count // config.windows)]
    windows = HeldOut(run.policy, task.validation_batch(indices) if held_out else task.batch(indices))
    where = "held out of the training" if held_out else "of training episodes, since task.val_ratio holds none out"
    report(f"{len(indices)} windows {where}, {config.noises} samples of each, the same noise for every sampling.")

    rows = _searched(run, windows, config, report)
    if scored:
        _roll_out(run_dir, run, rows, config, workers, report)
    elif config.episodes > 0:
        report("The task has no environment: demonstrations alone decide.")
    tuned = choose(run.step, rows, config)
    return Tuning(rows, tuned, held_out, len(indices))


def _check_seeds(run: LoadedRun, config: TuneConfig) -> None:
    own = run.config.evaluation
    if max(config.seed, own.start_seed) < min(config.seed + config.episodes, own.start_seed + own.episodes):
        raise UserError(
            f"--seed {config.seed} with --episodes {config.episodes} meets the seeds that score the run, from "
            f"{own.start_seed} to {own.start_seed + own.episodes - 1}; choose others, so that its score stays fair."
        )


def _searched(run: LoadedRun, windows: HeldOut, config: TuneConfig, report: Report) -> list[Row]:
    """The run's own sampling, and for each number of evaluations the even grid and the best few."""
    objective, own = run.sampler.objective, run.sampler.config
    process = objective.process
    base = own.sampler if own.sampler not in ("ddpm", "heun") else "ddim"
    others = [name for name in ("dpm_solver++", "ddpm") if name != base]
    with closing(Progress("search", sum(_expected(config.evaluations)), unit="sampling")) as progress:

        def energy(settings: SamplingConfig) -> Tensor:
            sampler = Sampler(objective, settings)
            drawn = (windows.sample(sampler, draws) for draws in noise_draws(windows, config.noises))
            scores = energy_scores(torch.stack(list(drawn)), windows.true)
            progress.to(min(progress.done + 1, progress.total - 1))
            return scores

        def at(sampler: str, times: tuple[float, ...]) -> SamplingConfig:
            return dataclasses.replace(own.by(sampler), times=list(times))

        ladder = process.grid(min(RUNGS, process.timesteps or RUNGS)).timesteps
        start = ladder[0] if own.times is None else run.sampler.grid.timesteps[0]
        ladder = (start, *(time for time in ladder if time < start))
        if max(config.evaluations) > len(ladder):
            raise UserError(
                f"--evaluations {max(config.evaluations)} takes more times than the {len(ladder)} that are tried, from "
                f"{start:g} down; give at most {len(ladder)}."
            )
        search = GridSearch(lambda sampler, times: energy(at(sampler, times)), ladder, base, others)
        found = search.run(config.evaluations)
        number = run.sampler.network_evaluations()
        rows = [Row("own", number, own, run.sampler.grid.timesteps, float(energy(own).mean()))]
        for number, candidates in found.items():
            times = own.with_steps(number).grid(process).timesteps
            even = search.scored(base, times)
            rows.append(Row("even", number, at(base, times), times, even.score))
            for one in search.few([one for one in candidates if one is not even], FEW):
                over = one.scores - even.scores
                settings = at(one.sampler, one.times)
                rows.append(
                    Row("found", number, settings, one.times, one.score, float(over.mean()), standard_error(over))
                )
        progress.to(progress.total)
    return rows


def _expected(evaluations: Sequence[int]) -> Iterator[int]:
    """About how many samplings a search scores, for the progress."""
    yield 2 * len(evaluations) + 1
    for number in range(2, max(evaluations) + 1):
        yield RUNGS + (2 * RUNGS if number > 2 else 0)


def noise_draws(windows: HeldOut, count: int) -> Iterator[Iterator[Tensor]]:
    """The draws of each sample, one after the other, so that all samplers begin from the same ones."""
    for number in range(count):
        generator = named_generator(0, "tune sampling", number)

        def draws(generator: torch.Generator = generator) -> Iterator[Tensor]:
            while True:
                yield torch.randn(windows.draw_shape, generator=generator).to(windows.x0.device)

        yield draws()


def _roll_out(run_dir: Path, run: LoadedRun, rows: list[Row], config: TuneConfig, workers: int, report: Report) -> None:
    """Score the rows on the same episodes and the same noise."""
    evaluation = dataclasses.replace(
        run.config.evaluation, episodes=config.episodes, start_seed=config.seed, videos=0, camera=None, workers=workers
    )
    settings = dataclasses.replace(run.config, evaluation=evaluation)
    with closing(PolicyEvaluator(settings, run.policy, run_dir, run.env_args, start=True)) as evaluator:
        for number, row in enumerate(rows, 1):
            same = next((one for one in rows[: number - 1] if _sampled_alike(one, row)), None)
            if same is not None:
                row.scores = same.scores
                continue
            report(f"rollouts {number} of {len(rows)}: {row.settings.sampler} at {shown(row.times)}")
            evaluator.sampler = dataclasses.replace(run.sampler, config=row.settings)
            row.scores = np.array([episode["score"] for episode in evaluator(run.policy, report)["episodes"]])


def _sampled_alike(one: Row, other: Row) -> bool:
    return (one.settings.sampler, one.times) == (other.settings.sampler, other.times)


def choose(step: int, rows: list[Row], config: TuneConfig) -> TunedSampling:
    """For each number of evaluations the sampling of the highest score, or of the lowest energy without episodes; and
    the fewest evaluations that cost no more than the tolerance."""
    own, grids, use = rows[0], {}, config.use
    for number in sorted(set(config.evaluations)):
        these = [row for row in rows[1:] if row.evaluations == number]
        best = max(these, key=lambda row: -row.energy if row.scores is None else row.score)
        best.chosen = True
        grids[number] = _grid(best, next(row for row in these if row.kind == "even"), own)
        if use is None and best.scores is not None and best.score >= own.score - config.tolerance:
            use = number
    return TunedSampling(step, use, grids)


def _grid(best: Row, even: Row, own: Row) -> dict[str, Any]:
    """What is kept of a choice."""
    kept: dict[str, Any] = {
        "sampler": best.settings.sampler,
        "times": list(best.times),
        "energy_score": round(best.energy, 5),
    }
    if best.scores is not None:
        kept |= {"score": round(best.score, 4), "episodes": len(best.scores)}
        for name, other in (("over_even", even), ("over_own", own)):
            difference = best.beside(other)
            if difference is not None:
                mean, (low, high) = difference
                kept[name] = [round(value, 4) for value in (mean, low, high)]
    return kept


def shown(times: Sequence[float]) -> str:
    """Times as they are typed, with at most four digits."""
    return ",".join(f"{time:.4g}" for time in times)
