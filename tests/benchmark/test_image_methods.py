from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from policy_accel.images.track import IMAGES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COSTS = ("samples", "training_flops", "training_seconds")


@pytest.fixture(scope="module")
def methods() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("image_methods")


@pytest.fixture(scope="module")
def table(methods: ModuleType) -> ModuleType:
    return importlib.import_module("image_methods_table")


def _run(arm: str, seed: int, distances: list[float], end: float) -> dict[str, Any]:
    curve = [
        {"samples": 100 * (n + 1), "training_flops": 1.0 + n, "training_seconds": 2.0 + n, "measures": {"fd": [d, 0.1]}}
        for n, d in enumerate(distances)
    ]
    whole = {cost: curve[-1][cost] for cost in COSTS}
    final = {"measures": {"fd": {"value": end}}}
    return {"base": "b", "arm": arm, "seed": seed, "curve": curve, "final": final, **whole}


RUNS = [
    _run("first", 0, [8.0, 4.0, 2.0, 1.0], 1.0),
    _run("first", 1, [8.0, 4.0, 2.0, 1.0], 2.0),
    _run("quick", 0, [4.0, 1.0, 0.5, 0.5], 0.5),
    _run("quick", 1, [4.0, 1.0, 0.5, 0.5], 0.25),
    _run("slow", 0, [8.0, 8.0, 8.0, 4.0], 4.0),
    _run("slow", 1, [8.0, 4.0, 2.0, 1.0], 4.0),
]


def test_costs_between_evaluations_follow_the_logarithm(table: ModuleType) -> None:
    assert table.cost_to(RUNS[0], "fd", 4.0, "samples") == 200
    assert table.cost_to(RUNS[0], "fd", math.sqrt(8.0), "samples") == pytest.approx(250)
    assert table.cost_to(RUNS[0], "fd", 9.0, "samples") == 100
    assert table.cost_to(RUNS[4], "fd", 1.0, "samples") == math.inf


def test_speed_ups_and_ends_are_paired_by_seed(table: ModuleType) -> None:
    found = table.tables(RUNS, "fd")
    assert list(found["speed_ups"]) == ["1", "1.682", "2.828"]
    quick = found["speed_ups"]["1"]["quick"]
    assert quick["samples"] == {"mean": 2.0, "interval": [2.0, 2.0], "seeds": 2}
    assert quick["training_seconds"]["mean"] == pytest.approx(5 / 3, abs=1e-3)
    assert found["speed_ups"]["1"]["slow"]["samples"] == {"at_most": 1.0, "reached": 1, "seeds": 2}
    assert found["final"]["quick"]["over_first"]["mean"] == pytest.approx(0.25, abs=1e-3)  # of 0.5 and 0.125
    low, high = found["final"]["quick"]["over_first"]["interval"]
    half = 12.7062 * math.log(4.0) / math.sqrt(2) / math.sqrt(2)  # Student's 97.5 % quantile with 1 degree of freedom
    assert math.log(high / low) / 2 == pytest.approx(half, rel=0.01)
    lines = table.markdown("b", found)
    assert "| slow | 4\u00a0[4,\u00a04] |" in lines
    assert "at most 1.00 (1 of 2 got there)" in lines


def test_a_label_leaves_out_what_all_arms_set(table: ModuleType) -> None:
    arms = ["edm:sampling.steps=10", "edm:acceleration/noise=nearest:acceleration.noise.candidates=4:sampling.steps=10"]
    assert [table.label(arm, arms) for arm in arms] == ["edm", "edm noise=nearest candidates=4"]
    assert table.label("baseline:diffusion.beta_end=0.01", ["baseline"]) == "baseline beta_end=0.01"
    assert table.label("kl:training.batch_size=16", ["baseline", "kl:training.batch_size=16"]) == "kl batch_size=16"


def test_the_picture_has_a_panel_for_each_base(table: ModuleType, tmp_path: Path) -> None:
    table.draw([*RUNS, {**RUNS[0], "base": "c"}], "fd", tmp_path / "x.png")
    width, height = (int.from_bytes((tmp_path / "x.png").read_bytes()[place : place + 4]) for place in (16, 20))
    assert width > 2 * height


@pytest.mark.parametrize("name", ["image_methods_16px", "image_methods_cifar10"])
def test_every_arm_of_the_plans_is_a_configuration(methods: ModuleType, name: str, tmp_path: Path) -> None:
    plan = methods.Plan(**yaml.safe_load((BENCHMARKS / "plans" / f"{name}.yaml").read_text()))
    resnet = "evaluation.metrics.resnet=w.npz"
    options = argparse.Namespace(plan=plan, settings=["task.data=x.npz", resnet])
    todo = plan.todo({("ddpm", "baseline", 0)})
    assert len(todo) == 3 * sum(len(base.arms) for base in plan.bases.values()) - 1
    assert len({arm for base, arm, _ in todo if base == "ddpm"}) == len(plan.bases["ddpm"].arms)
    for base, arm, seed in todo[: len(todo) // 3]:
        config = IMAGES.config(methods.overrides(options, base, arm, seed, tmp_path / "run"))
        IMAGES.check(config)
        assert config.evaluation.score_measure == plan.quality
        assert config.diffusion.family == {"default": "ddpm"}.get(base, base)
