"""The search against brute force, on made-up scores."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from policy_accel.tuning.grid_search import Candidate, GridSearch, standard_error

LADDER = tuple(range(99, -1, -9))  # 12 times
WANTED = (99, 60, 33, 8)


class Score:
    """Each window wants a step near each of WANTED; what was asked for is noted."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[float, ...]]] = []

    def __call__(self, sampler: str, times: tuple[float, ...]) -> Tensor:
        self.asked.append((sampler, times))
        penalty = {"ddim": 0.0, "dpm_solver++": 30.0, "ddpm": -30.0}[sampler]
        error = sum(min((time - wanted) ** 2 for time in times) for wanted in WANTED)
        return torch.tensor([error - 1.0, error + 1.0]).double() + penalty


@pytest.mark.parametrize(("number", "place"), [(1, 0), (2, 0), (3, 2), (4, 0), (5, 0)])
def test_the_best_grid_of_all_is_found_or_nearly(number: int, place: int) -> None:
    """One time after the other is moved, so that it can end at a grid (the third of 55) that only two moves improve."""
    score = Score()
    (best, *rest) = GridSearch(score, LADDER, "ddim").run([number])[number]
    every = [(99, *below) for below in itertools.combinations(LADDER[1:], number - 1)]
    assert best.score == sorted(float(Score()("ddim", times).mean()) for times in every)[place]
    assert best.times in every
    assert [one.score for one in rest] == sorted(one.score for one in rest)
    assert len(score.asked) == len(set(score.asked)), "nothing is scored twice"
    assert all(list(times) == sorted(set(times), reverse=True) for _, times in score.asked), "they fall"
    assert len(score.asked) < 40 * number


def test_a_time_is_moved_when_another_has_come() -> None:
    """The best two times are not part of the best three: 99 and 45 or 54, and 99, 63 and 18 or so."""
    found = GridSearch(Score(), LADDER, "ddim").run([2, 3])
    assert not {*found[2][0].times} <= {*found[3][0].times}


def test_other_samplers_are_tried_where_they_differ() -> None:
    found = GridSearch(Score(), LADDER, "ddim", ("dpm_solver++", "ddpm")).run([1, 2, 3])
    kinds = {number: [one.sampler for one in candidates] for number, candidates in found.items()}
    assert set(kinds[1]) == {"ddim"}
    assert kinds[2].count("ddpm") == 1
    assert "dpm_solver++" not in kinds[2], "its first and last steps are those of ddim"
    assert kinds[3].count("dpm_solver++") == 1
    two = next(one for one in found[2] if one.sampler == "ddim").times
    restarts = {one.times for one in found[3] if one.sampler == "ddpm" and one.times[2] >= one.times[1]}
    assert restarts == {(*two, time) for time in LADDER[1:] if time >= two[1]}
    assert found[2][0].sampler == "ddpm", "the best one comes first, whatever its sampler"


def test_few_are_not_neighbours() -> None:
    search = GridSearch(Score(), LADDER, "ddim")

    def one(*times: float, sampler: str = "ddim") -> Candidate:
        return Candidate(sampler, times, torch.zeros(2))

    near, far, other = one(99, 36), one(99, 27), one(99, 45, sampler="ddpm")
    kept = search.few([one(99, 45), near, far, other], 9)
    assert [(candidate.sampler, candidate.times) for candidate in kept] == [
        ("ddim", (99, 45)),
        ("ddim", (99, 27)),
        ("ddpm", (99, 45)),
    ]
    assert len(search.few([one(99, 45), near, far, other], 2)) == 2


def test_the_standard_error_is_that_of_blocks() -> None:
    values = torch.arange(32.0).double().square()
    means = values.reshape(16, 2).mean(1)
    assert standard_error(values) == pytest.approx(float(means.std()) / 4)
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(64, generator=generator).double()
    alike = steps.repeat_interleave(16)  # 1,024 windows, of which 16 neighbours are equal
    assert standard_error(alike) == pytest.approx(float(steps.std()) / 8, rel=0.3)
    assert standard_error(alike) > 2 * float(alike.std()) / math.sqrt(1024)
    assert math.isnan(standard_error(torch.ones(1)))
