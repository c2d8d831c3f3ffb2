"""What is to be measured: tasks, methods and seeds, targets and budgets, as one YAML file says it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from policy_accel.errors import UserError, did_you_mean
from policy_accel.parsing import from_yaml
from policy_accel.sweep.file import read_file
from policy_accel.time_to_score.checkpoints import checkpoint_grid

PLANS = Path("runs", "time_to_score")
OWN = ("seed", "run_dir", "method", "task", "training.steps", "training.checkpoint.at")
"""Settings of runs that other parts of the file decide."""


@dataclass
class TaskPlan:
    """A task, and the mean scores that are to be reached on it."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Of its runs, beside those of all: task.data, recipe."""
    targets: list[float] = field(default_factory=list)
    range: list[float] = field(default_factory=lambda: [0.0, 1.0])
    """Lowest and highest score that an episode can have."""


@dataclass
class CheckpointPlan:
    """Updates after which checkpoints are scored: `number` of them from `first` to `last`, evenly on a logarithmic
    axis, and the budgets. Runs make `last` updates."""

    first: int = 100
    last: int = 2000
    number: int = 8


@dataclass
class ScoringPlan:
    """How checkpoints are scored."""

    start_seed: int = 100_000
    """Of the episodes: the same ones for every checkpoint of every method."""
    noise_seed: int = 0
    batch: int = 50
    """Episodes between two looks at the decisions."""
    most: int = 1000
    """Episodes of a checkpoint; what is not decided then is said to be undecided."""
    confidence: float = 0.95
    """That all decisions about the checkpoints of a run are right; and of the intervals over seeds."""
    episodes: int = 200
    """For the scores at budgets and few steps: a number, so that methods are compared on the same ones."""
    workers: int = -1
    """Processes for the environments, as evaluation.workers of train."""


@dataclass
class TuningPlan:
    """A search as long for every method: each combination of its grid, on seeds of its own."""

    grid: dict[str, list[Any]] = field(default_factory=dict)
    """Setting -> values; none is not tuned."""
    grids: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """Method -> a grid of its own in place of `grid`, with as many combinations: for methods with other settings."""
    seeds: list[int] = field(default_factory=lambda: [1001])
    start_seed: int = 500_000
    episodes: int = 100

    def of(self, method: str) -> dict[str, list[Any]]:
        """The grid of a method."""
        return self.grids.get(method, self.grid)


@dataclass
class SurrogatePlan:
    """Cheap figures of each checkpoint that may stand for its score."""

    windows: int = 256
    """Held-out windows, at most; 0 measures none."""
    noises: int = 8
    """Samples for each."""


@dataclass
class Plan:
    """All of the file."""

    tasks: dict[str, TaskPlan] = field(default_factory=dict)
    """Name -> task; runs have task=NAME unless its settings name another."""
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> settings; runs have method=NAME unless these name another."""
    baseline: str = ""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    settings: dict[str, Any] = field(default_factory=dict)
    """Of all runs."""
    checkpoints: CheckpointPlan = field(default_factory=CheckpointPlan)
    budgets: list[int] = field(default_factory=list)
    """Updates at which methods are compared by their score."""
    few_steps: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    """Steps of the sampler with which the last checkpoint is scored."""
    scoring: ScoringPlan = field(default_factory=ScoringPlan)
    tuning: TuningPlan = field(default_factory=TuningPlan)
    surrogates: SurrogatePlan = field(default_factory=SurrogatePlan)
    launcher: str = "local"
    launcher_settings: dict[str, Any] = field(default_factory=dict)
    """As launcher.KEY of `policy-accel sweep`."""
    folder: str = ""

    @property
    def grid(self) -> list[int]:
        """Updates after which a checkpoint is scored, ascending."""
        plan = self.checkpoints
        return sorted({*checkpoint_grid(plan.first, plan.last, plan.number), *self.budgets})

    def alpha(self) -> float:
        """The error that one checkpoint may have, so that all of a run together keep to the confidence."""
        return (1 - self.scoring.confidence) / len(self.grid)


SECTIONS: dict[str, type] = {
    "checkpoints": CheckpointPlan,
    "scoring": ScoringPlan,
    "tuning": TuningPlan,
    "surrogates": SurrogatePlan,
}


def read_plan(path: Path) -> Plan:
    """Read and check the file.

    Raises:
        UserError: no such file, an unknown key, a value of a wrong type or out of range.
    """
    read_file(path)  # says what is wrong with a file that is none
    values = from_yaml(path.read_bytes())
    values["methods"] = _methods(path, values.get("methods"))
    _check_keys(path, values, Plan)
    try:
        plan = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Plan), values))
    except (OmegaConfBaseException, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        keys = [line.partition(":")[2].strip() for line in lines if line.startswith("full_key")]
        raise UserError(f"{path}: {keys[0] + ': ' if keys else ''}{lines[0].rstrip('.')}.") from error
    assert isinstance(plan, Plan)
    plan.baseline = plan.baseline or next(iter(plan.methods), "")
    plan.folder = plan.folder or str(PLANS / path.stem)
    try:
        _check(plan)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return plan


def _methods(path: Path, given: Any) -> Any:
    """A list of names as the dictionary that it stands for."""
    if isinstance(given, list):
        doubled = [name for name in given if given.count(name) > 1]
        if doubled:
            raise UserError(f"{path}: methods has {doubled[0]} {given.count(doubled[0])} times; name it once.")
        return {str(name): {} for name in given}
    if isinstance(given, dict):
        return {str(name): settings or {} for name, settings in given.items()}
    return given if given is not None else {}


def _check_keys(path: Path, values: Any, schema: type, where: str = "") -> None:
    """Raise UserError at the first key that the schema does not have, with the nearest one that it has."""
    if not isinstance(values, dict):
        raise UserError(f"{path}: {where} is {values!r}; give it keys and values.")
    known = {part.name for part in fields(schema)}
    for key, value in values.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise UserError(f"{path} has no use for the key '{name}'; {did_you_mean(str(key), known)}")
        if schema is Plan and key in SECTIONS:
            _check_keys(path, value, SECTIONS[key], name)
        if schema is Plan and key == "tasks":
            if not isinstance(value, dict):
                raise UserError(f"{path}: tasks is {value!r}; give the name of each task and what is wanted of it.")
            for task, settings in value.items():
                _check_keys(path, settings, TaskPlan, f"tasks.{task}")


def _check(plan: Plan) -> None:
    """Raise ValueError unless the plan makes sense."""
    for name, what in (("tasks", plan.tasks), ("methods", plan.methods), ("seeds", plan.seeds)):
        if not what:
            raise ValueError(f"{name} is empty; name at least one.")
    if plan.baseline not in plan.methods:
        raise ValueError(
            f"baseline={plan.baseline} is none of the methods; {did_you_mean(plan.baseline, plan.methods)}"
        )
    for name, task in plan.tasks.items():
        _check_task(name, task)
    scoring, tuning = plan.scoring, plan.tuning
    for key, value, least in (
        ("scoring.start_seed", scoring.start_seed, 0),
        ("scoring.batch", scoring.batch, 1),
        ("scoring.most", scoring.most, scoring.batch),
        ("scoring.episodes", scoring.episodes, 2),
        ("scoring.workers", scoring.workers, -1),
        ("tuning.start_seed", tuning.start_seed, 0),
        ("tuning.episodes", tuning.episodes, 1),
        ("surrogates.windows", plan.surrogates.windows, 0),
        ("surrogates.noises", plan.surrogates.noises, 2),
    ):
        if value < least:
            raise ValueError(f"{key}={value} must be at least {least}.")
    if not 0 < scoring.confidence < 1:
        raise ValueError(f"scoring.confidence={scoring.confidence} must lie between 0 and 1.")
    checkpoint_grid(plan.checkpoints.first, plan.checkpoints.last, plan.checkpoints.number)
    for budget in plan.budgets:
        if not 1 <= budget <= plan.checkpoints.last:
            raise ValueError(
                f"budgets has {budget}, which is not between 1 and checkpoints.last={plan.checkpoints.last}."
            )
    if any(steps < 1 for steps in plan.few_steps):
        raise ValueError(f"few_steps={plan.few_steps} must be at least 1 each.")
    for name, values in (
        *(("seeds", plan.seeds), ("tuning.seeds", tuning.seeds)),
        *((f"{name}.{key}", values) for name, grid in _grids(tuning).items() for key, values in grid.items()),
    ):
        if twice := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"{name} has {twice[0]} more than once; name it once.")
    _check_settings("settings", plan.settings)
    for name, settings in plan.methods.items():
        _check_settings(f"methods.{name}", settings, "method")
    for name, grid in _grids(tuning).items():
        _check_settings(name, grid)
    _check_as_long(plan)
    _check_apart(plan)


def _check_task(name: str, task: TaskPlan) -> None:
    if len(task.range) != 2 or task.range[0] >= task.range[1]:
        raise ValueError(f"tasks.{name}.range={task.range} must be the lowest and the highest score, as [0, 1].")
    if not task.targets:
        raise ValueError(f"tasks.{name}.targets is empty; give the scores to reach, as [0.8].")
    low, high = task.range
    for target in task.targets:
        if not low < target < high:
            raise ValueError(
                f"tasks.{name}.targets has {target:g}, which does not lie between the scores {low:g} and {high:g} of "
                f"tasks.{name}.range."
            )
    _check_settings(f"tasks.{name}.settings", task.settings, "task")


def _check_settings(where: str, settings: dict[str, Any], own: str = "") -> None:
    for key in settings:
        if key in OWN and key != own:
            raise ValueError(f"{where} has {key}, which other parts of this file decide; drop it.")


def _grids(tuning: TuningPlan) -> dict[str, dict[str, list[Any]]]:
    """All grids by the place where they stand."""
    return {"tuning.grid": tuning.grid, **{f"tuning.grids.{name}": grid for name, grid in tuning.grids.items()}}


def _check_as_long(plan: Plan) -> None:
    """Every method is tuned with as many trials."""
    for method in plan.tuning.grids:
        if method not in plan.methods:
            raise ValueError(f"tuning.grids has {method}, which is no method; {did_you_mean(method, plan.methods)}")
    trials = {method: math.prod(map(len, plan.tuning.of(method).values())) for method in plan.methods}
    fewest, most = min(trials, key=lambda name: trials[name]), max(trials, key=lambda name: trials[name])
    if trials[fewest] < trials[most]:
        raise ValueError(
            f"{fewest} is tuned with {trials[fewest]} combinations and {most} with {trials[most]}; give all methods as "
            "many, in tuning.grid or tuning.grids."
        )


def _check_apart(plan: Plan) -> None:
    """Tuned settings are chosen on other seeds than they are compared on."""
    tuning, scoring = plan.tuning, plan.scoring
    if not any(_grids(tuning).values()):
        return
    shared = sorted({*tuning.seeds} & {*plan.seeds})
    if shared:
        raise ValueError(f"tuning.seeds and seeds both have {shared[0]}; tune on seeds of its own.")
    if not tuning.seeds or any(not values for grid in _grids(tuning).values() for values in grid.values()):
        raise ValueError("tuning needs a seed, and a value for each key of its grid.")
    most = max(scoring.most, scoring.episodes)
    if tuning.start_seed < scoring.start_seed + most and scoring.start_seed < tuning.start_seed + tuning.episodes:
        raise ValueError(
            f"tuning.start_seed={tuning.start_seed} begins among the {most} episodes from scoring.start_seed="
            f"{scoring.start_seed} that methods are compared on; choose one behind them."
        )
