from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.simulated_cuda import SimulatedCuda

from policy_accel.benchmark import sample as module
from policy_accel.benchmark.report import sample_table
from policy_accel.benchmark.sample import benchmark_sample
from policy_accel.errors import UserError
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.track import Track

IMAGE = [
    "task=shapes",
    "recipe=images_small",
    "task.limit=64",
    "task.conditional=true",
    "model.channels=8",
    "model.multipliers=[1,2]",
    "model.blocks=1",
    "model.attention_resolutions=[12]",
    "model.heads=1",
]


@pytest.fixture(autouse=True)
def known_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "matmul_rate", lambda device, precision: 1e9)


def measured(track: Track, config: object, run_dir: Path | None = None, **asked: object) -> dict:
    options = {"device_name": "cpu", "batches": (1, 3), "calls": 4, "seconds": 60.0, **asked}
    return benchmark_sample(track, config, run_dir, **options)


def test_a_call_of_a_policy(trained: Path) -> None:
    result = measured(ROBOT, ROBOT.read(trained), trained)
    model = ROBOT.load(trained).policy
    forward = sum(2 * m.in_features * m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert result["network_evaluations"] == 2
    assert result["sampler"] == "ddim"
    assert result["flops_of_a_sample"] == 2 * forward
    one, three = result["calls"]
    assert (one["batch"], three["batch"]) == (1, 3)
    assert one["timed"] == three["timed"] == 3, "the first call is left out"
    assert three["floor_milliseconds"] == pytest.approx(1000 * 3 * 2 * forward / 1e9)
    assert 0 < one["milliseconds"]["median"] <= one["milliseconds"]["p95"]
    assert "a call for 3" in sample_table(result)


def test_three_calls_are_made_when_time_is_up(tiny: list[str]) -> None:
    config = ROBOT.config([*tiny, "sampling.steps=1"])
    assert [row["timed"] for row in measured(ROBOT, config, seconds=1e-6, calls=50)["calls"]] == [2, 2]


def test_a_policy_on_cuda_replays_a_graph(trained: Path) -> None:
    with SimulatedCuda() as cuda:
        result = measured(ROBOT, ROBOT.read(trained), trained, device_name="cuda", batches=(2,))
        assert cuda.launches["setup"]["graph"] == 1 + 4, "the last of the calls that warm up, and all that are timed"
    assert result["flops_of_a_sample"] > 0


def test_images_with_classes() -> None:
    result = measured(IMAGES, IMAGES.config([*IMAGE, "sampling.steps=2"]), batches=(2,), calls=3)
    assert result["network_evaluations"] == 2
    assert result["flops_of_a_sample"] > 1e6
    assert [row["batch"] for row in result["calls"]] == [2]


@pytest.mark.parametrize(("asked", "name"), [({"calls": 2}, "--calls 2"), ({"seconds": 0.0}, "--seconds 0.0")])
def test_mistakes_are_named(tiny: list[str], asked: dict, name: str) -> None:
    with pytest.raises(UserError, match=name):
        measured(ROBOT, ROBOT.config(tiny), **asked)
