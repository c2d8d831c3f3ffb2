from __future__ import annotations

import itertools
from typing import Any

from policy_accel.comparison.arms import arm_names


def names(*runs: tuple[str, dict[str, Any]]) -> list[str]:
    return [arm.arm for arm in arm_names(runs)]


def test_what_a_method_sets_is_not_named() -> None:
    assert names(("baseline", {"acceleration.x": 1}), ("kl", {"acceleration.x": 2})) == ["baseline", "kl"]


def test_settings_that_differ_within_a_method_are() -> None:
    runs = [("kl", {"training.optimizer.lr": lr, "training.ema.power": 1}) for lr in (1e-3, 1e-5)]
    assert names(*runs, ("baseline", {"training.optimizer.lr": 3e-4})) == ["kl lr=0.001", "kl lr=1e-05", "baseline"]


def test_equal_settings_have_one_name() -> None:
    assert names(("kl", {"a": [1, 2]}), ("kl", {"a": [1, 2]}), ("kl", {"a": [1]})) == [
        "kl a=[1,2]",
        "kl a=[1,2]",
        "kl a=[1]",
    ]


def test_a_choice_stands_for_the_settings_that_come_with_it() -> None:
    knn = [{"acceleration.noise.name": "nearest", "acceleration.noise.candidates": n} for n in (4, 8)]
    plain = {"acceleration.noise.name": "independent"}
    assert names(*(("m", settings) for settings in [plain, knn[0]])) == ["m noise=independent", "m noise=nearest"]
    assert names(*(("m", settings) for settings in [plain, *knn])) == [
        "m noise=independent",
        "m noise=nearest candidates=4",
        "m noise=nearest candidates=8",
    ]


def test_paths_and_keys_are_as_short_as_they_can_be() -> None:
    assert names(("m", {"task.data": "/a/x.zip"}), ("m", {"task.data": "/a/y.zip"})) == ["m data=x.zip", "m data=y.zip"]
    assert names(("m", {"task.data": "/a/x"}), ("m", {"task.data": "/b/x"})) == ["m data=/a/x", "m data=/b/x"]
    both = [{"a.x.lr": i, "b.x.lr": j} for i, j in ((1, 1), (1, 2), (2, 1))]
    assert names(*(("m", one) for one in both))[1] == "m a.x.lr=1 b.x.lr=2"


def test_of_many_settings_those_that_tell_arms_apart() -> None:
    """Ten settings that vary together need one name; two that vary freely, two."""
    runs = [
        ("m", {**{f"s.k{i}": first for i in range(10)}, "t.free": second, "model.name": f"net{first}"})
        for first, second in itertools.product((1, 2), repeat=2)
    ]
    assert names(*runs)[:2] == ["m model=net1 free=1", "m model=net1 free=2"]


def test_nothing_commands_the_terminal() -> None:
    assert names(("m", {"s.x": "a\x1b[2J"}), ("m", {"s.x": "b"}))[0] == "m x=a?[2J"
