"""Which targets are reached where: with scores that are made up, so that the truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from policy_accel.time_to_score.checkpoints import checkpoint_grid
from policy_accel.time_to_score.search import Look, Reached, Rule, reached, search


def rule(*targets: float, **changed: object) -> Rule:
    given = {"range": (0.0, 1.0), "batch": 20, "most": 400, "alpha": 0.01} | changed
    return Rule(targets, **given)  # type: ignore[arg-type]


def constant(means: dict[int, float]) -> tuple[Callable[[int, int], np.ndarray], list[tuple[int, int]]]:
    """Scores that alternate about a mean, and what was asked for."""
    asked: list[tuple[int, int]] = []

    def scores_of(step: int, count: int) -> np.ndarray:
        asked.append((step, count))
        return means[step] + 0.05 * (-1.0) ** np.arange(count)

    return scores_of, asked


def test_each_target_is_reached_where_its_score_first_is() -> None:
    scores_of, asked = constant({10: 0.2, 20: 0.55, 40: 0.8, 80: 0.9})
    looks = search([10, 20, 40, 80], rule(0.4, 0.7), scores_of)
    assert [look.step for look in looks] == [10, 20, 40], "nothing hangs on the last one"
    assert reached(0.4, looks) == Reached("reached", 20)
    assert reached(0.7, looks) == Reached("reached", 40)
    assert looks[1].decisions == {0.4: "passed", 0.7: "failed"}
    assert looks[2].decisions == {0.7: "passed"}
    assert all(look.interval[0] < look.mean < look.interval[1] for look in looks)
    assert max(count for _, count in asked) < 200, "these are easily told apart"


def test_a_score_that_falls_again_was_reached_all_the_same() -> None:
    scores_of, _ = constant({10: 0.9, 20: 0.1})
    assert reached(0.5, search([10, 20], rule(0.5), scores_of)) == Reached("reached", 10)


def test_episodes_are_played_until_it_is_sure_and_no_longer() -> None:
    near, far = constant({1: 0.62}), constant({1: 0.9})
    (close,), (clear,) = (search([1], rule(0.5), scores) for scores, _ in (near, far))
    assert close.decisions == clear.decisions == {0.5: "passed"}
    assert close.episodes > clear.episodes
    assert [count for _, count in near[1]] == list(range(20, close.episodes + 1, 20)), "in batches"
    from policy_accel.time_to_score.confidence import decide

    before = near[0](1, close.episodes - 20)
    assert decide(before, 0.5, 0.01) == "undecided"


def test_what_cannot_be_told_is_undecided() -> None:
    scores_of, asked = constant({10: 0.5, 20: 0.9, 40: 0.1})
    looks = search([10], rule(0.5, most=90), scores_of)
    assert asked[-1] == (10, 90), "the last batch is what is left"
    assert reached(0.5, looks) == Reached("undecided", None)
    assert reached(0.5, search([10, 20], rule(0.5), scores_of)) == Reached("reached by", 20)
    assert reached(0.5, search([10, 40], rule(0.5), scores_of)) == Reached("undecided", None)
    assert reached(0.5, search([40], rule(0.5), scores_of)) == Reached("not reached", None)


def test_everywhere_gives_each_checkpoint_a_batch() -> None:
    scores_of, asked = constant({10: 0.9, 20: 0.8, 40: 0.7})
    looks = search([10, 20, 40], rule(0.5, everywhere=True), scores_of)
    assert [look.decisions for look in looks] == [{0.5: "passed"}, {}, {}]
    assert [(step, count) for step, count in asked if step > 10] == [(20, 20), (40, 20)]
    assert reached(0.5, looks) == Reached("reached", 10)


def test_other_ranges_are_scaled() -> None:
    scores_of, _ = constant({1: 0.8})
    wide = search([1], rule(40.0, range=(-100.0, 100.0)), lambda step, count: 200 * scores_of(step, count) - 100)
    (unit,) = search([1], rule(0.7), scores_of)
    (look,) = wide
    assert look.decisions == {40.0: "passed"}
    assert look.episodes == unit.episodes
    assert look.mean == pytest.approx(60)
    assert look.interval == pytest.approx(tuple(200 * end - 100 for end in unit.interval))


def test_a_score_outside_of_the_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"score is 1\.3, outside of range=\[0\.0, 1\.0\]"):
        search([1], rule(0.5), lambda step, count: np.full(count, 1.3))


def test_decisions_of_a_whole_run_are_right_as_often_as_stated() -> None:
    """Policies whose mean is the target at every checkpoint, which share an error of 0.2: any decision is wrong."""
    generator, wrong = np.random.default_rng(2), 0
    for _ in range(80):
        draws = {step: (generator.random(300) < 0.5).astype(float) for step in range(4)}
        looks = search(range(4), rule(0.5, batch=20, most=300, alpha=0.2 / 4), lambda step, n, d=draws: d[step][:n])
        wrong += any(set(look.decisions.values()) != {"undecided"} for look in looks)
    assert wrong / 80 <= 0.2 + 3 * np.sqrt(0.2 * 0.8 / 80)


@pytest.mark.parametrize(
    ("first", "last", "number", "steps"),
    [(10, 1000, 3, [10, 100, 1000]), (1, 16, 5, [1, 2, 4, 8, 16]), (1, 3, 9, [1, 2, 3]), (7, 7, 1, [7])],
)
def test_checkpoints_are_even_on_a_logarithmic_axis(first: int, last: int, number: int, steps: list[int]) -> None:
    assert checkpoint_grid(first, last, number) == steps


def test_look_of_no_target_decides_nothing() -> None:
    assert reached(0.3, [Look(5, 10, 0.2, (0.0, 1.0), {})]) == Reached("not reached", None)
