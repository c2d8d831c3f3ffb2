"""A result of `policy-accel benchmark time-to-score`, in the form that it has, as charts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.reported import write_sweep

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.report.collect import collect
from policy_accel.report.instrument import COSTS, measured_task
from policy_accel.report.scores import few_step_points


def costs(step: float | None) -> dict[str, float | None]:
    return {cost: None if step is None else factor * step for factor, cost in enumerate(COSTS, 1)}


def result() -> dict[str, Any]:
    """Of baseline at 200 and 400 updates; of kl one run at 100, one that never reaches it."""
    steps: dict[str, list[float | None]] = {"baseline": [200.0, 400.0], "kl": [100.0, None]}
    runs = [
        {
            "run": f"{method}-seed{seed}",
            "task": "push",
            "method": method,
            "seed": seed,
            "targets": {"0.5": {"status": "reached" if step else "not reached", "costs": costs(step)}},
            "checkpoints": [{"updates": 100, "score": 0.25}, {"updates": 600, "score": seed / 10}],
        }
        for method, reached in steps.items()
        for seed, step in enumerate(reached, 1)
    ]
    methods: dict[str, Any] = {
        "baseline": {"reached": 2, "runs": 2, "costs": {c: {"median": v} for c, v in costs(300.0).items()}},
        "kl": {"reached": 1, "runs": 2, "costs": {c: {"median": v} for c, v in costs(None).items()}},
    }
    methods["kl"]["costs"]["updates"] |= {"ratio": 0.5, "ratio_interval": [0.25, 1.0]}
    few = {
        "1": {
            "baseline": {"network_evaluations": 1, "runs": [0.125, 0.25]},
            "kl": {"network_evaluations": 1, "runs": [0.375, 0.5]},
        }
    }
    task = {"targets": {"0.5": methods}, "few_steps": few}
    return {"plan": {"checkpoints": {"last": 600}}, "tasks": {"push": task}, "runs": runs}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result()))
    return path


def test_medians_runs_and_ratios(file: Path) -> None:
    (chart,) = measured_task(file, "push").charts
    bars = {t["meta"]["arm"]: (t["x"], t["text"]) for t in chart.traces if t["meta"]["role"] == "bar"}
    assert bars == {"baseline": ([300.0], ["300"]), "kl": ([0.0], ["no median, 1 of 2"])}
    points = {(t["meta"]["arm"], t["meta"]["seed"]): t["x"] for t in chart.traces if t["meta"]["role"] == "point"}
    assert points == {("baseline", "1"): [200], ("baseline", "2"): [400], ("kl", "1"): [100], ("kl", "2"): [None]}
    assert list(chart.table.rows[0].cells) == ["baseline", "2 of 2", "300", "600", "900", "1,200", "1,500", "–", "–"]
    assert list(chart.table.rows[1].cells)[-2:] == ["0.500", "0.250 to 1"]


def test_scores_of_checkpoints_and_few_steps_go_to_their_runs(file: Path, tmp_path: Path) -> None:
    found = measured_task(file, "push")
    runs = {run.run_dir.name: run for run in collect([write_sweep(tmp_path / "sweep", seeds=(1, 2))])}
    added = found.added_to(runs["kl-seed2"])
    assert dict(added.points("score"))[600] == 0.2
    assert added.points("loss") == runs["kl-seed2"].points("loss")
    assert few_step_points(added) == [(1, 0.5)]
    other = replace(runs["kl-seed2"], run_dir=Path("other"))
    assert found.added_to(other) == other


def test_mistakes(file: Path) -> None:
    with pytest.raises(UserError, match="has the tasks push, and these runs are of lift"):
        measured_task(file, "lift")
    file.write_text('{"tasks": {"push": {}}}')
    with pytest.raises(UserError, match=r"is no result of `policy-accel benchmark time-to-score` \(KeyError"):
        measured_task(file, "push")
    with pytest.raises(UserError, match="does not exist"):
        measured_task(file.with_name("none.json"), "push")


def test_it_is_on_the_page(file: Path, tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", seeds=(1, 2))
    assert main(["report", str(sweep), "--time-to-score", str(file)]) == 0
    page = (sweep / "report.html").read_text()
    assert "Cost of a score of 0.5, measured" in page
    assert 'id="chart-measured-0"' in page
    assert 'id="chart-target"' not in page  # the rough figure from the runs' own scores gives way
