"""The scripts that measure policies on robots run, with little work."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from policy_accel import Policy

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    return importlib.import_module


def test_scores_by_delay(
    script: Any, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delay, output = script("robot_delay"), tmp_path / "delay.json"
    monkeypatch.setattr(delay, "WAYS", [("sync", "receding"), ("async", "warm_start")])
    words = ["robot_delay.py", str(run_dir), "--delays", "0", "150", "--episodes", "2", "--output", str(output)]
    monkeypatch.setattr("sys.argv", words)
    delay.main()
    shown = capsys.readouterr().out
    rows = json.loads(output.read_text())["rows"]
    assert [(row["delay_ms"], row["mode"], row["late_share"]) for row in rows] == [
        (0, "sync", 0.0),
        (0, "async", 0.0),
        (150, "sync", 0.2),  # 2 of every 10
        (150, "async", 0.0),
    ]
    assert all(row["score_interval"][0] <= row["score"] <= row["score_interval"][1] for row in rows)
    lines = shown.splitlines()[-4:]
    assert lines[0] == "| mode | joining | 0 ms | 150 ms |"
    assert lines[2].endswith(", 20% late |")
    delay.main()  # nothing is left to do
    assert "ms sync receding: " not in capsys.readouterr().out


def test_late_calls_of_a_loop(script: Any, run_dir: Path) -> None:
    loop = script("robot_loop")
    policy = Policy.load(run_dir, device="cpu")
    for how in ({}, {"mode": "async"}):
        figures = loop.drive(policy, how, 50.0, 0.4)
        assert figures["calls"] == 19
        assert figures["predictions"] >= 3
        assert figures["call_ms"]["p50"] <= figures["call_ms"]["max"]
    assert figures["no_action_left"] <= 19
