from __future__ import annotations

from policy_accel.errors import did_you_mean


def test_the_nearest_name() -> None:
    assert did_you_mean("epsilom", ["epsilon", "sample", "v"]) == "did you mean 'epsilon'?"


def test_all_names_when_none_is_near() -> None:
    assert did_you_mean("zzz", ["b", "a", "a"]) == "known are: a, b."


def test_a_name_that_begins_alike_is_nearer() -> None:
    assert did_you_mean("pushT", ["fetch_push", "pusht_state", "lift"]) == "did you mean 'pusht_state'?"
