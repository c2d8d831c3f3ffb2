"""Comparing the arms of runs with a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from policy_accel.comparison.alike import check_alike
from policy_accel.comparison.made_of import MadeOf
from policy_accel.comparison.notes import notes_of
from policy_accel.comparison.power import (
    POWER,
    Design,
    design_of,
    detectable,
    episodes_to_see,
    seeds_to_see,
)
from policy_accel.comparison.result import Arm, Comparison, Difference
from policy_accel.comparison.scores import ScoredRun
from policy_accel.comparison.statistics import TwoLevels, holm
from policy_accel.comparison.words import overall, sentence
from policy_accel.data_names import OF_ANY_DATA, data_name
from policy_accel.errors import UserError, did_you_mean
from policy_accel.evaluation.statistics import CONFIDENCE

DIFFERENCE = 0.03


def compare(
    runs: Sequence[ScoredRun],
    baseline: str | None = None,
    *,
    measure: str = "score",
    confidence: float = CONFIDENCE,
    difference: float | None = DIFFERENCE,
    pooled: bool = False,
) -> Comparison:
    """Compare the arms of runs with a baseline, on the evaluation seeds that all share; runs without a score are noted.

    Args:
        runs: of one task, scored in one way; see `policy_accel.comparison.scores.scored_runs`.
        baseline: name of an arm; None takes the one called baseline, else the first.
        measure: that the runs were read with.
        confidence: of intervals and tests, in (0, 1).
        difference: that should be seen, above 0; None names none.
        pooled: take one variance among training seeds for all arms.

    Raises:
        UserError: fewer than two arms with a score; runs that cannot be compared; an unknown baseline.
    """
    scored = [run for run in runs if run.score is not None]
    names = list(dict.fromkeys(run.arm for run in scored))
    if len(names) < 2:
        raise UserError(_too_few(runs, scored, names))
    check_alike(scored, measure)
    chosen = _baseline(baseline, names)
    names = [chosen, *(name for name in names if name != chosen)]
    shared = _shared_episodes(scored)
    groups = [[run for run in scored if run.arm == name] for name in names]
    tables = [np.array([_row(run, shared) for run in group]) for group in groups]
    levels = TwoLevels(tables, confidence=confidence, pooled=pooled)
    unit = np.eye(len(names))
    arms = []
    for name, group, table, weights in zip(names, groups, tables, unit, strict=True):
        estimate = levels.estimate(weights)
        by_seed = {
            int(run.seed or 0): (run, mean) for run, mean in zip(group, table.mean(axis=1).tolist(), strict=True)
        }
        seeds = sorted(by_seed)
        arms.append(
            Arm(
                name,
                {seed: by_seed[seed][1] for seed in seeds},
                {seed: str(by_seed[seed][0].run_dir) for seed in seeds},
                estimate.value,
                estimate.interval,
            )
        )
    better = scored[0].better
    differences = _differences(levels, names, better, confidence, difference)
    found = Comparison(
        task=scored[0].task,
        data=_data(scored),
        scored_by=_scored_by(scored[0].made_of),
        track=scored[0].track,
        measure=measure,
        better=better,
        baseline=chosen,
        confidence=confidence,
        power=POWER,
        difference=difference,
        pooled=pooled,
        evaluation_seeds=shared,
        arms=arms,
        differences=differences,
        notes=notes_of(runs, scored, shared, arms, asked=baseline, baseline=chosen),
    )
    told = [replace(one, sentence=sentence(found, one)) for one in differences]
    return replace(found, differences=told, summary=overall(found))


def _data(scored: Sequence[ScoredRun]) -> str:
    """See `Comparison.data`; of runs on several data too."""
    if scored[0].task not in OF_ANY_DATA:
        return ""
    return ", ".join(dict.fromkeys(data_name(str((run.config or {}).get("task.data", ""))) for run in scored))


def _too_few(runs: Sequence[ScoredRun], scored: Sequence[ScoredRun], names: Sequence[str]) -> str:
    waiting = [run for run in runs if run.score is None]
    others = f" ({len(waiting)} more without one: {waiting[0].run_dir} has {waiting[0].missing})" if waiting else ""
    if not scored:
        return f"none of the runs has a score{others}; train and score them first."
    return (
        f"the runs with a score are all of one arm, {names[0]}{others}, and a comparison takes two; add runs of "
        "another method or with other settings."
    )


def _scored_by(made: MadeOf | None) -> str:
    """See `Comparison.scored_by`."""
    if made is None:
        return ""
    of = f" of {made.images} images" if made.images is not None else ""
    return (f"floor / {made.measure}" if made.better == "lower" else f"{made.measure} / floor") + of


def _baseline(asked: str | None, names: Sequence[str]) -> str:
    if asked is None:
        return next((name for name in names if name == "baseline"), names[0])
    if asked not in names:
        raise UserError(f"--baseline '{asked}' is no arm of these runs; {did_you_mean(asked, names)}")
    return asked


def _shared_episodes(scored: Sequence[ScoredRun]) -> list[int]:
    if scored[0].scores is None:
        return []
    shared, first = set(scored[0].scores), scored[0]
    for run in scored[1:]:
        if shared.isdisjoint(run.scores or {}):
            raise UserError(
                f"{first.run_dir} and {run.run_dir} share no evaluation seed; score them on the same ones with "
                "`policy-accel evaluate ... --seed` and compare again."
            )
        shared &= set(run.scores or {})
    return sorted(shared)


def _row(run: ScoredRun, shared: Sequence[int]) -> list[float]:
    return [float(run.score or 0.0)] if run.scores is None else [run.scores[seed] for seed in shared]


def _differences(
    levels: TwoLevels, names: Sequence[str], better: str, confidence: float, asked: float | None
) -> list[Difference]:
    """Of all arms but the first, which is the baseline."""
    unit = np.eye(len(names))
    weights = [row - unit[0] for row in unit[1:]]
    estimates = [levels.estimate(row) for row in weights]
    tested = [estimate.p for estimate in estimates if estimate.p is not None]
    corrected = iter(holm(tested))
    level = (1 - confidence) / len(weights)
    found = []
    for place, (row, estimate) in enumerate(zip(weights, estimates, strict=True), 1):
        after = None if estimate.p is None else next(corrected)
        smallest = None if estimate.p is None else detectable(estimate.errors, level)
        seeds = episodes = None
        if asked is not None and smallest is not None and smallest > asked:
            pair, count = (int(levels.runs[0]), int(levels.runs[place])), levels.episodes
            design = design_of(levels.spread(row), estimate.errors, count, len(names) if levels.pooled else 2)
            seeds, episodes = _needed(asked, design, pair, count, level)
        found.append(
            Difference(
                arm=names[place],
                value=estimate.value,
                interval=estimate.interval,
                p=estimate.p,
                corrected=after,
                found=after is not None and after < 1 - confidence,
                better=(estimate.value > 0) == (better == "higher") if better else None,
                detectable=smallest,
                error_of_runs=estimate.errors.runs,
                error_of_episodes=estimate.errors.episodes,
                seeds_needed=seeds,
                episodes_needed=episodes,
                knows_training=estimate.errors.freedom > 0,
            )
        )
    return found


def _needed(
    asked: float, design: Design, runs: tuple[int, int], episodes: int, level: float
) -> tuple[int | None, int | None]:
    """More training seeds, and more episodes, that would show the difference; what cannot be told is None."""
    if min(runs) < 2:
        return None, None
    seeds = seeds_to_see(asked, design, episodes, level)
    return seeds, None if episodes < 2 else episodes_to_see(asked, design, min(runs), level)
