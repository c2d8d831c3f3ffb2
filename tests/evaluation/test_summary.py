import pytest

from policy_accel.errors import UserError
from policy_accel.evaluation import EpisodeResult, bootstrap_interval, wilson_interval
from policy_accel.evaluation.summary import summarize

RESULTS = [
    EpisodeResult(4, 0.5, False, 10, metrics={"lids": 1.0}),
    EpisodeResult(5, 1.0, True, 20, metrics={"lids": 2.0, "doors": 3.0}),
    EpisodeResult(6, 0.0, False, 0, error="it fell over"),
]


def test_figures_of_a_set_of_episodes():
    summary = summarize(RESULTS, confidence=0.9)
    assert summary["score"] == 0.5
    assert summary["score_interval"] == list(bootstrap_interval([0.5, 1, 0], 0.9))
    assert summary["success_interval"] == list(wilson_interval(1, 3, 0.9))
    assert summary["mean_length"] == 15, "the episode that could not be run has no length"
    assert summary["metrics"] == {"lids": 1.5, "doors": 3.0}
    assert summary["failed_seeds"] == [6]
    assert summary["episodes"][2] == {"seed": 6, "score": 0.0, "success": False, "length": 0, "error": "it fell over"}
    assert summary["episodes"][0]["metrics"] == {"lids": 1.0}


def test_metrics_only_where_the_environment_has_some():
    summary = summarize([EpisodeResult(1, 0.5, False, 3)])
    assert "metrics" not in summary
    assert summary["episodes"] == [{"seed": 1, "score": 0.5, "success": False, "length": 3}]


def test_no_episode():
    with pytest.raises(UserError, match="no episode"):
        summarize([])
