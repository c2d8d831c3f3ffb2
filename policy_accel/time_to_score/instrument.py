"""The whole measurement: runs are tuned, trained and scored, and what is there already is not made again."""

from __future__ import annotations

import fcntl
import itertools
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from policy_accel.errors import UserError
from policy_accel.files import explained, no_link
from policy_accel.sweep.carry_out import carry_out
from policy_accel.sweep.folder import DONE
from policy_accel.time_to_score.arms import Arm, Chosen, compared_arms, order_of, trials, tuning_arms
from policy_accel.time_to_score.costs import UpdateWork, costs_at, work_of_an_update
from policy_accel.time_to_score.measured import Measured
from policy_accel.time_to_score.plan import Plan
from policy_accel.time_to_score.records import Records, Scored
from policy_accel.time_to_score.scorer import RunScorer
from policy_accel.time_to_score.search import Rule, search
from policy_accel.time_to_score.summary import task_summary

Report = Callable[[str], None]
LOCK = ".lock"


def check_plan(plan: Plan, config_dir: Path | None) -> list[Arm]:
    """The runs of a plan, all of whose configurations and data were checked; nothing is started.

    Raises:
        UserError: see `order_of`.
    """
    pairs = itertools.product(plan.tasks, plan.methods)
    tuned, first = (
        tuning_arms(plan),
        compared_arms(plan, {(task, method): trials(plan, method)[0] for task, method in pairs}),
    )
    for arms in (tuned, first):
        if arms:
            order_of(plan, arms, Path(plan.folder), config_dir)
    return [*tuned, *first]


def measure(plan: Plan, config_dir: Path | None, report: Report) -> dict[str, Any]:
    """Carry a plan out, or go on with it.

    Args:
        plan: what is asked for.
        config_dir: of the user's own choices.
        report: takes a line for the user.

    Returns:
        The result, JSON-able.

    Raises:
        UserError: something is wrong with the plan, a run failed, another process works in the folder.
        KeyboardInterrupt: the user stopped it; the same call goes on.
    """
    folder = Path(plan.folder)
    check_plan(plan, config_dir)
    with _locked(folder):
        records = Records(folder)
        tuning = _tune(plan, records, config_dir, report)
        chosen: Chosen = {
            (task, method): found["chosen"] for task, methods in tuning.items() for method, found in methods.items()
        }
        arms = compared_arms(plan, chosen)
        configs = _train(plan, arms, folder / "runs", config_dir)
        works: dict[tuple[str, str], UpdateWork] = {}
        runs = []
        for arm in arms:
            config, kind = configs[arm.name], (arm.task, arm.method)
            works[kind] = works[kind] if kind in works else work_of_an_update(config)
            runs.append(_measure(plan, arm, folder / "runs" / arm.name, config, records, works[kind], report))
    return {
        "plan": asdict(plan),
        "checkpoints": plan.grid,
        "confidence_of_a_checkpoint": 1 - plan.alpha(),
        "tuning": tuning,
        "tasks": {task: task_summary(plan, task, [run for run in runs if run.arm.task == task]) for task in plan.tasks},
        "runs": [run.to_json(plan.tasks[run.arm.task].targets) for run in runs],
        "scoring_seconds": records.seconds,
    }


def _locked(folder: Path) -> TextIO:
    """The folder, for one process; closing the file lets go."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "a", opener=no_link)  # noqa: SIM115 (open as long as the measurement)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UserError(f"Another process measures in {folder}; wait for it, or choose another folder.") from error
    return lock


def _train(plan: Plan, arms: list[Arm], folder: Path, config_dir: Path | None) -> dict[str, Any]:
    """Have the runs trained; their configurations."""
    order, configs = order_of(plan, arms, folder, config_dir)
    sweep, stopped = carry_out(order, configs)
    if stopped:
        raise KeyboardInterrupt
    left = [name for name in sweep.runs if sweep.job(name).state != DONE]
    if left:
        job = sweep.job(left[0])
        raise UserError(
            f"{len(left)} of {len(sweep.runs)} runs in {folder} are not done, the first is {left[0]} ({job.state}): "
            f"{job.said or 'no word of it'} Put it right and start the same command again."
        )
    return configs


def _tune(plan: Plan, records: Records, config_dir: Path | None, report: Report) -> dict[str, dict[str, Any]]:
    """Task -> method -> its trials and the chosen settings: those of the best mean score; the first of equal ones."""
    arms = tuning_arms(plan)
    if not arms:
        return {}
    folder = Path(plan.folder) / "tuning"
    configs = _train(plan, arms, folder, config_dir)
    scores: dict[str, list[float]] = {}
    for arm in arms:
        scorer = RunScorer(arm.name, folder / arm.name, configs[arm.name], plan.scoring, records, report)
        with closing(scorer):
            values = scorer.scores(plan.checkpoints.last, plan.tuning.episodes, start_seed=plan.tuning.start_seed)
        scores.setdefault(f"{arm.task}/{arm.method}/{arm.tried}", []).append(float(values.mean()))
    found: dict[str, dict[str, Any]] = {}
    for task, method in itertools.product(plan.tasks, plan.methods):
        tried = [(settings, scores[f"{task}/{method}/{settings}"]) for settings in trials(plan, method)]
        best, _ = max(tried, key=lambda trial: np.mean(trial[1]))
        found.setdefault(task, {})[method] = {
            "trials": [{"settings": settings, "scores": values} for settings, values in tried],
            "chosen": best,
        }
    return found


def _measure(
    plan: Plan, arm: Arm, run_dir: Path, config: Any, records: Records, work: UpdateWork, report: Report
) -> Measured:
    """Score the checkpoints of a run, an update of which is `work`."""
    task, scoring, last = plan.tasks[arm.task], plan.scoring, plan.checkpoints.last
    rule = Rule(
        task.targets,
        (task.range[0], task.range[1]),
        scoring.batch,
        scoring.most,
        plan.alpha(),
        everywhere=plan.surrogates.windows > 0,
    )
    with closing(RunScorer(arm.name, run_dir, config, scoring, records, report)) as scorer:
        try:
            looks = search(plan.grid, rule, scorer.scores)
        except ValueError as error:
            raise UserError(f"tasks.{arm.task}: {error}") from error
        cheap = {look.step: scorer.surrogates(look.step, plan.surrogates) for look in looks if rule.everywhere}
        budgets = {step: scorer.episodes(step, scoring.episodes) for step in plan.budgets}
        few = {}
        for steps in plan.few_steps:
            episodes = scorer.episodes(last, scoring.episodes, steps=steps)
            evaluations = records.network_evaluations(Scored(arm.name, last, steps, scoring.noise_seed))
            few[steps] = evaluations, episodes
    costs = {step: costs_at(run_dir, config, step, work) for step in plan.grid}
    return Measured(arm, looks, costs, cheap, budgets, few)
