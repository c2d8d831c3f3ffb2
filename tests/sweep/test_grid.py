"""From settings with several values to runs and their names."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from policy_accel.errors import UserError
from policy_accel.sweep.grid import product, read_settings, short_keys

METHODS = ("baseline", "immiscible", "immiscible_knn", "kl")


def choices_of(key: str) -> Sequence[str]:
    return METHODS if key == "method" else ("nearest", "off") if key == "acceleration/noise" else ()


def values(override: str) -> tuple[str, ...]:
    (setting,) = read_settings([override], choices_of)
    return setting.values


def names(*overrides: str) -> list[str]:
    return list(product(read_settings(overrides, choices_of), choices_of))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("method=baseline,kl", ("baseline", "kl")),
        ("method='baseline',kl", ("baseline", "kl")),
        ("method=glob(immiscible*)", ("immiscible", "immiscible_knn")),
        ("method=glob(*,exclude=im*)", ("baseline", "kl")),
        ("seed=range(1,4)", ("1", "2", "3")),
        ("seed=choice(7)", ("7",)),
        ("x=range(0.1,0.5,0.1)", ("0.1", "0.2", "0.3", "0.4")),
        ("lr=1e-3,3e-4", ("0.001", "0.0003")),
        ("x=null,true,-1", ("null", "True", "-1")),
        ("dims=[8,16]", ("[8,16]",)),
        ("dims=[8,16],[32]", ("[8,16]", "[32]")),
        ("options={a: 1, b: [x]}", ("{a: 1, b: [x]}",)),
        ("task.data='a,b'", ("'a,b'",)),
        ("task.data='a,b',c", ("'a,b'", "c")),
        ("task=./a.yaml,../b c.yaml", ("./a.yaml", "../b c.yaml")),
        ("task=~/mine.yaml", ("~/mine.yaml",)),
        ("task.data=my demos (final, 2)/it's,{v1}/a=b", ("my demos (final, 2)/it's", "{v1}/a=b")),
        ("training.device=cuda:0,cpu", ("cuda:0", "cpu")),
        ("task.data=choice('a b',cuda:0)", ("a b", "cuda:0")),
        ("seed=1, 2, 3", ("1", "2", "3")),
    ],
)
def test_values_of_a_setting(override: str, expected: tuple[str, ...]) -> None:
    assert values(override) == expected


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["method"], r"'method' is not of the form key=value or key=a,b"),
        (["=1"], r"'=1' is not of the form"),
        (["+a=1"], r"'\+a=1': keys cannot be added or removed"),
        (["seed=1", "seed=2"], r"seed is given 2 times; give all of its values at once: seed=a,b"),
        (["method=a,"], r"method=a, cannot be read as values; write method=a,b with closed"),
        (["seed=range(1,4"], r"seed=range\(1,4 cannot be read as values"),
        (["seed=interval(0,1)"], r"seed=interval\(0,1\): an interval has no number of values; give seed=range"),
        (["method=glob(immi_knn*)"], r"method=glob\(immi_knn\*\) matches nothing; did you mean 'immiscible_knn'\?"),
        (["seed=glob(*)"], r"glob\(\) chooses from a group such as method, and seed is none"),
        (["seed=range(4,1)"], r"seed=range\(4,1\) has no values"),
    ],
)
def test_what_cannot_be_read_is_said(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_settings(overrides, choices_of)


def test_the_product_and_its_names() -> None:
    runs = product(read_settings(["method=kl,baseline", "steps=5", "training.seed=range(2)"], choices_of), choices_of)
    assert runs == {
        "kl-seed0": ["method=kl", "steps=5", "training.seed=0"],
        "kl-seed1": ["method=kl", "steps=5", "training.seed=1"],
        "baseline-seed0": ["method=baseline", "steps=5", "training.seed=0"],
        "baseline-seed1": ["method=baseline", "steps=5", "training.seed=1"],
    }
    assert names("seed=1", "method=kl") == ["run"]
    assert names("training.precision=fp32,bf16", "a.lr=0.1,1e-5") == [
        "precision_fp32-lr0.1",
        "precision_fp32-lr1e-05",
        "precision_bf16-lr0.1",
        "precision_bf16-lr1e-05",
    ]
    assert names("acceleration/noise=off,nearest", "dims=[8,16],[32]")[:2] == ["off-dims8_16", "off-dims32"]
    assert names("task=a/x.yaml,y.yaml", "task.data='/a b/c',''") == [
        "x-data_a_b_c",
        "x-data_empty",
        "y-data_a_b_c",
        "y-data_empty",
    ]


def test_keys_are_as_long_as_it_takes_to_tell_them_apart() -> None:
    assert short_keys(["seed", "a.b.width", "a.c.width", "x.c.width"]) == ["seed", "b.width", "a.c.width", "x.c.width"]


def test_two_runs_of_one_directory_are_refused() -> None:
    with pytest.raises(UserError, match=r"two runs would have the directory seed1: seed=1 and seed=1; drop one"):
        names("seed=1,2,1", "steps=3")
    with pytest.raises(UserError, match=r"the directory x: task=a/x\.yaml and task=b/x\.yaml"):
        names("task=a/x.yaml,b/x.yaml")
