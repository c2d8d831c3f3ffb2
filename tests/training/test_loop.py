"""What a run does from its first update to its last: its rows, its checkpoints, its scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import training_rows, weights

from policy_accel.diffusion import Repetition, karhunen_loeve_process
from policy_accel.errors import UserError
from policy_accel.run_files import checkpoint_steps, read_metrics
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.checkpoint import evaluation_of

Run = Callable[..., Trained]


def test_training_lowers_the_loss(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    config.steps, config.logging.every = 300, 50
    trained = run(toy_task(), config)
    losses = [row["loss"] for row in training_rows(tmp_path / "run")]
    assert trained.finished
    assert trained.step == 300
    assert losses[-1] < 0.8 * losses[0]


def test_rows_checkpoints_and_epochs(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    task = toy_task()
    run(task, config)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [2, 3, 4, 6, 8, 9, 11, 12]
    assert [row["step"] for row in rows if "validation_loss" in row] == [4, 8, 12]
    assert rows[-2]["epoch"] == pytest.approx(12 * 8 / 40)
    assert [row["samples"] for row in rows if "loss" in row][-1] == 12 * 8
    assert not any("training_flops" in row for row in rows)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [9, 12]
    assert all(len(batch) == 8 for batch in task.batches)
    assert sorted(index for batch in task.batches[:5] for index in batch) == list(range(40))


@pytest.mark.parametrize(("coupling", "samples", "rows"), [("fresh", 24, 24), ("independent", 8, 24)])
def test_the_log_counts_clean_samples_and_the_work_on_their_rows(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, coupling: str, samples: int, rows: int
) -> None:
    """Three times a sample: three fresh samples, or one that is noised three times and so costs three rows."""
    task = toy_task()
    process = karhunen_loeve_process(task.objective.process, 3)
    path = Repetition(times_per_sample=3, coupling=coupling)
    task.objective = replace(task.objective, process=process, repetition=path)
    task.flops_per_sample = 10.0
    seen: list[int] = []
    task.model.register_forward_pre_hook(
        lambda model, inputs: seen.append(inputs[0].shape[0]) if model.training else None
    )
    run(task, config)
    logged = training_rows(tmp_path / "run")
    assert [row["samples"] for row in logged] == [samples * row["step"] for row in logged]
    assert logged[-1]["training_flops"] == 10.0 * sum(seen) == 10.0 * rows * 12


def test_the_host_reads_losses_only_at_log_points(
    toy_task: Any, config: TrainingConfig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step waits for the device: reading a value on the host happens in `flush`, validation and saving alone."""
    config.steps, config.logging.every, config.validate_every, config.checkpoint.every = 40, 20, 0, 0
    config.ema.lengths, config.ema.half_life = [0.05, 0.1], 100.0
    reads: list[str] = []
    for name in ("item", "__float__", "cpu", "numpy", "__bool__"):
        original = getattr(torch.Tensor, name)

        def watch(self: torch.Tensor, *args: Any, _name: str = name, _original: Any = original) -> Any:
            reads.append(_name)
            return _original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, watch)
    counts: dict[int, int] = {}
    run(toy_task(), config, after_update=lambda step: counts.__setitem__(step, len(reads)))
    per_step = {step: counts[step] - counts[step - 1] for step in range(2, 41)}
    assert [step for step, count in per_step.items() if count] == [21]


def test_checkpoints_at_given_steps_stay_and_have_their_row(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.steps, config.checkpoint.every, config.logging.every = 20, 5, 100
    config.checkpoint.at = [3, 1, 12]
    run(toy_task(), config)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [1, 3, 12, 15, 20]
    rows = {row["step"]: row for row in training_rows(tmp_path / "run")}
    assert {1, 3, 12} <= set(rows)
    assert rows[3]["training_seconds"] > rows[1]["training_seconds"] > 0


def test_evaluations_rank_the_checkpoints(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    scores = iter([0.9, 0.2, 0.3, 0.1, 0.4])
    config.steps, config.evaluate_every, config.checkpoint.every, config.checkpoint.keep_best = 10, 2, 0, 1
    task = toy_task(lambda model: {"score": next(scores), "score_interval": [0.0, 1.0]})
    trained = run(task, config)
    folder = tmp_path / "run" / "checkpoints"
    assert checkpoint_steps(folder) == [2, 8, 10]
    assert evaluation_of(folder / "00000002") == {"score": 0.9, "score_interval": [0.0, 1.0]}
    assert trained.evaluation == {"score": 0.4, "score_interval": [0.0, 1.0]}
    assert task.training_modes == [False] * 5
    assert task.evaluated == [2, 4, 6, 8, 10]
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [(row["step"], row["score"]) for row in rows if "score" in row] == [
        (2, 0.9),
        (4, 0.2),
        (6, 0.3),
        (8, 0.1),
        (10, 0.4),
    ]


def test_further_averages_change_nothing_else(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    run(toy_task(), config, "one")
    config.ema.lengths = [0.05]
    run(toy_task(), config, "several")
    one, several = weights(tmp_path / "one"), weights(tmp_path / "several")
    assert all(torch.equal(one[key], several[key]) for key in one)
    assert {key.split("/")[0] for key in several.keys() - one.keys()} == {"ema_0.05"}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("steps", 0, r"training\.steps=0 must be at least 1"),
        ("batch_size", 0, r"training\.batch_size=0"),
        ("threads", 100_000, r"training\.threads=100000 must be at least 0 and at most 1024"),
        ("validate_every", -1, r"training\.validate_every=-1 must be at least 0"),
        ("precision", "fp8", r"training\.precision 'fp8' is unknown"),
        ("matmul_precision", "hi", r"did you mean 'high'"),
        ("device", "gpu", r"training\.device 'gpu' is not a device"),
        ("device", "cuda:99", r"training\.device 'cuda:99' is not here"),
        ("checkpoint.keep_last", 1, r"checkpoint\.keep_last=1 must be at least 2"),
        ("checkpoint.keep_every", -1, r"checkpoint\.keep_every=-1 must be at least 0"),
        ("checkpoint.keep_every", 4, r"keep_every=4 must be a multiple of training\.checkpoint\.every=3"),
        ("checkpoint.at", [0, 2], r"checkpoint\.at=\[0, 2\] has 0, which is not between 1 and training\.steps"),
        ("checkpoint.at", [2, 9999], r"has 9999, which is not between 1 and training\.steps"),
        ("ema.lengths", [0.4], r"training\.ema\.lengths=0\.4 is not the relative standard deviation"),
        ("logging.wandb", "yes", r"training\.logging\.wandb 'yes' is unknown"),
    ],
)
def test_errors(toy_task: Any, config: TrainingConfig, run: Run, key: str, value: object, sentence: str) -> None:
    *sections, name = key.split(".")
    target: Any = config
    for section in sections:
        target = getattr(target, section)
    setattr(target, name, value)
    with pytest.raises(UserError, match=sentence):
        run(toy_task(), config)


def test_bf16_keeps_weights_and_loss_in_float32(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.precision = "bf16"
    run(toy_task(), config, "bf16")
    config.precision = "fp32"
    run(toy_task(), config, "fp32")
    one, two = weights(tmp_path / "bf16"), weights(tmp_path / "fp32")
    floats = [key for key in one if one[key].is_floating_point()]
    assert {one[key].dtype for key in floats} == {torch.float32}
    assert any(not torch.equal(one[key], two[key]) for key in floats)


def test_matmul_precision_is_set(toy_task: Any, config: TrainingConfig, run: Run) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        config.matmul_precision = "high"
        run(toy_task(), config)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
        config.matmul_precision = "highest"
        run(toy_task(), config, "exact")
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


def test_compile_gives_the_same_loss(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.steps, config.checkpoint.every, config.validate_every = 2, 0, 0
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # no processes of 500 MB that compile one kernel
    torch._dynamo.reset()
    for name, compiled in (("eager", False), ("compiled", True)):
        task = toy_task()
        task.model.layers[3].p = 0.0  # compiled dropout draws other numbers
        config.compile = compiled
        run(task, config, name)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    losses = [read_metrics(tmp_path / name / "metrics.jsonl")[0]["loss"] for name in ("eager", "compiled")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_wandb_offline_and_resumed(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    config.logging.wandb = "offline"
    run(toy_task(), config)
    files = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 1
    assert files[0].stat().st_size > 0


def test_a_run_says_which_settings_have_no_effect_in_one_process(
    toy_task: Any, config: TrainingConfig, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    config.steps, config.shard, config.reduce_precision = 1, True, "bf16"
    run(toy_task(), config)
    idle = "no effect in one process: training.shard=true, training.reduce_precision=bf16"
    assert idle in capsys.readouterr().err
    config.steps, config.shard, config.reduce_precision = 2, False, "fp32"
    run(toy_task(), config, run_config={"training": {"steps": 1}})
    assert "no effect" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("batch", "samples", "parts", "taken"),
    [(256, 185, 1, 128), (100_000, 185, 1, 160), (100, 185, 1, 100), (100, 90, 3, 84), (256, 5, 2, 4), (9, 1, 2, 2)],
)
def test_a_batch_has_each_sample_once(batch: int, samples: int, parts: int, taken: int) -> None:
    assert TrainingConfig(batch_size=batch).within(samples, parts).batch_size == taken


def test_a_batch_of_more_than_the_samples_is_made_smaller_and_said(
    toy_task: Any, config: TrainingConfig, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    task = toy_task()
    trained = run(task, replace(config, batch_size=2**30))
    assert trained.finished
    said = capsys.readouterr().err
    assert f"training.batch_size=1073741824 is more than the {task.samples} training samples; an update takes " in said
