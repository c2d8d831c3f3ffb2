import numpy as np
import pytest

from policy_accel.errors import UserError
from policy_accel.evaluation.selection import missing_seeds, selection_bias


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        (range(100, 150), range(150, 200)),  # the very seeds that chose
        (range(100, 110), range(150, 160)),  # some of them
        (range(120, 150), range(150, 180)),
        (range(500, 520), range(100, 120)),  # all fresh
        (range(500, 600), range(100, 150)),
        (range(100, 170), range(0)),  # both kinds already
        (range(90, 110), range(0)),
    ],
)
def test_seeds_of_both_kinds(asked, missing):
    chosen = range(100, 150)
    assert missing_seeds(asked, chosen) == missing
    seeds = [*asked, *missing_seeds(asked, chosen)]
    assert len(set(seeds)) == len(seeds), "no seed twice"
    assert set(seeds) & set(chosen)
    assert set(seeds) - set(chosen)


def test_empty_ranges_are_refused():
    with pytest.raises(UserError, match="asked seeds"):
        missing_seeds(range(0), range(3))
    with pytest.raises(UserError, match="chosen seeds"):
        missing_seeds(range(3), range(0))


def row(seed, score):
    return {"seed": seed, "score": score, "success": score >= 1, "length": 3}


def test_the_bias_is_the_difference_of_the_means():
    rows = [row(11, 0.5), row(20, 0.0), row(10, 1.0), row(21, 1.0), row(22, 0.2)]
    bias = selection_bias(rows, range(10, 15), confidence=0.9)
    assert bias["chosen"] == {
        "start_seed": 10,
        "episodes": 2,
        "score": 0.75,
        "score_interval": bias["chosen"]["score_interval"],
        "success_rate": 0.5,
    }
    assert bias["fresh"]["score"] == pytest.approx(0.4)
    assert (bias["fresh"]["start_seed"], bias["fresh"]["episodes"]) == (20, 3)
    assert bias["difference"] == pytest.approx(0.35)
    low, high = bias["difference_interval"]
    assert low < 0.35 < high
    assert bias["confidence"] == 0.9
    with pytest.raises(UserError, match="fresh seed"):
        selection_bias(rows[:1], range(10, 15), confidence=0.9)


def test_choosing_the_best_of_equal_policies_is_seen():
    """Twenty policies that all succeed half of the time: the best of them on 50 seeds is no better on others."""
    biases, honest = [], []
    for trial in range(20):
        outcomes = np.random.default_rng(trial).random((20, 100)) < 0.5
        best = outcomes[outcomes[:, :50].mean(1).argmax()]
        rows = [row(seed, float(success)) for seed, success in enumerate(best)]
        biases.append(selection_bias(rows, range(50), confidence=0.95)["difference"])
        honest.append(selection_bias([row(s, float(x)) for s, x in enumerate(outcomes[0])], range(50), confidence=0.95))
    assert np.mean(biases) == pytest.approx(1.87 * np.sqrt(0.25 / 50), abs=0.05), (
        "1.87: mean of the largest of 20 normals"
    )
    assert abs(np.mean([bias["difference"] for bias in honest])) < 0.06
