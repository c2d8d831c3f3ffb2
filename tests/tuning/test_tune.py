"""Tuning from the command to the run that is sampled as it chose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from policy_accel import Policy
from policy_accel.cli import main
from policy_accel.diffusion import Sampler
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.processes import DiscreteProcess
from policy_accel.errors import UserError
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.held_out import energy_scores
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import AS_TRAINED, TunedSampling
from policy_accel.training.randomness import named_generator
from policy_accel.tuning.table import conclusion, table
from policy_accel.tuning.tune import Row, TuneConfig, Tuning, choose, tune

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def tuned(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; its JSON, with what it said under "said"."""

    def run(*arguments: Any) -> dict[str, Any]:
        capsys.readouterr()
        few = ["--windows", "6", "--noises", "2", "--episodes", "2", "--workers", "0"]
        assert main(["tune-sampling", str(run_dir), *few, *map(str, arguments), "--json"]) == 0
        printed = capsys.readouterr()
        return {**json.loads(printed.out.splitlines()[-1]), "said": printed.err}

    return run


def test_a_run_is_tuned_and_then_sampled_so(run_dir: Path, tuned: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and not path.is_symlink()}
    result = tuned("--evaluations", 1, 2, "--use", 2)
    own, *rows = result["rows"]
    assert (own["kind"], own["evaluations"], own["times"]) == ("own", 3, [99, 66, 32])
    assert [(row["kind"], row["evaluations"]) for row in rows] == [
        ("even", 1),
        ("even", 2),
        ("found", 2),
        ("found", 2),
    ]
    assert [row["times"] for row in rows[:2]] == [[99], [99, 49]]
    (chosen,) = (row for row in rows if row["chosen"] and row["evaluations"] == 2)
    assert chosen["score"] == max(row["score"] for row in rows[1:])
    written = yaml.safe_load((run_dir / "sampling.yaml").read_text())
    assert (written["step"], written["use"]) == (6, 2)
    assert {number: grid["times"] for number, grid in written["grids"].items()} == {1: [99], 2: chosen["times"]}
    assert "6 windows held out of the training, 2 samples of each" in result["said"]
    changed = {path for path, held in before.items() if path.read_bytes() != held}
    assert changed <= {run_dir / ".lock"}

    assert main(["evaluate", str(run_dir), "--seed", "500000", "--workers", "0", "--json"]) == 0
    printed = capsys.readouterr()
    evaluated = json.loads(printed.out.splitlines()[-1])
    assert (evaluated["sampler"], evaluated["sampling_times"]) == (chosen["sampler"], chosen["times"])
    assert [row["score"] for row in evaluated["episodes"]] == chosen["scores"]
    assert "Sampled as tuned at step 6" in printed.err
    assert Policy.load(run_dir, device="cpu").run.sampler.config.times == chosen["times"]
    config = ROBOT.read(run_dir)
    assert config.sampling.times is None
    ROBOT.train(config)  # config.yaml is as it was


def test_a_file_of_another_run_is_named(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TunedSampling(6, 1, {1: {"sampler": "ddim", "times": [500]}}).write(run_dir)
    assert main(["evaluate", str(run_dir), "--workers", "0"]) == 2
    said = capsys.readouterr().err
    assert f"{run_dir / 'sampling.yaml'} does not fit the run, remove it or use --untuned: sampling.times=[500]" in said
    assert main(["evaluate", str(run_dir), "--sampling-times", "500", "--workers", "0"]) == 2
    assert "sampling.yaml" not in capsys.readouterr().err
    assert ROBOT.load(run_dir, asked=AS_TRAINED).sampling_note is None


def test_more_evaluations_than_there_are_times_to_try(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sampling that begins late leaves few: of 99, 94, ... those below its own first one."""
    path = run_dir / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["sampling"]["times"] = [10, 5]
    path.write_text(yaml.safe_dump(config))
    few = ["--windows", "2", "--noises", "2", "--episodes", "0"]
    assert main(["tune-sampling", str(run_dir), *few]) == 2
    said = capsys.readouterr().err
    assert "--evaluations 4 takes more times than the 3 that are tried, from 10 down; give at most 3." in said
    assert not (run_dir / "sampling.yaml").exists()


def test_differences_are_paired_over_the_episodes(tuned: Run) -> None:
    result = tuned("--evaluations", 2, "--seed", 7)
    own, even, *found = result["rows"]
    for row in found:
        difference = np.subtract(row["scores"], even["scores"])
        assert row["over_even"][0] == pytest.approx(difference.mean())
        assert row["over_even"][1] <= row["over_even"][0] <= row["over_even"][2]
        assert row["over_own"][0] == pytest.approx(np.subtract(row["scores"], own["scores"]).mean())
        assert row["energy_over_even"] == pytest.approx(row["energy_score"] - even["energy_score"])


def test_the_energy_score_is_that_of_the_policy_s_own_chunks(run_dir: Path, tuned: Run) -> None:
    """Made again through `DiffusionPolicy.plan`, for windows and noise that all samplings share."""
    result = tuned("--evaluations", 2)
    run = ROBOT.load(run_dir)
    task = ROBOT.build(run.config)
    assert task.validation is not None
    steps = task.validation.indices[torch.arange(task.validation_samples)[:: -(-task.validation_samples // 6)]]
    observations = run.policy.observation_normalizer.inverse(task.observations)[steps[:, :2]]
    true = run.policy.executed_part(task.actions[steps])
    for row in result["rows"]:
        settings = SamplingConfig(row["sampler"], times=row["times"])
        sampler = Sampler(run.sampler.objective, settings)
        samples = []
        for number in range(2):
            generator = named_generator(0, "tune sampling", number)
            noise = torch.stack(
                [torch.randn(len(steps), 16, 2, generator=generator) for _ in range(sampler.noise_count)], dim=1
            )
            samples.append(run.policy.executed_part(run.policy.plan(observations, noise, sampler=sampler)))
        expected = energy_scores(torch.stack(samples).double(), true.double())
        assert row["energy_score"] == pytest.approx(float(expected.mean()), rel=1e-4)


def test_a_start_of_its_own_is_kept(run_dir: Path, tuned: Run) -> None:
    """As a student has, which is evaluated first where its teacher's prediction tells of the sample."""
    path = run_dir / "config.yaml"
    values = yaml.safe_load(path.read_text())
    values["sampling"]["times"] = [81, 20]
    path.write_text(yaml.safe_dump(values))
    result = tuned("--evaluations", 1, 2, "--episodes", 0)
    assert [row["times"] for row in result["rows"] if row["evaluations"] == 1] == [[99], [81]]
    assert {row["times"][0] for row in result["rows"] if row["kind"] == "found"} == {81}


def test_without_held_out_windows_or_an_environment(run_dir: Path, tuned: Run) -> None:
    path = run_dir / "config.yaml"
    values = yaml.safe_load(path.read_text())
    values["task"] |= {"val_ratio": 0.0, "environment": None}
    path.write_text(yaml.safe_dump(values))
    result = tuned("--evaluations", 2)
    assert "6 windows of training episodes, since task.val_ratio holds none out" in result["said"]
    assert "The task has no environment: demonstrations alone decide." in result["said"]
    assert not any("score" in row for row in result["rows"])
    (chosen,) = (row for row in result["rows"] if row["chosen"])
    assert chosen["energy_score"] == min(row["energy_score"] for row in result["rows"][1:])
    assert result["use"] is None
    assert "sampled as before (nothing was rolled out; --use N says otherwise)" in result["said"]
    assert TunedSampling.read(run_dir) is not None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--evaluations", "0"], "--evaluations 0 must be at least 1."),
        (["--evaluations", "17"], "--evaluations 17 must lie between 1 and 16."),
        (["--use", "3"], "--use 3 is not among --evaluations 1 2 4."),
        (["--windows", "1"], "--windows 1 must be at least 2."),
        (["--noises", "1"], "--noises 1 must be at least 2."),
        (["--tolerance", "nan"], "--tolerance nan must be finite."),
        (["--seed", "99999"], "--seed 99999 with --episodes 100 meets the seeds that score the run, from 100000"),
        (["--checkpoint", "7"], "has no checkpoint '7'"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], sentence: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune-sampling", str(run_dir), *arguments]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (run_dir / "sampling.yaml").exists()


def test_an_interruption_leaves_what_was_there(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    kept = TunedSampling(3, None, {}).write(run_dir).read_text()
    monkeypatch.setattr(PolicyEvaluator, "__call__", stop)
    few = ["--windows", "4", "--noises", "2", "--evaluations", "1", "--episodes", "2", "--workers", "0"]
    assert main(["tune-sampling", str(run_dir), *few]) == 130
    assert (run_dir / "sampling.yaml").read_text() == kept
    assert not list(run_dir.glob(".*.partial"))


def test_runs_of_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("track: images\n")
    assert main(["tune-sampling", str(tmp_path)]) == 2
    assert "is a run of images, and tune-sampling measures actions" in capsys.readouterr().err


def test_steps_of_its_own_are_not_tuned(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ROBOT.load(run_dir)
    task = ROBOT.build(run.config)
    monkeypatch.setattr(DiscreteProcess, "samplers", ("own",))
    with pytest.raises(UserError, match=r"diffusion.family=ddpm has steps of its own, so that there are no times"):
        tune(run_dir, run, task, TuneConfig(), 0, print)


def row(kind: str, evaluations: int, times: tuple[float, ...], energy: float, *scores: float) -> Row:
    settings = SamplingConfig("ddim", times=list(times))
    over = {"energy_over": energy - 0.5, "energy_error": 0.01} if kind == "found" else {}
    return Row(kind, evaluations, settings, times, energy, scores=np.array(scores) if scores else None, **over)


def rows() -> list[Row]:
    return [
        row("own", 3, (99, 66, 32), 0.4, 1.0, 0.8),
        row("even", 1, (99,), 0.7, 0.5, 0.7),
        row("even", 2, (99, 49), 0.5, 0.6, 0.8),
        row("found", 2, (99, 20), 0.3, 0.9, 0.7),
        row("found", 2, (99, 40), 0.45, 1.0, 0.7),
    ]


@pytest.mark.parametrize(
    ("tolerance", "use", "expected"), [(0.02, None, None), (0.05, None, 2), (0.31, None, 1), (0.02, 1, 1)]
)
def test_the_fewest_evaluations_within_the_tolerance_are_used(
    tolerance: float, use: int | None, expected: int | None
) -> None:
    made = rows()
    found = choose(10, made, TuneConfig((2, 1), tolerance=tolerance, use=use))
    assert [one.times for one in made if one.chosen] == [(99,), (99, 40)], "the highest score, not the lowest energy"
    assert (found.step, found.use, list(found.grids)) == (10, expected, [1, 2])
    grid = found.grids[2]
    assert (grid["score"], grid["over_even"][0], grid["over_own"][0]) == (0.85, 0.15, -0.05)
    assert grid["times"] == [99, 40]


def test_the_table() -> None:
    made = rows()
    tuning = Tuning(made, choose(10, made, TuneConfig((1, 2), tolerance=0.1)), held_out=True, windows=6)
    lines = [" ".join(line.split()) for line in table(tuning).splitlines()]
    assert lines[1] == "3 ddim 99,66,32 0.4000 - 0.900 - - own"
    assert lines[2] == "1 ddim 99 0.7000 - 0.600 - -0.300 [-0.500, -0.100] even chosen"
    energy, episodes = "0.4500 +0.0500 +- 0.0100", "0.850 +0.150 [-0.100, +0.400] -0.050 [-0.100, +0.000]"
    assert lines[5] == f"2 ddim 99,40 {energy} {episodes} found chosen in use"
    assert "sampled by ddim at 99,40 from now on" in conclusion(tuning)
    made = rows()
    before = Tuning(made, choose(10, made, TuneConfig((1, 2), tolerance=0.0)), held_out=True, windows=6)
    assert table(before).splitlines()[1].endswith("own in use")
    assert "sampled as before (no choice is within the tolerance of 0.900)" in conclusion(before)
