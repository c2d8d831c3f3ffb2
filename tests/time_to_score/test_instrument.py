"""The measurement from a plan to a result, and what happens to it when it is stopped half-way."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from policy_accel.errors import UserError
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.track import ROBOT
from policy_accel.run_files import read_metrics
from policy_accel.time_to_score.confidence import decide
from policy_accel.time_to_score.instrument import check_plan, measure
from policy_accel.time_to_score.plan import Plan
from policy_accel.time_to_score.table import text

from .conftest import TINY

Build = Callable[..., Plan]


def rows(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "measured" / "scores.jsonl").read_text().splitlines()]


def played(place: Path) -> Counter[tuple[Any, ...]]:
    """How often each episode of each checkpoint was played."""
    return Counter(
        (row["run"], row["step"], row["sampling_steps"], episode["seed"])
        for row in rows(place)
        for episode in row.get("episodes", ())
    )


FLOPS = 6 * (64 * 128 + 128 * 64 + 98 * 32 + 32 * 32) - 2 * 64 * 128
"""Of one row: two for each weight forward and four back, but for that of the time's embedding."""


def quiet(line: str) -> None:
    """Nobody reads it."""


def without_seconds(result: Any) -> Any:
    """A result but for what is measured with a clock."""
    if isinstance(result, dict):
        return {key: without_seconds(value) for key, value in result.items() if "seconds" not in key}
    return [without_seconds(value) for value in result] if isinstance(result, list) else result


Result = tuple[dict[str, Any], Path]


def test_the_figures_are_those_of_the_runs(measured: Result) -> None:
    result, place = measured
    assert [run["run"] for run in result["runs"]][::2] == ["two_modes-baseline-seed1", "two_modes-kl-seed1"]
    assert result["checkpoints"] == [2, 11, 60]
    assert result["confidence_of_a_checkpoint"] == pytest.approx(1 - 0.2 / 3)
    played_once = played(place)
    assert set(played_once.values()) == {1}
    for run in result["runs"]:
        run_dir = place / "measured" / "runs" / run["run"]
        times = 4 if run["method"] == "kl" else 1
        own = {e["seed"]: e["score"] for r in rows(place) if r["run"] == run["run"] and r["step"] == 60
               and r.get("sampling_steps", 0) is None for e in r["episodes"]}  # fmt: skip
        last = run["checkpoints"][-1]
        first = [own[100_000 + i] for i in range(last["episodes"])]
        assert last["score"] == pytest.approx(np.mean(first))
        for target, decision in last["decisions"].items():
            assert decision == decide(first, float(target), 0.2 / 3)
        assert last["interval"][0] < last["score"] < last["interval"][1]
        for found in run["targets"].values():
            if found["costs"] is None:
                assert found["status"] in ("not reached", "undecided")
                continue
            step = found["costs"]["updates"]
            (row,) = [r for r in read_metrics(run_dir / "metrics.jsonl") if r["step"] == step and "loss" in r]
            assert found["costs"] == {
                "updates": step,
                "samples": 32 * step,
                "network_evaluations": 32 * step * times,
                "seconds": row["training_seconds"],
                "flops": pytest.approx(step * times * 32 * FLOPS),
            }
    assert {run["targets"]["0.2"]["status"] for run in result["runs"]} == {"reached"}, "or nothing was tested"


def test_scores_are_those_of_the_evaluator(measured: Result) -> None:
    """The same as `policy-accel evaluate` of the checkpoint, all episodes at once, and of the few steps."""
    result, place = measured
    run_dir = place / "measured" / "runs" / "two_modes-kl-seed2"
    loaded = ROBOT.load(run_dir, "60")
    for steps in (None, 1):
        config = loaded.config
        config.evaluation = dataclasses.replace(config.evaluation, episodes=30, videos=0, workers=0)
        config.sampling = dataclasses.replace(config.sampling, steps=steps or config.sampling.steps)
        expected = PolicyEvaluator(config, loaded.policy, place)(loaded.policy, quiet)
        own = {
            episode["seed"]: episode
            for row in rows(place)
            if (row["run"], row["step"], row.get("sampling_steps", 0)) == (run_dir.name, 60, steps)
            for episode in row["episodes"]
        }
        for episode in expected["episodes"]:
            assert own[episode["seed"]]["score"] == pytest.approx(episode["score"], abs=1e-5)
        task = result["tasks"]["two_modes"]
        part = task["budgets"]["60"]["kl"] if steps is None else task["few_steps"]["1"]["kl"]
        assert part["runs"][1] == pytest.approx(expected["score"], abs=1e-5)
        assert steps is None or part["network_evaluations"] == 1


def test_the_methods_are_summed_up(measured: Result) -> None:
    result, _ = measured
    task = result["tasks"]["two_modes"]
    runs = {(run["method"], run["seed"]): run for run in result["runs"]}
    kl, baseline = (
        [runs[method, seed]["targets"]["0.2"]["costs"]["network_evaluations"] for seed in (1, 2)]
        for method in ("kl", "baseline")
    )
    found = task["targets"]["0.2"]["kl"]["costs"]["network_evaluations"]
    assert found["median"] == np.median(kl)
    assert found["mean"] == pytest.approx(np.sqrt(kl[0] * kl[1]))
    assert found["ratio"] == pytest.approx(np.sqrt(kl[0] / baseline[0] * kl[1] / baseline[1]))
    assert "ratio" not in task["targets"]["0.2"]["baseline"]["costs"]["network_evaluations"]
    budget = task["budgets"]["60"]
    assert budget["kl"]["difference"] == pytest.approx(budget["kl"]["score"] - budget["baseline"]["score"])
    assert budget["kl"]["p_holm"] == budget["kl"]["p"], "one comparison"
    surrogates = task["surrogates"]
    assert set(surrogates) == {"action_error_1", "action_error_8", "energy_score", "energy_distance"}
    assert surrogates["energy_score"]["within"]["pairs"] <= 4 * 3
    shown = text(result)
    assert f"{found['ratio']:.2f}" in shown
    assert "2 reached" in shown
    assert f"{budget['kl']['difference']:+.3f}" in shown
    assert "energy_score: not to be trusted to rank methods" in shown
    assert "Nothing was tuned" in shown
    assert "up to a factor of 5.50 apart" in shown


def test_an_interrupted_measurement_goes_on(plan: Build, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped twice while it scores, once with a line half written: nothing is played twice, and all is as if it had
    not been stopped."""
    undisturbed = measure(plan(folder="other", seeds=[1]), None, quiet)
    play, calls = PolicyEvaluator.__call__, iter(range(100))

    def stopped(self: PolicyEvaluator, *given: Any) -> dict[str, Any]:
        if next(calls) in (3, 7):
            raise KeyboardInterrupt
        return play(self, *given)

    monkeypatch.setattr(PolicyEvaluator, "__call__", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            measure(plan(seeds=[1]), None, quiet)
        with open(place / "measured" / "scores.jsonl", "a") as file:
            file.write('{"run": "two_modes-ba')
    result = measure(plan(seeds=[1]), None, quiet)
    assert set(played(place).values()) == {1}
    for found in (result, undisturbed):
        found["plan"].pop("folder")
    assert without_seconds(result) == without_seconds(undisturbed)
    before = next(calls)
    assert without_seconds(measure(plan(seeds=[1]), None, quiet)["runs"]) == without_seconds(result["runs"])
    assert next(calls) == before + 1, "there was nothing to play"


def test_tuning_takes_what_scores_best_and_is_the_same_for_all(plan: Build, place: Path) -> None:
    grid = {"training.optimizer.lr": [1e-6, 0.01]}
    tuning = {"grid": grid, "seeds": [7], "episodes": 20}
    result = measure(plan(seeds=[1], tuning=tuning, surrogates={"windows": 0}, few_steps=[], budgets=[]), None, quiet)
    for method, found in result["tuning"]["two_modes"].items():
        assert [trial["settings"] for trial in found["trials"]] == [
            {"training.optimizer.lr": lr} for lr in (1e-6, 0.01)
        ]
        scores = [np.mean(trial["scores"]) for trial in found["trials"]]
        assert scores[1] > scores[0]
        assert found["chosen"] == {"training.optimizer.lr": 0.01}
        config = yaml.safe_load((place / f"measured/runs/two_modes-{method}-seed1/config.yaml").read_text())
        assert config["training"]["optimizer"]["lr"] == 0.01
        assert config["evaluation"]["episodes"] == 0, "runs are not scored while they train"
    seeds = {episode["seed"] for row in rows(place) if "-seed7" in row["run"] for episode in row["episodes"]}
    assert seeds == set(range(500_000, 500_020))


def test_scores_of_other_weights_are_not_taken_for_these(plan: Build, place: Path) -> None:
    given = plan(seeds=[1], methods=["baseline"])
    measure(given, None, quiet)
    state = place / "measured/runs/two_modes-baseline-seed1/checkpoints/00000060/state.json"
    values = json.loads(state.read_text())
    values["files"]["ema.safetensors"] = "0" * 64
    state.write_text(json.dumps(values))
    with pytest.raises(UserError, match="scores of another checkpoint 60 of run two_modes-baseline-seed1"):
        measure(given, None, quiet)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"settings": {"training.optimizer.rl": 1}}, "run two_modes-baseline-seed1: .*no key 'training.optimizer.rl'"),
        ({"methods": ["baseline", "klm"]}, "method=klm is unknown; did you mean 'kl'"),
        ({"tasks": {"two_modes": {"targets": [0.5], "settings": {"task.data": "none.npz", "model": "mlp"}}}},
         "task.data=none.npz"),
        ({"tasks": {"mnist": {"targets": [0.5]}}, "settings": {}}, "mnist"),
        (
            {"tasks": {"custom": {"targets": [0.5], "settings": {"task.data": "toy.npz", "task.action": "action",
                                                                 "model": "mlp",
                                                                 "task.observation": ["observation"]}}}},
            "task 'custom' is not scored in episodes",
        ),
        ({"settings": {"task.val_ratio": 0}, "tasks": {"two_modes": {"targets": [0.5], "settings": {
            "task.data": "toy.npz"}}}}, "task.val_ratio=0 holds none out"),
        ({"few_steps": [1, 101]}, "run two_modes-baseline-seed1 could not be scored with 101 steps of the sampler "
         r"\(sampling.steps=101 must lie between 1 and diffusion.timesteps=100\); choose other few_steps"),
        ({"few_steps": [1], "settings": {**TINY["settings"], "diffusion.timesteps": 4, "sampling.steps": 4}},
         r"could not be scored with 8 steps .* set surrogates\.windows to 0"),
        ({"launcher": "locale"}, "launcher 'locale' is unknown; did you mean 'local'"),
        ({"launcher_settings": {"slts": 2}}, "no setting 'launcher.slts'"),
        ({"methods": {"a b": {"method": "kl"}, "a_b": {"method": "kl"}}}, "two runs of the plan would have one name"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_before_anything_starts(
    plan: Build, place: Path, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as raised:
        check_plan(plan(**changed), None)
    assert "\n" not in str(raised.value)
    assert not (place / "measured").exists()


def test_without_surrogates_no_demonstration_is_held_out(plan: Build) -> None:
    given = plan(surrogates={"windows": 0})
    given.tasks["two_modes"].settings["task.val_ratio"] = 0
    assert len(check_plan(given, None)) == 4


def test_a_score_outside_of_the_range_names_its_task(plan: Build) -> None:
    tasks = {"two_modes": {"targets": [0.002], "range": [0, 0.01], "settings": {
        "recipe": "two_modes", "task.data": "toy.npz", "task.val_ratio": 0.2}}}  # fmt: skip
    with pytest.raises(UserError, match=r"tasks\.two_modes: an episode's score is .* outside of range=\[0\.0, 0\.01\]"):
        measure(plan(tasks=tasks, seeds=[1], methods=["baseline"]), None, quiet)


def test_one_process_measures_in_a_folder(plan: Build, place: Path) -> None:
    from policy_accel.time_to_score.instrument import _locked

    with _locked(place / "measured"), pytest.raises(UserError, match="Another process measures in"):
        measure(plan(), None, quiet)
