"""The parts of benchmarks/gpu/run.sh at toy size, on the simulated CUDA device."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.simulated_cuda import SimulatedCuda

from policy_accel.policy.track import ROBOT

TOY = [
    "model=mlp",
    "model.hidden_dims=[16]",
    "training.precision=fp32",
    "training.batch_size=8",
    "training.optimizer.warmup_steps=0",
]


@pytest.fixture
def parts(repository: Path) -> Any:
    spec = importlib.util.spec_from_file_location("parts", repository / "benchmarks" / "gpu" / "parts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The simulated device; what torch was told to do where the host waits."""
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr("policy_accel.training.graphs.WARM_UP", 1)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with SimulatedCuda():
        yield modes
    torch.use_deterministic_algorithms(False)


def test_check_compares_graphs_with_eager_updates(parts: Any, watched: list[str], tmp_path: Path) -> None:
    assert parts.check(tmp_path, None, methods=["immiscible"], updates=10, overrides=TOY)
    found = json.loads((tmp_path / "check.json").read_text())
    (row,) = found["methods"]
    assert row["method"] == "immiscible"
    assert row["good"]
    assert row["largest_difference"] < 1e-5
    assert found["updates"] == 10
    assert watched == ["error", "default"] * 3


def test_check_says_what_is_not_the_same(parts: Any, watched: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    rows = iter([[1.0, 2.0], [1.0, 2.001], [1.0, 2.0]])
    monkeypatch.setattr(parts, "losses", lambda *_, **__: next(rows))
    assert not parts.check(tmp_path, None, methods=["baseline"])
    (row,) = json.loads((tmp_path / "check.json").read_text())["methods"]
    assert row == {"method": "baseline", "largest_difference": pytest.approx(5e-4), "of_eager_twice": 0, "good": False}


def test_step_measures_a_net(parts: Any, watched: list[str], tmp_path: Path) -> None:
    parts.step(tmp_path, None, only=["small"], overrides=TOY, seconds=0.01)
    core = json.loads((tmp_path / "step.json").read_text())["nets"]["small"]["core"]
    assert core["captured"]
    assert core["graphs"] == 1


def test_ways_measures_a_net_in_each(
    parts: Any, watched: list[str], tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = iter([4.0, 2.0, 1.0, 8.0])
    seen: dict[str, str] = {}

    def measured(settings: list[str], _: float) -> Any:
        training = ROBOT.config(settings).training
        rate = next(rates)
        seen[f"{rate:g}"] = f"{training.precision}, {training.matmul_precision}, {training.compile}"
        return {"core": {"updates_per_second": rate, "peak_bytes": 2e9}}

    monkeypatch.setattr(parts, "_measured", measured)
    parts.ways(tmp_path, None, only=["small"])
    found = json.loads((tmp_path / "ways.json").read_text())["ways"]
    assert {name: way["core"]["updates_per_second"] for name, way in found.items()} == {
        "small: bf16": 4.0,
        "small: TF32": 2.0,
        "small: float32": 1.0,
        "small: compiled": 8.0,
    }
    assert seen == {
        "4": "bf16, high, False",
        "2": "fp32, high, False",
        "1": "fp32, highest, False",
        "8": "bf16, high, True",
    }
    assert capsys.readouterr().out.splitlines()[0] == "small: bf16: 4 updates/s, 2 GB"


def test_every_way_is_one_of_a_net(parts: Any, tmp_path: Path) -> None:
    assert {way for ways in parts.COMPARED.values() for way in ways} == set(parts.WAYS)
    assert set(parts.COMPARED) < set(parts.nets("data", tmp_path))


def test_train_says_why_it_did_not_score(parts: Any, watched: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(parts, "SIMULATOR", ("no_such_simulator",))
    parts.train(
        tmp_path, None, overrides=[*TOY, "training.steps=4", "training.validate_every=2", "task.val_ratio=0.01"]
    )
    found = json.loads((tmp_path / "train.json").read_text())
    assert found["updates"] == 4
    assert found["score"] is None
    assert "no_such_simulator not installed" in found["left_out"]
    assert found["validation_loss"] > 0


def test_nothing_new_begins_when_time_is_up(parts: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    clock = iter([0.0, 1.0, 1000.0])
    monkeypatch.setattr(parts, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert list(parts._in_time(["a", "b", "c"])) == ["a"]
    assert capsys.readouterr().out == "left out for lack of time: b, c\n"


def test_the_script_refuses_another_part(repository: Path) -> None:
    done = subprocess.run(
        ["bash", str(repository / "benchmarks" / "gpu" / "run.sh"), "all"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "run.sh: say carry, check, step, ways or train\n"
