from __future__ import annotations

from pathlib import Path

import pytest
from support.reported import write_run, write_sweep

from policy_accel.errors import UserError
from policy_accel.report.collect import collect


def test_a_sweep_and_single_runs(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", seeds=(1, 2))
    single = write_run(tmp_path / "single", "momentum", seed=9)
    runs = collect([single, sweep, sweep / "kl-seed1"])
    assert [(run.arm, run.seed) for run in runs] == [
        ("momentum", "9"), ("baseline", "1"), ("baseline", "2"), ("kl", "1"), ("kl", "2"),
    ]  # fmt: skip


def test_runs_of_a_sweep_that_have_not_begun_are_left_out(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep")
    for path in (sweep / "kl-seed2").rglob("*"):
        if path.is_file():
            path.unlink()
    assert len(collect([sweep])) == 5
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "sweep.json").write_text('{"runs": {"a": {"overrides": [], "updates": 1}}}')
    with pytest.raises(UserError, match="empty has no run that has begun"):
        collect([empty])


def test_what_else_differs_names_the_arm(tmp_path: Path) -> None:
    def trained(name: str, lr: float, workers: int) -> Path:
        settings = {"training": {"optimizer": {"lr": lr}}, "evaluation": {"workers": workers}}
        return write_run(tmp_path / name, settings=settings)

    runs = collect([trained("a", 0.1, 0), trained("b", 0.2, 1), write_run(tmp_path / "c", "kl")])
    assert [run.arm for run in runs][:2] == ["baseline lr=0.1", "baseline lr=0.2"]


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is neither a run directory"):
        collect([tmp_path])


def test_runs_of_several_tasks(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", settings={"task": {"name": "lift"}})]
    with pytest.raises(UserError, match=r"a is a run of task push and .*b one of lift; make a report of each task"):
        collect(runs)


def test_what_a_stranger_wrote_is_data(tmp_path: Path) -> None:
    """Values of another kind than ours count as missing."""
    run = write_run(tmp_path / "run", losses={100: 0.5})
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": [2]}\n{"step": 2, "loss": 3}\n')
    (run / "checkpoints" / "last" / "state.json").write_text('{"threads": {"a": 1}, "precision": "fp32"}')
    (found,) = collect([run])
    assert found.points("loss") == [(2.0, 3.0)]
    assert (found.evaluation, found.state) == ({}, {"precision": "fp32"})
    for row in ("[1]", '{"step": "x", "loss": 1}'):
        (run / "metrics.jsonl").write_text(f'{row}\n{{"step": 2, "loss": 3}}\n')
        with pytest.raises(UserError, match=r"metrics\.jsonl: line 1 is damaged \(no row with a number as its step\)"):
            collect([run])
