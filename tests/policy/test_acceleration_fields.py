"""Every setting of every acceleration reaches the objective or the optimiser."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.quick import quick_runs

from policy_accel.acceleration.config import GROUPS
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT
from policy_accel.training.optimizer import check_momentum_decay, step_values
from policy_accel.training.randomness import DataOrder

Build = Callable[..., RobotConfig]
Probe = Callable[[RobotConfig], Any]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_runs():
        yield


def drawn(config: RobotConfig) -> Any:
    """What a batch of forty is trained on at the first update, half-way through the run."""
    task = ROBOT.build(config)
    time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    batch = task.batch(torch.arange(40) % task.samples)
    noised = task.objective.draw(batch, time, noise, progress=0.5)
    weight = torch.ones(1) if noised.weight is None else noised.weight
    return [part.double().flatten().tolist() for part in (noised.t, noised.x_t, noised.model_input, weight)]


def rates(config: RobotConfig) -> Any:
    """Learning rate and momentum over a run of 40 updates."""
    check_momentum_decay(config.training.optimizer, 40)
    return [step_values(config.training.optimizer, step, 40) for step in range(40)]


def groups(config: RobotConfig) -> Any:
    return ROBOT.build(config).groups.tolist()


def batches(config: RobotConfig) -> Any:
    task = ROBOT.build(config)
    order = DataOrder(task.samples, 8, 0, torch.device("cpu"), groups=task.groups, run=task.group_run)
    return [order.batch(step).tolist() for step in range(4)]


def started(config: RobotConfig) -> Any:
    """Whether noise is chosen after an evaluation with a score of 0.5."""
    noise = ROBOT.build(config).objective.noise
    noise.observe_score(1, 0.5)
    return noise.chooses(2)


LATE = ["training.evaluate_every=2", "evaluation.episodes=2", "acceleration.noise.start_score=0.4"]
RATIO = ["training.batch_size=40", "acceleration.noise.condition_ratio=0.4"]
WARM = ["training.optimizer.warmup_steps=2"]
# Field of a choice of a group (its own fields only) -> (new value, what looks at it, overrides on both sides).
FIELDS: dict[str, dict[str, tuple[str, Probe, list[str]]]] = {
    "acceleration/noise": {
        "nearest.start_step": ("1", drawn, []),
        "nearest.start_score": ("0.9", started, LATE),
        "nearest.candidates": ("5", drawn, []),
        "nearest.metric": ("dot", drawn, ["acceleration.noise.candidates=5", "acceleration.data_scale=0.2"]),
        "assignment.metric": ("l2", drawn, []),
        "assignment.standardize": ("true", drawn, []),
        "assignment.center": ("ridge", drawn, []),
        "assignment.block_size": ("4", drawn, []),
        "assignment_in_groups.groups": ("5", groups, ["acceleration.noise.groups=3"]),
        "assignment_in_groups.group_run": ("2", batches, ["acceleration.noise.groups=3"]),
        "assignment_by_condition.condition_ratio": ("0.1", drawn, RATIO),
        "assignment_by_condition.standardize": ("true", drawn, RATIO),
        "assignment_by_condition.center": ("ridge", drawn, RATIO),
    },
    "acceleration/path": {
        "truncated.modes": ("2", drawn, []),
        "truncated.marginal": ("raw", drawn, []),
        "truncated.clock": ("variance", drawn, []),
        "shared.times_per_sample": ("3", drawn, []),
        "shared.evaluations": ("2", drawn, []),
        "shared.modes": ("2", drawn, []),
        "shared.marginal": ("vp_equivalent", drawn, []),
        "shared.clock": ("variance", drawn, []),
        "independent.times_per_sample": ("3", drawn, []),
        "independent.evaluations": ("2", drawn, []),
        "fresh.times_per_sample": ("3", lambda config: ROBOT.build(config).objective.repetition.samples_factor, []),
    },
    "acceleration/momentum": {
        "none.cap_warmup": ("10", drawn, ["diffusion.target=epsilon"]),
        "natural.multiplier": ("2.0", drawn, []),
        "sigma.multiplier": ("2.0", drawn, []),
        "released.multiplier": ("2.0", drawn, ["diffusion.family=edm", "diffusion.target=edm"]),
        "schedule.strength": ("2.0", drawn, []),
    },
    "acceleration/timesteps": {
        "uniform.stratified": ("true", drawn, []),
        "uniform.weight": ("min_snr", drawn, []),
        "curriculum.center": ("0.6", drawn, []),
        "curriculum.width": ("0.1", drawn, []),
        "curriculum.start": ("0.25", drawn, []),
        "curriculum.end": ("0.75", drawn, []),
        "curriculum.strength": ("0.5", drawn, []),
        "curriculum.positions": ("index", drawn, []),
        "curriculum.unbiased": ("true", drawn, []),
    },
    "training/optimizer/momentum_decay": {
        "demon.compensate": ("false", rates, [*WARM, "training.optimizer.momentum_decay.compose=multiply"]),
        "demon.compose": ("multiply", rates, WARM),
        "demon.start_step": ("20", rates, WARM),
        "demon.beta_min": ("0.5", rates, WARM),
        "demon.hold_beta": ("true", rates, WARM),
        "demon.exact_bias_correction": ("true", rates, WARM),
        "linear.beta_end": ("0.2", rates, WARM),
        "exponential.rate": ("0.9", rates, WARM),
        "exponential.floor": ("0.7", rates, [*WARM, "training.optimizer.momentum_decay.rate=0.9"]),
    },
}
CASES = [(group, key) for group, fields in FIELDS.items() for key in fields]


def declared(choice: type, field: str) -> tuple[type, str]:
    """The class that declares a field of a choice: choices of a group share some."""
    return next(owner for owner in choice.__mro__ if field in inspect.get_annotations(owner)), field


@pytest.mark.parametrize("group", list(GROUPS))
def test_the_table_names_every_setting(group: str) -> None:
    choices = {choice.name: choice for choice in GROUPS[group]}
    every = {declared(choice, field) for choice in choices.values() for field in choice.__dataclass_fields__}
    tested = {declared(choices[name], field) for name, field in (key.split(".") for key in FIELDS[group])}
    assert {pair for pair in every if pair[1] != "name"} == tested


@pytest.mark.parametrize("group", list(GROUPS))
def test_every_choice_changes_what_is_trained_on(group: str, tiny_config: Build) -> None:
    look = rates if "momentum_decay" in group else drawn
    same = {"released": ["diffusion.family=edm", "diffusion.target=edm"], "assignment_by_condition": RATIO[:1]}
    for choice in GROUPS[group][1:]:
        if choice.name in ("assignment_in_groups", "fresh", "loss_second_moment"):
            continue  # what they change is not in the draw of one batch: see the table, and test_feed
        fitting = [*WARM, *same.get(choice.name, [])]
        own = RATIO if choice.name == "assignment_by_condition" else []
        assert look(tiny_config(*fitting, f"{group}={choice.name}", *own)) != look(tiny_config(*fitting)), choice.name


@pytest.mark.parametrize(("group", "key"), CASES)
def test_a_setting_changes_what_it_configures(group: str, key: str, tiny_config: Build) -> None:
    value, look, overrides = FIELDS[group][key]
    choice, field = key.split(".")
    same = [f"{group}={choice}", *overrides]
    changed = f"{group.replace('/', '.')}.{field}={value}"
    assert look(tiny_config(*same)) != look(tiny_config(*same, changed))
