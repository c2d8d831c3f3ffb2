from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policy_accel.benchmark import rollouts as module
from policy_accel.benchmark.report import rollouts_table
from policy_accel.benchmark.rollouts import benchmark_rollouts
from policy_accel.errors import UserError


def measured(run: Path, **asked: object) -> dict:
    options = {"episodes": 2, "sequential": 1, "workers": 0, "device_name": "cpu", "report": lambda line: None}
    return benchmark_rollouts(run, **{**options, **asked})


def test_both_ways_play_the_same_episodes(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = iter([{"episodes_per_second": 2.0, "cpu_seconds": 1.0}, {"episodes_per_second": 0.5, "cpu_seconds": 3.0}])
    played = []

    def cost(work: Callable[[], None], episodes: int, then: Callable[[], None] = lambda: None) -> dict:
        work()
        then()
        played.append(episodes)
        return next(costs)

    monkeypatch.setattr(module, "_cost", cost)
    result = measured(trained)
    assert played == [2, 1]
    assert result["vectorised"] == {"episodes": 2, "episodes_per_second": 2.0, "cpu_seconds": 1.0}
    assert result["sequential"] == {"episodes": 1, "episodes_per_second": 0.5, "cpu_seconds": 3.0}
    assert result["times_the_sequential_loop"] == 4.0
    assert result["times_the_sequential_loop_in_cpu_seconds"] == 3.0
    assert result["largest_score_difference"] < 1e-3
    assert result["slots"] == 2
    assert result["network_evaluations"] == 2
    assert "times the loop" in rollouts_table(result)


def test_cpu_seconds_of_processes_count_when_they_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, used = iter([1.0, 3.0]), [5.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(module, "cpu_seconds", lambda: sum(used))
    found = module._cost(lambda: used.append(4.0), 8, then=lambda: used.append(12.0))
    assert found == {"episodes_per_second": 4.0, "cpu_seconds": 2.0}


def test_more_one_after_the_other_than_at_once(trained: Path) -> None:
    with pytest.raises(UserError, match="--sequential 4 must be at least 1 and at most --episodes 2"):
        measured(trained, sequential=4)
