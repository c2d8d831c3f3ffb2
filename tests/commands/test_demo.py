from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest

from policy_accel.cli import main
from policy_accel.commands.demo import demo_overrides, evaluations_table, scores
from policy_accel.errors import UserError
from policy_accel.policy.track import ROBOT

TINY = [
    "model.down_dims=[8,16]",
    "training.steps=3",
    "training.batch_size=4",
    "training.device=cpu",
    "training.optimizer.warmup_steps=1",
    "evaluation.episodes=2",
    "evaluation.videos=0",
    "evaluation.workers=0",
    "task.max_steps=16",
]


def test_a_demo_shows_what_fewer_evaluations_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "demo"
    assert main(["demo", *TINY, f"run_dir={run_dir}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("What fewer evaluations"))
    shown = [line.split() for line in lines[begin + 2 : begin + 5]]
    kept = json.loads((run_dir / "evaluation.json").read_text())
    assert kept["network_evaluations"] == 8
    expected = [kept]
    for few in (["--sampling-times", "99,25"], ["--sampling-steps", "1"]):
        assert main(["evaluate", str(run_dir), *few, "--json"]) == 0
        expected.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert [row[0] for row in shown] == ["8", "2", "1"]
    assert shown[1][1:4] == ["(times", "99,", "25)"]
    for row, result in zip(shown, expected, strict=True):
        low, high = result["score_interval"]
        assert f"{result['score']:.3f} {low:.3f} to {high:.3f}" in " ".join(row)
    assert lines[begin + 5].startswith(f"policy-accel distill {run_dir} --evaluations 1 ")


def test_the_table() -> None:
    result = {"score": 0.91, "score_interval": [0.85, 0.95], "chunk_milliseconds": {"median": 12.345}}
    few = {**result, "network_evaluations": 2, "sampling_times": [99, 25]}
    _, _, one, two, _ = evaluations_table([{**result, "network_evaluations": 8}, few], Path("runs/demo"))
    assert one.split() == ["8", "0.910", "0.850", "to", "0.950", "12.3"]
    assert two.split() == ["2", "(times", "99,", "25)", "0.910", "0.850", "to", "0.950", "12.3"]
    assert evaluations_table([], Path("runs/demo")) == []


def test_a_sampling_that_the_settings_do_not_allow_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(run_dir: Path, options: Namespace, report: object) -> dict[str, int]:
        if options.sampling_times:
            raise UserError("sampling.times=[99, 25]: 99 must be an integer from 0 to 49.")
        return {"network_evaluations": options.sampling_steps}

    (tmp_path / "evaluation.json").write_text('{"network_evaluations": 8}')
    monkeypatch.setattr(ROBOT, "evaluate", evaluate)
    assert [result["network_evaluations"] for result in scores(tmp_path)] == [8, 1]
    assert "Not scored with --sampling-times 99,25: sampling.times=[99, 25]: 99 must" in capsys.readouterr().err


def test_the_demos_recipe_is_the_fast_one() -> None:
    demo, fast = ROBOT.config(demo_overrides([])), ROBOT.config(["recipe=fast"])
    assert demo.training.optimizer == fast.training.optimizer
    assert (demo.sampling, demo.diffusion, demo.model) == (fast.sampling, fast.diffusion, fast.model)


def test_an_unknown_demo() -> None:
    with pytest.raises(UserError, match="there is no demo 'push'; did you mean 'pusht'"):
        demo_overrides(["push"])
