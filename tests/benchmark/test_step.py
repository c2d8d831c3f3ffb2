"""The measurement of updates, on the CPU and on the simulated CUDA device."""

from __future__ import annotations

import pytest
import torch
from support.simulated_cuda import SimulatedCuda

from policy_accel.benchmark import step as module
from policy_accel.benchmark.counting import Counted
from policy_accel.benchmark.report import step_table
from policy_accel.benchmark.step import Timing, benchmark_step, floor_of
from policy_accel.errors import UserError
from policy_accel.policy.track import ROBOT

COUNTED = Counted(10, 4, flops=6e9, adamw_bytes=700, averages_bytes=300, gradient_bytes=40, cast_bytes=60,
                  activation_bytes=10**9)  # fmt: skip


def measured(overrides, **asked):
    lines: list[str] = []
    options = {"rounds": 2, "seconds": 1.0, "updates": 3, **asked}
    return benchmark_step(ROBOT, ROBOT.config(overrides), report=lines.append, **options), lines


def test_the_floor_is_arithmetic_and_then_memory():
    floor = floor_of(COUNTED, 3e12, 1.1e6)
    assert floor.arithmetic_seconds == pytest.approx(2e-3)
    assert floor.memory_seconds == pytest.approx(1e-3), "without what is kept for the backward pass"
    assert floor.seconds == pytest.approx(3e-3)


def test_figures_follow_from_the_rounds(tiny, monkeypatch):
    """Core and eager loop take 1 and 2 ms, then 2 and 8 ms; the second round goes the other way round."""
    clock = iter([(0.0, 0.0), (0.0, 0.0), (0.003, 0.003), (0.006, 0.003), (0.024, 0.012), (0.006, 0.006)])
    asked = []

    def timed(side, updates, device):
        asked.append((type(side).__name__, updates))
        side()
        seconds, cpu = next(clock)
        return Timing(seconds / updates, cpu / updates)

    monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(module, "matmul_rate", lambda device, precision: 1e9)
    monkeypatch.setattr(module, "copy_rate", lambda device: 1e6)
    result, lines = measured(tiny)
    assert asked[2:] == [("CoreSide", 3), ("EagerSide", 3), ("EagerSide", 3), ("CoreSide", 3)]
    core, counted = result["core"], result["counted"]
    assert core["rounds"] == pytest.approx([1000, 500])
    assert core["updates_per_second"] == pytest.approx(1 / 1.5e-3)
    assert core["cpu_seconds"] == pytest.approx(1.5e-3)
    assert result["eager"]["rounds"] == pytest.approx([500, 125])
    assert result["times_the_eager_loop"] == pytest.approx({"median": 3, "min": 2, "max": 4})
    assert result["times_the_eager_loop_in_cpu_seconds"] == pytest.approx({"median": 1.5, "min": 1, "max": 2})
    floor = counted["flops"] / 1e9 + counted["state_bytes"] / 1e6
    assert result["floor"]["seconds"] == pytest.approx(floor)
    assert core["share_of_floor"] == pytest.approx(floor / 1.5e-3)
    assert lines[-1] == "round 2 of 2: 3 updates of each side"
    assert not core["captured"]
    assert core["graphs"] == 0
    assert core["launches"] is None
    assert core["peak_bytes"] > 10**8
    assert core["last_loss"] == pytest.approx(result["eager"]["last_loss"], rel=0.5)


def test_updates_of_a_round_follow_from_the_seconds(tiny, monkeypatch):
    monkeypatch.setattr(module, "timed", lambda side, updates, device: side() or Timing(0.25, 0.1))
    assert measured(tiny, updates=None, seconds=4.2)[0]["updates_of_a_round"] == 4


def test_no_round_only_counts(tiny):
    result, lines = measured(tiny, rounds=0)
    assert list(result) == ["counted"]
    assert lines == ["counting"]
    assert "AdamW" in step_table(result)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"rounds": -1}, "--rounds -1 must be at least 0"),
        ({"updates": 0}, "--updates 0 must be at least 1"),
        ({"seconds": 0.0}, r"--seconds 0.0 must be positive"),
    ],
)
def test_mistakes_are_named(tiny, asked, sentence):
    with pytest.raises(UserError, match=sentence):
        measured(tiny, **asked)


def test_a_loss_that_is_not_finite_is_no_measurement(tiny):
    with pytest.raises(UserError, match=r"the loss of the core is (nan|inf)"):
        measured([*tiny, "training.optimizer.lr=1e30", "training.optimizer.warmup_steps=0"])


def test_captured_updates_are_graphs_and_a_few_copies(tiny, monkeypatch):
    """Where the host chooses the noise, one graph before that and one after."""
    monkeypatch.setattr("policy_accel.training.graphs.WARM_UP", 2)
    monkeypatch.setattr(module, "WARM_UP", 2)
    overrides = [*tiny, "training.device=cuda", "method=immiscible"]
    with SimulatedCuda() as cuda:
        result, _ = measured(overrides, rounds=1)
        update = module.CoreSide(
            module.build_update(ROBOT.build(config := ROBOT.config(overrides)), config.training, 1)
        )
        for _ in range(8):
            update()
        with cuda.phase("one"):
            update()
        assert cuda.launches["one"]["graph"] == 2
    core = result["core"]
    assert core["captured"]
    assert core["graphs"] == 2
    assert 0 < core["launches"] < 12
    assert core["operations"] > 60
    assert "CUDA graphs" in step_table(result)
    assert torch.isfinite(torch.tensor(core["last_loss"]))
