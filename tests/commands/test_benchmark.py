from __future__ import annotations

import json
from pathlib import Path

import pytest

from policy_accel.cli import main

SETTINGS = ["model=mlp", "model.hidden_dims=[8]", "training.device=cpu", "training.batch_size=4", "sampling.steps=1"]


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy_accel.benchmark.rates.MATMUL_SIZES", {"cpu": 32})
    monkeypatch.setattr("policy_accel.benchmark.rates.COPY_BYTES", {"cpu": 4096})


def test_step_prints_a_table_and_writes_all_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "step.json"
    assert main(["benchmark", "step", *SETTINGS, "--rounds", "1", "--updates", "1", "--json", str(path)]) == 0
    printed = capsys.readouterr()
    assert "times the eager loop" in printed.out
    assert f"All numbers: {path}" in printed.err
    result = json.loads(path.read_text())
    assert result["batch_size"] == 4
    assert result["device"] == "cpu"
    assert result["command"].split()[:4] == ["policy-accel", "benchmark", "step", SETTINGS[0]]
    assert result["core"]["updates_per_second"] > 0


def test_sample_of_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sample.json"
    words = ["--device", "cpu", "--calls", "3", "--seconds", "0.001", "--json", str(path)]
    assert main(["benchmark", "sample", *SETTINGS, *words]) == 0
    assert "a call for 50" in capsys.readouterr().out
    assert [row["batch"] for row in json.loads(path.read_text())["calls"]] == [1, 50]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sample", "nowhere"], "nowhere"),
        (["sample", "nowhere", "seed=1"], "seed=1: a run has its settings already"),
        (["rollouts", "nowhere"], "nowhere"),
        (["step", "--rounds", "-1"], "--rounds -1 must be at least 0"),
        (["step", "recipe=smal"], "did you mean 'small'"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *words]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("policy-accel: ")
    assert sentence in error[-1]


@pytest.mark.parametrize("kind", ["step", "sample", "latency", "rollouts"])
def test_a_folder_is_no_place_for_the_numbers(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is said before anything is measured."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run", "config.yaml").write_text("track: robot\n")
    what = "recipe=small" if kind == "step" else "run"
    assert main(["benchmark", kind, what, "--json", "."]) == 2
    assert capsys.readouterr().err == "policy-accel: .: is a folder; give the path of a file in it.\n"
