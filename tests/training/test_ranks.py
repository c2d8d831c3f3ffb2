"""Two processes that train one run, against one process that trains it alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.rank_work import facts, fails_on, loses_the_other
from support.two_ranks import TwoRanks, two_ranks

from policy_accel.training.ranks import ALONE


@pytest.fixture(scope="module")
def two() -> Iterator[TwoRanks]:
    with two_ranks() as ranks:
        yield ranks


def test_what_ranks_tell_one_another(two: TwoRanks) -> None:
    first, second = two(facts)
    assert first == {
        "first": True,
        "own": [slice(0, 4), slice(0, 1)],
        "sum": [3.0, 20.0],
        "gathered": [[0, 7], [1, 7]],
        "any": [False, True],
        "collected": ["of 0", "of 1"],
        "shared": "of 0",
        "spread": ["a0", "b1", "c0"],
    }
    assert second == {**first, "first": False, "own": [slice(4, 8), slice(1, 2)], "spread": []}


def test_alone_everything_stays() -> None:
    found = facts(ALONE)
    assert found["own"] == [slice(0, 8), slice(0, 2)]
    assert found["sum"] == [1.0, 10.0]
    assert found["gathered"] == [[0, 7]]
    assert found["any"] == [False, False]
    assert found["collected"] == ["of 0"]
    assert found["shared"] == "of 0"
    assert found["spread"] == ["a0", "b0", "c0"]


def test_what_goes_wrong_on_one_rank_is_said_by_all(two: TwoRanks) -> None:
    assert two(fails_on, 1) == ["no room on 1. ", "no room on 1. The other says it."]
    assert two(fails_on, 0) == ["no room on 0. ", "no room on 0. The other says it."]
    assert two(fails_on, 2) == ["went well: 0", "went well: 1"]


def test_a_rank_that_ended_is_noticed() -> None:
    with two_ranks() as ranks:
        assert ranks.first_of(loses_the_other).startswith("another process of this run has ended")
