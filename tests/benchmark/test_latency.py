from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.serving import tiny_run

from policy_accel.benchmark.latency import benchmark_latency
from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.policy.controller import Policy


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("latency"))


def test_latency_is_that_of_single_predictions(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, predictions = Policy.load(run_dir, device="cpu"), []
    predict = policy._predict
    monkeypatch.setattr(policy, "_predict", lambda: predictions.append(1) or predict())
    result = benchmark_latency(policy, calls=12, seconds=60.0)
    taken = result["milliseconds"]
    assert result["calls"] == len(predictions) == 12
    assert 0 < taken["p50"] <= taken["p95"] <= taken["p99"] <= taken["largest"]
    assert result["control_rate"] == pytest.approx(1000 / taken["p99"])
    assert result["asynchronous_rate"] == pytest.approx(8 * result["control_rate"])
    with pytest.raises(UserError, match="--calls 3 must be at least 10"):
        benchmark_latency(policy, calls=3, seconds=1.0)


def test_the_command_prints_a_table_or_json(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "latency", str(run_dir), "--calls", "10", "--no-warm-up", "--device", "cpu"]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["network_evaluations"] == 3
    assert not printed["warmed_up"]
    kept = tmp_path / "latency.json"
    assert main([*words, "--sampling-steps", "1", "--json", str(kept)]) == 0
    table = capsys.readouterr().out
    assert "p99" in table
    assert "highest control rate" in table
    assert json.loads(kept.read_text())["network_evaluations"] == 1
