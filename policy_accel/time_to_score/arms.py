"""The runs that a plan asks for, as two sweeps: those that tune, and those that are compared."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.run import build_sampler
from policy_accel.sweep.file import as_text
from policy_accel.sweep.grid import short_keys
from policy_accel.sweep.prepare import Order, check, own_settings
from policy_accel.time_to_score.plan import Plan
from policy_accel.time_to_score.surrogates import ERROR_STEPS, with_steps

Chosen = dict[tuple[str, str], dict[str, Any]]
"""(task, method) -> the settings that tuning chose."""


@dataclass(frozen=True)
class Arm:
    """A run: its name in the sweep, of which task, method and training seed, and the settings that it tries."""

    name: str
    task: str
    method: str
    seed: int
    tried: dict[str, Any]


def trials(plan: Plan, method: str) -> list[dict[str, Any]]:
    """The combinations of a method's tuning grid; a single empty one without a grid."""
    grid = plan.tuning.of(method)
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def tuning_arms(plan: Plan) -> list[Arm]:
    """Every combination of its grid for every task and method; none without a grid."""
    if not any(map(plan.tuning.of, plan.methods)):
        return []
    pairs = itertools.product(plan.tasks, plan.methods)
    return _arms(plan.tuning.seeds, {(task, method): trials(plan, method) for task, method in pairs})


def compared_arms(plan: Plan, chosen: Chosen) -> list[Arm]:
    """The runs that are compared, with the settings that tuning chose."""
    pairs = itertools.product(plan.tasks, plan.methods)
    arms = _arms(plan.seeds, {pair: [chosen.get(pair, {})] for pair in pairs})
    return [dataclasses.replace(arm, name=_name(arm.task, arm.method, f"seed{arm.seed}")) for arm in arms]


def _arms(seeds: Iterable[int], tried: dict[tuple[str, str], list[dict[str, Any]]]) -> list[Arm]:
    return [
        Arm(
            _name(
                task,
                method,
                *(f"{key}{value}" for key, value in zip(short_keys(list(one)), one.values(), strict=True)),
                f"seed{seed}",
            ),
            task,
            method,
            seed,
            one,
        )
        for (task, method), combinations in tried.items()
        for one in combinations
        for seed in seeds
    ]


def _name(*parts: str) -> str:
    return "-".join(re.sub(r"[^\w.+]+", "_", part) for part in parts)


def order_of(plan: Plan, arms: list[Arm], folder: Path, config_dir: Path | None) -> tuple[Order, dict[str, Any]]:
    """The sweep of some runs, checked, and their configurations by name.

    Runs are not scored while they train, unless training.evaluate_every asks for it.

    Raises:
        UserError: a setting that does not exist or go together with others, data that are missing, a task without
            episodes, numbers of steps that a policy cannot be sampled with, two runs of one name.
    """
    given = {"launcher": plan.launcher} | {f"launcher.{key}": value for key, value in plan.launcher_settings.items()}
    launcher, _ = own_settings(_overrides(given))
    runs = {arm.name: _overrides(_settings(plan, arm)) for arm in arms}
    if len(runs) < len(arms):
        raise UserError("two runs of the plan would have one name; name tasks and methods more differently.")
    order = Order(folder, runs, launcher, config_dir)
    configs = check(order)
    for name, config in configs.items():
        if config.track != "robot" or config.task.environment is None:
            raise UserError(
                f"run {name}: task '{config.task.name}' is not scored in episodes, which time-to-score counts; choose "
                "a task of a robot with an environment."
            )
        if plan.surrogates.windows and config.task.val_ratio == 0:
            raise UserError(
                f"run {name}: surrogates are measured on held-out demonstrations, and task.val_ratio=0 holds none out; "
                "raise it, or set surrogates.windows to 0."
            )
        _check_steps(plan, name, config)
        if config.training.evaluate_every == 0:
            config.evaluation.episodes = 0
            runs[name].append("evaluation.episodes=0")
    return order, configs


def _check_steps(plan: Plan, name: str, config: RobotConfig) -> None:
    """Raise UserError where a policy cannot be sampled with the numbers of steps that it will be."""
    used = dict.fromkeys(plan.few_steps, "choose other few_steps")
    if plan.surrogates.windows:
        used |= dict.fromkeys(ERROR_STEPS, "set surrogates.windows to 0")
    for steps, remedy in used.items():
        try:
            build_sampler(with_steps(config, steps))
        except UserError as error:
            raise UserError(
                f"run {name} could not be scored with {steps} steps of the sampler ({str(error).rstrip('.')}); "
                f"{remedy}."
            ) from error


def _settings(plan: Plan, arm: Arm) -> dict[str, Any]:
    return {
        "task": arm.task,
        "method": arm.method,
        **plan.settings,
        **plan.tasks[arm.task].settings,
        **plan.methods[arm.method],
        **arm.tried,
        "seed": arm.seed,
        "training.steps": plan.checkpoints.last,
        "training.checkpoint.at": plan.grid,
    }


def _overrides(settings: dict[str, Any]) -> list[str]:
    return [f"{key}={value if isinstance(value, str) else as_text(value)}" for key, value in settings.items()]
