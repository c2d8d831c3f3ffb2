"""benchmarks/ranks.py at toy size, and its sums."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from support.methods import MLP, ROBOT_COMMON
from support.rank_work import benchmarked
from support.two_ranks import TwoRanks

from policy_accel.training.ranks import ALONE

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ranks.py"
TINY = [*ROBOT_COMMON, *MLP, "training.device=cpu", "training.threads=1"]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_two_processes_make_the_updates_of_one(two: TwoRanks) -> None:
    """The same loss after the same updates, which they share, and time passes meanwhile."""
    alone = benchmarked(ALONE, SCRIPT, TINY, 2, 1)
    assert alone[3] == [1, 1, 1]
    for found in two(benchmarked, SCRIPT, TINY, 2, 1):
        assert found[2] == pytest.approx(alone[2], rel=1e-5)
        assert found[3] == [2, 2, 2]
        assert min(found[:2]) > 0


def test_the_slowest_of_several_counts_and_all_of_them_work(script: dict[str, Any]) -> None:
    measured = script["Measured"]
    assert script["together"]([measured(2.0, 1.0, 0.5), measured(3.0, 0.5, 0.5)]) == measured(3.0, 1.5, 0.5)


def test_scaling_by_hand(script: dict[str, Any]) -> None:
    """Ten samples take a second alone; two processes need 0.625 for them, 1.25 for twice as many."""
    measured = script["Measured"]
    rounds = {
        script["ONE"]: [measured(1.0, 1.0, 0.5), measured(2.0, 1.0, 0.5)],
        script["STRONG"]: [measured(0.625, 1.2, 0.5), measured(1.0, 1.2, 0.5)],
        script["WEAK"]: [measured(1.25, 2.2, 0.5), measured(2.5, 2.2, 0.5)],
        script["THREADS"]: [measured(0.8, 1.5, 0.5), measured(2.0, 1.5, 0.5)],
    }
    found = script["summary"](rounds, 10)
    assert found["strong_scaling"] == {"median": 1.8, "min": 1.6, "max": 2.0, "cpu_seconds": 1.2}
    assert found["weak_scaling"] == {"median": 1.6, "min": 1.6, "max": 1.6, "cpu_seconds": 1.1}
    assert found["two_threads"] == {"median": 1.125, "min": 1.0, "max": 1.25, "cpu_seconds": 1.5}
    assert found["two_processes_over_two_threads"]["median"] == pytest.approx((0.8 / 0.625 + 2.0) / 2)
    weak = found["sides"][script["WEAK"]]
    assert (weak["processes"], weak["threads"], weak["batch_size"]) == (2, 1, 20)
    assert (weak["updates_per_second"], weak["samples_per_second"]) == (0.6, 12.0)
    assert weak["cpu_seconds_per_update"] == 2.2
