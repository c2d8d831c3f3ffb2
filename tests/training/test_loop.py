from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from policy_accel.diffusion import Repetition, karhunen_loeve_process
from policy_accel.errors import UserError
from policy_accel.models import Denoiser
from policy_accel.run_files import checkpoint_steps, read_metrics
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.checkpoint import evaluation_of, load_checkpoint

Run = Callable[..., Trained]


def weights(folder: Path, step: int = 12) -> dict[str, torch.Tensor]:
    loaded = load_checkpoint(folder / "checkpoints" / f"{step:08d}")
    return {f"{file}/{key}": value for file, values in loaded.tensors.items() for key, value in values.items()}


def assert_equal_weights(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_training_lowers_the_loss(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    config.steps, config.logging.every = 300, 50
    trained = run(toy_task(), config)
    losses = [row["loss"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
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
    logged = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert [row["samples"] for row in logged] == [samples * row["step"] for row in logged]
    assert logged[-1]["training_flops"] == 10.0 * sum(seen) == 10.0 * rows * 12


@pytest.mark.parametrize("stop", [1, 3, 4, 7, 11])
def test_a_stopped_run_continues_bit_for_bit(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, stop: int
) -> None:
    run(toy_task(), config, "whole")

    def crash(step: int) -> None:
        if step == stop:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(toy_task(), config, "parts", after_update=crash)
    torch.rand(100)
    run(toy_task(), config, "parts")
    assert_equal_weights(tmp_path / "whole", tmp_path / "parts")
    whole, parts = (
        [
            (row["step"], row.get("loss"), row.get("validation_loss"))
            for row in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("whole", "parts")
    )
    assert [row for row in parts if row[2] is not None] == [row for row in whole if row[2] is not None]
    assert [row[0] for row in parts] == sorted(row[0] for row in parts)


def test_a_checkpoint_from_before_tasks_drew_anything_continues(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    def crash(step: int) -> None:
        if step == 7:
            raise RuntimeError("killed")

    run(toy_task(), config, "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(toy_task(), config, "parts", after_update=crash)
    for record in (tmp_path / "parts" / "checkpoints").glob("0*/state.json"):
        state = json.loads(record.read_text())
        del state["generators"]["batch"], state["ema_samples"]
        record.write_text(json.dumps(state))
    run(toy_task(), config, "parts")
    assert_equal_weights(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_a_second_start_goes_on(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, number: int
) -> None:
    def interrupt(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    stopped = run(toy_task(), config, "parts", after_update=interrupt)
    assert (stopped.step, stopped.finished) == (5, False)
    assert checkpoint_steps(tmp_path / "parts" / "checkpoints") == [3, 5]
    assert signal.getsignal(number) == before
    assert run(toy_task(), config, "parts").finished
    run(toy_task(), config, "whole")
    assert_equal_weights(tmp_path / "whole", tmp_path / "parts")


def test_a_signal_at_a_checkpoint_step_finds_it_saved(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    def interrupt(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = run(toy_task(), config, after_update=interrupt)
    assert (stopped.step, stopped.finished) == (6, False)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [3, 6]
    assert run(toy_task(), config).finished


def test_a_second_signal_stops_at_once_and_says_what_was_saved(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    def interrupt(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    assert run(toy_task(), config, after_update=interrupt).step == 3
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [3]


def test_a_finished_run_is_left_as_it_is(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    run(toy_task(), config)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    task = toy_task()
    assert run(task, config).finished
    assert task.batches == []
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_nan_loss_stops_with_a_sentence_and_keeps_the_last_good_checkpoint(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    task = toy_task()

    def poison(step: int) -> None:
        if step == 7:
            task.data[:] = math.nan

    with pytest.raises(UserError, match=r"loss of update 8 is nan.*checkpoints/00000006.*training\.optimizer\.lr"):
        run(task, config, after_update=poison)
    folder = tmp_path / "run" / "checkpoints"
    assert checkpoint_steps(folder) == [3, 6]
    assert all(bool(v.isfinite().all()) for v in load_checkpoint(folder / "last").tensors["model"].values())


def test_weights_that_are_not_finite_are_not_saved(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    """The loss of an update comes before its gradient: it may still be finite when the weights no longer are."""
    task = toy_task()

    def poison(step: int) -> None:
        if step == 6:
            next(task.model.parameters()).data.fill_(math.inf)

    with pytest.raises(UserError, match=r"weights after update 6 are not finite.*checkpoints/00000003"):
        run(task, config, after_update=poison)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [3]


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
    rows = {row["step"]: row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row}
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


def test_an_evaluation_that_was_cut_off_is_made_up_for(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.evaluate_every = 4

    def interrupted(model: Denoiser) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal must stop the evaluation")

    stopped = run(toy_task(interrupted), config)
    assert (stopped.step, stopped.finished) == (4, False)
    scored: list[int] = []

    def score(model: Denoiser) -> dict[str, Any]:
        scored.append(1)
        return {"score": 0.5}

    assert run(toy_task(score), config).finished
    assert len(scored) == 3
    assert evaluation_of(tmp_path / "run" / "checkpoints" / "00000004") == {"score": 0.5}


def test_further_averages_are_saved_and_continue_bit_for_bit(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.ema.lengths, config.ema.half_life, config.ema.half_life_ramp = [0.05, 0.1], 30.0, 0.5
    run(toy_task(jitter=0.1), config, "whole")

    def crash(step: int) -> None:
        if step == 7:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(toy_task(jitter=0.1), config, "parts", after_update=crash)
    run(toy_task(jitter=0.1), config, "parts")
    assert_equal_weights(tmp_path / "whole", tmp_path / "parts")
    saved = load_checkpoint(tmp_path / "whole" / "checkpoints" / "last")
    assert {"ema_0.05.safetensors", "ema_0.1.safetensors"} <= set(saved.state["files"])
    assert saved.state["ema_samples"] == 12 * config.batch_size
    key = "layers.0.weight"
    distances = [
        float((saved.tensors[name][key] - saved.tensors["model"][key]).norm()) for name in ("ema_0.05", "ema_0.1")
    ]
    assert 0 < distances[0] < distances[1]


def test_further_averages_change_nothing_else(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    run(toy_task(), config, "one")
    config.ema.lengths = [0.05]
    run(toy_task(), config, "several")
    one, several = weights(tmp_path / "one"), weights(tmp_path / "several")
    assert all(torch.equal(one[key], several[key]) for key in one)
    assert {key.split("/")[0] for key in several.keys() - one.keys()} == {"ema_0.05"}


def test_another_configuration_in_the_directory_is_refused(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    run(toy_task(), config, run_config={"training": {"lr": 1, "device": "cpu"}, "a": {"b": 2}})
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(UserError, match=r"another configuration \(a\.b: 2 -> 3\); choose another run_dir"):
        run(toy_task(), config, run_config={"training": {"lr": 1, "device": "cuda"}, "a": {"b": 3}})
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


def test_a_refused_setting_does_not_claim_the_directory(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.optimizer.lr = -1.0
    with pytest.raises(UserError, match="must be positive"):
        run(toy_task(), config, run_config={"lr": -1.0})
    assert not (tmp_path / "run").exists()


def test_a_directory_in_which_nothing_was_learnt_takes_another_configuration(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    def crash(step: int) -> None:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        run(toy_task(), config, run_config={"lr": 1}, after_update=crash)
    (tmp_path / "run" / ".config.yaml.77.partial").write_text("lr: ")
    assert run(toy_task(), config, run_config={"lr": 2}).finished
    assert (tmp_path / "run" / "config.yaml").read_text() == "lr: 2\n"


def test_a_run_is_not_continued_on_other_data(toy_task: Any, config: TrainingConfig, run: Run) -> None:
    run(toy_task(), config)
    other = toy_task()
    other.fingerprint = "changed"
    with pytest.raises(UserError, match="was trained on other data"):
        run(other, config)


def test_two_processes_do_not_train_in_one_directory(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    def start_another(step: int) -> None:
        if step == 2:
            with pytest.raises(UserError, match="Another process is training in run_dir="):
                run(toy_task(), config)

    assert run(toy_task(), config, after_update=start_another).finished


def test_a_directory_of_something_else_is_refused(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not empty and is not a run of ours"):
        run(toy_task(), config)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_of_the_run_directory(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        run(toy_task(), config)
    assert (tmp_path / "run").read_text() == "mine"


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


def test_a_cut_off_metrics_line_is_dropped_at_resume(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    def crash(step: int) -> None:
        if step == 8:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(toy_task(), config, after_update=crash)
    metrics = tmp_path / "run" / "metrics.jsonl"
    with open(metrics, "a") as file:
        file.write('{"step": 8, "lo')
    run(toy_task(), config)
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12


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
