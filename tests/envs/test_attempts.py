from __future__ import annotations

import os

import pytest

from policy_accel.envs.attempts import start_seed, successful_episodes
from policy_accel.errors import UserError


def test_failed_attempts_are_left_out_and_the_order_stays():
    tried, told = [], []

    def attempt(index):
        tried.append(index)
        return None if index % 3 == 0 else str(index)

    made = successful_episodes(attempt, 3, 0, workers=0, progress=lambda *counts: told.append(counts))
    assert made == ["1", "2", "4"]
    assert tried == [0, 1, 2, 3, 4]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_workers_give_the_same():
    assert successful_episodes(abs, 20, 0, workers=2) == list(range(20))


def test_a_worker_that_dies_is_one_sentence():
    with pytest.raises(UserError, match="a process of the expert died"):
        successful_episodes(os._exit, 3, 0, workers=2)


def test_seeds_are_those_of_no_evaluation():
    seeds = {start_seed(seed, index) for seed in range(20) for index in range(50)}
    assert 2**31 <= min(seeds) <= max(seeds) < 2**32
    assert len(seeds) == 1000
