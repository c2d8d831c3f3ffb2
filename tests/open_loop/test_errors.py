"""Errors of actions, against loops over every number."""

from __future__ import annotations

import numpy as np
import pytest

from policy_accel.open_loop.errors import ActionStatistics, Demonstrated


def test_errors_are_those_of_the_formulas() -> None:
    generator = np.random.default_rng(0)
    actions, predicted = generator.normal(size=(2, 6, 4, 3)) * [1.0, 10.0, 0.1]
    valid = np.arange(4) < np.array([4, 4, 2, 3, 1, 4])[:, None]
    spread = np.array([0.5, 3.0, 7.0])
    found = Demonstrated(actions, valid, 2, spread).errors(predicted)

    def rms(values: list[float]) -> float:
        return (sum(value * value for value in values) / len(values)) ** 0.5

    def off(dimension: int, steps: range) -> list[float]:
        return [predicted[w, s, dimension] - actions[w, s, dimension] for s in steps for w in range(6) if valid[w, s]]

    for i in range(3):
        assert found["rmse"][i] == pytest.approx(rms(off(i, range(2))))
        assert found["mae"][i] == pytest.approx(np.mean(np.abs(off(i, range(2)))))
        assert found["relative"][i] == pytest.approx(found["rmse"][i] / spread[i])
        for s in range(4):
            assert found["rmse_by_step"][s][i] == pytest.approx(rms(off(i, range(s, s + 1))))
    assert found["error"] == pytest.approx(rms(found["relative"]))
    last = [rms(off(i, range(3, 4))) / spread[i] for i in range(3)]
    assert found["error_by_step"][3] == pytest.approx(rms(last))


def test_the_mean_action_is_one_spread_off_what_it_is_of_and_what_never_changes_has_none() -> None:
    actions = np.random.default_rng(0).normal(size=(6, 4, 2))
    actions[..., 1] = 0.3
    unit = ActionStatistics.of(actions[:, :3].reshape(-1, 2), float(np.finfo(np.float32).eps))
    found = Demonstrated(actions, np.ones((6, 4), bool), 3, unit.spread).errors(unit.mean)
    assert found["error"] == pytest.approx(1.0)
    assert found["relative"] == [pytest.approx(1.0), None]
    assert found["rmse"][1] == pytest.approx(0.0)
    nothing = ActionStatistics.of(np.ones((5, 2)), 0.0).spread
    still = Demonstrated(np.ones((6, 4, 2)), np.ones((6, 4), bool), 3, nothing).errors(np.zeros(2))
    assert (still["error"], still["error_by_step"], still["rmse"]) == (None, [None] * 4, [1.0, 1.0])


def test_a_step_that_no_episode_reaches_has_no_error() -> None:
    found = Demonstrated(np.ones((2, 3, 1)) * [[[1.0]], [[2.0]]], np.arange(3) < [[2], [2]], 2, np.ones(1))
    assert found.errors(np.zeros(1))["rmse_by_step"][2] == [None]
