"""The file of a plan: what it may say, and one sentence for what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from policy_accel.errors import UserError
from policy_accel.time_to_score.arms import compared_arms, trials, tuning_arms
from policy_accel.time_to_score.plan import read_plan

LEAST: dict[str, Any] = {"tasks": {"two_modes": {"targets": [0.8]}}, "methods": ["baseline", "kl"]}


def written(tmp_path: Path, values: Any) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
    return path


def test_what_a_short_file_means(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, LEAST))
    assert plan.baseline == "baseline"
    assert plan.folder == "runs/time_to_score/mine"
    assert plan.methods == {"baseline": {}, "kl": {}}
    assert len(plan.grid) == 8
    assert (plan.grid[0], plan.grid[-1]) == (100, 2000)
    assert plan.alpha() == pytest.approx(0.05 / 8)
    assert tuning_arms(plan) == []
    assert [arm.name for arm in compared_arms(plan, {})][:2] == ["two_modes-baseline-seed1", "two_modes-baseline-seed2"]


def test_budgets_are_checkpoints(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, LEAST | {"budgets": [150, 2000], "checkpoints": {"number": 2}}))
    assert plan.grid == [100, 150, 2000]


def test_every_method_gets_the_whole_grid(tmp_path: Path) -> None:
    grid = {"training.optimizer.lr": [0.001, 0.003], "training.batch_size": [64, 128]}
    plan = read_plan(written(tmp_path, LEAST | {"tuning": {"grid": grid, "seeds": [7, 8]}}))
    assert len(trials(plan, "kl")) == 4
    arms = tuning_arms(plan)
    assert len(arms) == len({arm.name for arm in arms}) == 2 * 4 * 2
    for method in plan.methods:
        tried = [arm.tried for arm in arms if arm.method == method and arm.seed == 7]
        assert tried == trials(plan, method)
    chosen = {("two_modes", "kl"): trials(plan, "kl")[2]}
    compared = {(arm.method, arm.seed): arm.tried for arm in compared_arms(plan, chosen)}
    assert compared["kl", 1] == {"training.optimizer.lr": 0.003, "training.batch_size": 64}
    assert compared["baseline", 1] == {}


def test_a_method_may_have_a_grid_of_its_own(tmp_path: Path) -> None:
    shared, own = {"training.optimizer.lr": [0.001, 0.003]}, {"training.optimizer.matrix_lr": [0.004, 0.008]}
    muon = {"muon": {"method": "baseline", "training/optimizer": "muon"}}
    values = LEAST | {"methods": {"baseline": None} | muon, "tuning": {"grid": shared, "grids": {"muon": own}}}
    plan = read_plan(written(tmp_path, values))
    assert [arm.tried for arm in tuning_arms(plan)] == [
        {"training.optimizer.lr": 0.001},
        {"training.optimizer.lr": 0.003},
        {"training.optimizer.matrix_lr": 0.004},
        {"training.optimizer.matrix_lr": 0.008},
    ]
    assert [arm.name for arm in tuning_arms(plan)][1::2] == [
        "two_modes-baseline-lr0.003-seed1001",
        "two_modes-muon-matrix_lr0.008-seed1001",
    ]


def task(**changed: Any) -> dict[str, Any]:
    return {"tasks": {"two_modes": {"targets": [0.8]} | changed}}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (LEAST | {"method": ["kl"]}, "no use for the key 'method'; did you mean 'methods'"),
        (LEAST | {"scoring": {"confidance": 0.9}}, "the key 'scoring.confidance'; did you mean 'confidence'"),
        (LEAST | task(target=[1]), "the key 'tasks.two_modes.target'; did you mean 'targets'"),
        (LEAST | {"tasks": {}}, "tasks is empty; name at least one"),
        ({"methods": ["kl"]}, "tasks is empty"),
        ({"tasks": LEAST["tasks"]}, "methods is empty"),
        (LEAST | {"seeds": []}, "seeds is empty"),
        (LEAST | {"seeds": [1, 2, 1]}, "seeds has 1 more than once; name it once"),
        (
            LEAST | {"tuning": {"grid": {"x": [1]}, "grids": {"kl": {"x": [1, 2]}}}},
            "baseline is tuned with 1 combinations and kl with 2; give all methods as many",
        ),
        (
            LEAST | {"tuning": {"grids": {"kll": {"x": [1]}}}},
            "tuning.grids has kll, which is no method; did you mean 'kl'",
        ),
        (LEAST | {"tuning": {"grids": {"kl": {"seed": [1]}}}}, "tuning.grids.kl has seed, which other parts"),
        (LEAST | {"tuning": {"seeds": [7, 7]}}, "tuning.seeds has 7 more than once"),
        (LEAST | {"tuning": {"grid": {"x": [0.1, 0.1]}}}, "tuning.grid.x has 0.1 more than once"),
        (LEAST | {"methods": ["kl", "kl"]}, "methods has kl 2 times"),
        (LEAST | {"baseline": "basline"}, "baseline=basline is none of the methods; did you mean 'baseline'"),
        (LEAST | task(targets=[]), "tasks.two_modes.targets is empty"),
        (LEAST | task(targets=[1.2]), "targets has 1.2, which does not lie between the scores 0 and 1"),
        (LEAST | task(targets=[0]), "targets has 0, which does not lie between"),
        (LEAST | task(range=[1, 0]), "range=.* must be the lowest and the highest score"),
        (LEAST | {"checkpoints": {"first": 0}}, "checkpoints.first=0 must lie between 1 and"),
        (
            LEAST | {"checkpoints": {"first": 9000}},
            "checkpoints.first=9000 must lie between 1 and checkpoints.last=2000",
        ),
        (LEAST | {"checkpoints": {"number": 1}}, "checkpoints.number=1 must be at least 2"),
        (LEAST | {"checkpoints": {"first": "soon"}}, "checkpoints.first: Value 'soon'"),
        (LEAST | {"checkpoints": 3}, "checkpoints is 3; give it keys and values"),
        (LEAST | {"tasks": {"two_modes": None}}, "tasks.two_modes is None; give it keys and values"),
        (LEAST | {"tasks": ["two_modes"]}, "tasks is .* give the name of each task"),
        (LEAST | {"budgets": [2001]}, "budgets has 2001, which is not between 1 and checkpoints.last=2000"),
        (LEAST | {"few_steps": [0]}, "few_steps=.* must be at least 1 each"),
        (LEAST | {"scoring": {"batch": 0}}, "scoring.batch=0 must be at least 1"),
        (LEAST | {"scoring": {"most": 10}}, "scoring.most=10 must be at least 50"),
        (LEAST | {"scoring": {"confidence": 1}}, "scoring.confidence=1.0 must lie between 0 and 1"),
        (LEAST | {"surrogates": {"noises": 1}}, "surrogates.noises=1 must be at least 2"),
        (LEAST | {"settings": {"seed": 4}}, "settings has seed, which other parts of this file decide"),
        (LEAST | task(settings={"training.steps": 4}), "tasks.two_modes.settings has training.steps"),
        (LEAST | {"tuning": {"grid": {"method": ["kl"]}}}, "tuning.grid has method"),
        (LEAST | {"tuning": {"grid": {"training.batch_size": []}}}, "a value for each key of its grid"),
        (LEAST | {"tuning": {"grid": {"x": [1]}, "seeds": [2]}}, "tuning.seeds and seeds both have 2"),
        (
            LEAST | {"tuning": {"grid": {"x": [1]}, "start_seed": 100_500}},
            "tuning.start_seed=100500 begins among the 1000 episodes from scoring.start_seed=100000",
        ),
        ("- a\n- b\n", "holds no settings"),
        ("a: [", "is not a readable YAML file"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, values: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as raised:
        read_plan(written(tmp_path, values))
    assert "\n" not in str(raised.value)
    assert "mine.yaml" in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_plan(tmp_path / "none.yaml")
