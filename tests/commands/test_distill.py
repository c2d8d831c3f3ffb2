"""`policy-accel distill`: a student's run, of policies and of images."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.data import write_zarr
from support.methods import DIT, IMAGES_COMMON, MLP
from support.quick import quick_runs
from support.runs import training_rows

from policy_accel import Policy
from policy_accel.cli import main
from policy_accel.data import Episodes
from policy_accel.distill import LR, STEPS, WARM_UP
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import TunedSampling
from policy_accel.training.checkpoint import load_checkpoint, save_checkpoint
from policy_accel.training.distillation import DistillationConfig
from policy_accel.training.update import Update

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "few_steps.md").read_text()
SHORT = ["training.steps=4", "training.optimizer.warmup_steps=1", "training.logging.every=2"]
CAPTURE = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_runs():
        yield


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy for Push-T and an image model with classes, each of a few updates: `policy`, `images`."""
    folder = tmp_path_factory.mktemp("teachers")
    generator = np.random.default_rng(0)
    arrays = {name: generator.uniform(0, 512, (90, size)).astype("f4") for name, size in (("state", 5), ("action", 2))}
    write_zarr(folder / "made.zarr.zip", Episodes(arrays, np.array([30, 60, 90])))
    common = ["training.device=cpu", "training.precision=fp32", "training.steps=6", "training.batch_size=8"]
    robot = ["task=pusht_state", f"task.data={folder / 'made.zarr.zip'}", *MLP, "evaluation.videos=0"]
    scored = ["evaluation.episodes=1", "evaluation.workers=0", "task.max_steps=8", "training.evaluate_every=3"]
    ROBOT.train(ROBOT.config([*robot, *common, *scored, "training.optimizer.lr=1e-2", f"run_dir={folder / 'policy'}"]))
    images = [*IMAGES_COMMON, *DIT, *common, "task.label_dropout=0.2", f"run_dir={folder / 'images'}"]
    IMAGES.train(IMAGES.config(images))
    return folder


@pytest.fixture
def runs(teachers: Path, tmp_path: Path) -> Path:
    """A folder with these runs, for one test."""
    for name in ("policy", "images"):
        shutil.copytree(teachers / name, tmp_path / name, symlinks=True)
    return tmp_path


def distill(run_dir: Path, *words: str, evaluations: int = 1) -> int:
    return main(["distill", str(run_dir), "--evaluations", str(evaluations), *SHORT, *words])


def weights(run_dir: Path, name: str = "ema", checkpoint: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run_dir / "checkpoints" / checkpoint / f"{name}.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_student_is_a_run_like_any_other(runs: Path, capsys: CAPTURE) -> None:
    """It is scored at the end, loaded, evaluated and listed, all without its teacher."""
    assert distill(runs / "policy", evaluations=2) == 0
    assert "ddim with 2 evaluations a chunk" in capsys.readouterr().out
    student = runs / "policy-distilled2"
    rows = training_rows(student)
    assert [row["step"] for row in rows] == [2, 4]
    shutil.rmtree(runs / "policy")
    assert main(["evaluate", str(student), "--episodes", "1", "--workers", "0", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["network_evaluations"] == 2
    loaded = ROBOT.load(student)
    assert loaded.sampler.grid.timesteps == (99, 25)
    assert same(loaded.policy.state_dict(), weights(student))
    assert np.isfinite(Policy.load(student, device="cpu").act(np.zeros(5))).all()
    assert main(["report", str(student), "--output", str(runs / "page.html")]) == 0


def test_a_student_begins_as_its_teacher(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The average of the checkpoint that was named, and its network gives the teacher's predictions."""
    begun: list[dict[str, torch.Tensor]] = []
    call = Update.__call__

    def noted(update: Update, step: int) -> Any:
        if step == 0:
            begun.append({name: value.clone() for name, value in update.task.model.state_dict().items()})
            begun.append({name: value.clone() for name, value in update.ema.model.state_dict().items()})
        return call(update, step)

    monkeypatch.setattr(Update, "__call__", noted)
    assert distill(runs / "policy", "--checkpoint", "3", "evaluation.episodes=0") == 0
    expected = weights(runs / "policy", checkpoint="00000003")
    assert not same(expected, weights(runs / "policy"))
    assert same(begun[0], expected)
    assert same(begun[1], expected)
    assert not same(weights(runs / "policy-distilled1"), expected)


def test_the_tuned_sampling_of_a_teacher_teaches_nothing_else(runs: Path, capsys: CAPTURE) -> None:
    """Nor is the teacher needed to tune its student."""
    alone = ["evaluation.episodes=0", "training.checkpoint.every=4"]
    assert distill(runs / "policy", *alone) == 0
    TunedSampling(6, 1, {1: {"sampler": "ddpm", "times": [99]}}).write(runs / "policy")
    assert distill(runs / "policy", *alone, f"run_dir={runs / 'again'}") == 0
    assert same(weights(runs / "again"), weights(runs / "policy-distilled1"))
    shutil.rmtree(runs / "policy")
    few = ["--windows", "4", "--noises", "2", "--episodes", "0", "--evaluations", "1", "2", "--use", "2"]
    assert main(["tune-sampling", str(runs / "again"), *few, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["use"] == 2


def test_what_a_student_keeps_and_what_is_its_own(runs: Path, capsys: CAPTURE) -> None:
    muon = ["training.optimizer.matrix_lr=0.002", "training/optimizer=muon"]
    assert distill(runs / "policy", "seed=7", *muon, "--print-config") == 0
    student = yaml.safe_load(capsys.readouterr().out)
    teacher = yaml.safe_load((runs / "policy" / "config.yaml").read_text())
    for section in ("task", "model", "policy", "encoder", "diffusion"):
        assert student[section] == teacher[section]
    assert student["training"]["batch_size"] == teacher["training"]["batch_size"] == 8
    assert student["distillation"]["teacher"] == str(runs / "policy")
    assert student["distillation"]["checkpoint"] == "6"
    assert student["sampling"]["times"] == [99]
    assert student["seed"] == 7
    optimizer = student["training"]["optimizer"]
    assert (optimizer["name"], optimizer["matrix_lr"], optimizer["lr"]) == ("muon", 0.002, 0.001)
    assert optimizer["schedule"] == "linear"
    assert student["run_dir"] == f"{runs / 'policy'}-distilled1"
    main(["distill", str(runs / "policy"), "--evaluations", "1", "--print-config"])
    student = yaml.safe_load(capsys.readouterr().out)
    optimizer = student["training"]["optimizer"]
    assert (student["training"]["steps"], optimizer["warmup_steps"], optimizer["schedule"]) == (300, 20, "linear")
    assert optimizer["lr"] == 1e-3
    assert student["training"]["evaluate_every"] == 0


@pytest.mark.parametrize("name", ["policy", "images"])
def test_a_student_that_was_stopped_goes_on_bit_for_bit(runs: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["evaluation.episodes=0"] if name == "policy" else []
    assert distill(runs / name, *words, f"run_dir={runs / 'whole'}", evaluations=2) == 0
    call, crash = Update.__call__, Crash()

    def stopped(update: Update, step: int) -> Any:
        if step == 2:
            crash()
        return call(update, step)

    monkeypatch.setattr(Update, "__call__", stopped)
    words += ["training.checkpoint.every=1"]
    with pytest.raises(RuntimeError, match="killed"):
        distill(runs / name, *words, evaluations=2)
    student = runs / f"{name}-distilled2"
    assert (student / "checkpoints" / "last").resolve().name == "00000002"
    assert distill(runs / name, *words, evaluations=2) == 0
    for part in ("model", "ema", "optimizer"):
        assert same(weights(student, part), weights(runs / "whole", part))


class Crash:
    """Once."""

    done = False

    def __call__(self) -> None:
        if not self.done:
            self.done = True
            raise RuntimeError("killed")


def test_images_are_taught_with_guidance(runs: Path) -> None:
    """The student needs none, and follows another teacher than without it."""
    losses = []
    for words in ([], ["distillation.guidance=3"]):
        student = runs / f"student{len(words)}"
        assert distill(runs / "images", *words, f"run_dir={student}", "training.optimizer.lr=1e-9") == 0
        losses.append([row["loss"] for row in training_rows(student)])
        assert IMAGES.load(student).config.sampling.guidance == 1.0
    assert losses[0] != losses[1]
    task = IMAGES.build(IMAGES.read(runs / "student1"))
    assert task.lesson is not None
    assert task.lesson.evaluations == 2 * 8
    assert main(["sample", str(runs / "student1"), "--count", "2", "--labels", "all"]) == 0


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no run": (["nowhere", "--evaluations", "1"], "nowhere: no such file or run"),
    "no evaluations": (["policy", "--evaluations", "0"], "--evaluations 0 must be at least 1"),
    "too many evaluations": (["policy", "--evaluations", "60"], "--evaluations 60 is more than the times of"),
    "no checkpoint": (["policy", "--evaluations", "1", "--checkpoint", "5"], "has no checkpoint '5'"),
    "other data": (["policy", "--evaluations", "1", "task.data=x"], "a student has the data, the network and the"),
    "other network": (["policy", "--evaluations", "1", "model=unet"], "a student has the data, the network and the"),
    "a typo": (["policy", "--evaluations", "1", "training.step=3"], "did you mean 'training.steps'?"),
    "a wrong type": (["policy", "--evaluations", "1", "training.steps=many"], "training.steps=many must be a whole"),
    "no value": (["policy", "--evaluations", "1", "training.steps"], "'training.steps' is not of the form"),
    "a wrong choice": (["policy", "--evaluations", "1", "training/optimizer=sgd"], "training/optimizer 'sgd' is"),
    "a random sampler": (["policy", "--evaluations", "1", "sampling.sampler=ddpm"], "sampling.sampler=ddpm is not"),
    "guidance": (["policy", "--evaluations", "1", "distillation.guidance=2"], "guidance=2.0 is for images"),
    "too many steps": (["policy", "--evaluations", "1", "distillation.steps=101"], "distillation.steps=101 must lie"),
    "no lesson": (["policy", "--evaluations", "1", "distillation.teacher=''"], "distillation.checkpoint=6 has no"),
    "two counts": (["policy", "--evaluations", "1", "sampling.times=[99,25]"], "--evaluations 1 and sampling.times"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, runs: Path, capsys: CAPTURE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    words, message = MISTAKES[mistake]
    assert main(["distill", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (runs / "policy-distilled1" / "checkpoints").exists()


def test_a_student_does_not_go_on_with_another_teacher(runs: Path, capsys: CAPTURE) -> None:
    """Not even with one in the same place."""
    assert distill(runs / "policy", "evaluation.episodes=0") == 0
    saved = load_checkpoint(runs / "policy" / "checkpoints" / "00000006")
    shutil.rmtree(saved.path)
    ema = {name: value + 0.01 for name, value in saved.tensors["ema"].items()}
    state = {name: value for name, value in saved.state.items() if name not in ("files", "format", "step")}
    save_checkpoint(saved.path.parent, 6, {**saved.tensors, "ema": ema}, state)
    assert distill(runs / "policy", "evaluation.episodes=0") == 2
    assert "was taught by another network than the teacher is now" in capsys.readouterr().err
    shutil.rmtree(runs / "policy")
    assert distill(runs / "policy", "evaluation.episodes=0") == 2
    assert "policy: no such file or run" in capsys.readouterr().err


def test_a_run_of_other_data_teaches_nothing(runs: Path, capsys: CAPTURE, tmp_path: Path) -> None:
    """The same through `train`, which takes a teacher too."""
    common = [f"distillation.teacher={runs / 'policy'}", f"run_dir={tmp_path / 'x'}", "evaluation.episodes=0"]
    assert main(["train", "task=pusht_state", *MLP, *common]) == 2
    assert "was trained on other data than the task has now" in capsys.readouterr().err
    data = yaml.safe_load((runs / "policy" / "config.yaml").read_text())["task"]["data"]
    assert main(["train", "task=pusht_state", f"task.data={data}", "model=mlp", *common]) == 2
    assert "has another network or process than its student (model.hidden_dims" in capsys.readouterr().err
    assert main(["train", "task=pusht_state", f"task.data={data}", *MLP, "diffusion.timesteps=200", *common]) == 2
    assert "process than its student (diffusion.timesteps: 100 -> 200" in capsys.readouterr().err
    assert main(["train", "task=pusht_state", "method=immiscible", *common]) == 2
    assert "acceleration.noise.name=assignment has no effect with distillation.teacher" in capsys.readouterr().err


COMMANDS = re.findall(r"^    policy-accel (distill RUN .*)$", PAGE, flags=re.MULTILINE)


def test_the_commands_of_the_page(runs: Path) -> None:
    assert len(COMMANDS) == 3
    for number, line in enumerate(COMMANDS):
        words = [str(runs / "policy") if word == "RUN" else word for word in shlex.split(line)]
        student = runs / f"of{number}"
        assert main([*words, *SHORT, "evaluation.episodes=0", f"run_dir={student}"]) == 0
        assert ROBOT.load(student).step == 4


def test_the_defaults_of_the_page() -> None:
    assert f"{STEPS} updates of AdamW at a learning rate of {LR}" in PAGE.replace("\n", " ")
    assert f"{WARM_UP} of them warm-up" in PAGE.replace("\n", " ")
    assert f"(`distillation.steps`, {DistillationConfig.steps})" in PAGE
    assert f"`distillation.refine_below` ({DistillationConfig.refine_below})" in PAGE


def test_the_figures_of_the_page() -> None:
    recorded = json.loads((Path(__file__).parents[2] / "benchmarks/results/distillation_cpu.json").read_text())
    part = PAGE.split("### What it gives", 1)[1].split("###", 1)[0]
    for result in recorded["teacher"]:
        assert f"{result['score']:.3f}" in part
    for student in recorded["students"]:
        (row,) = [line for line in part.splitlines() if line.startswith(f"| `{student['distill']}` |")]
        for result in student["scores"]:
            paired = result["minus_teacher_at_its_most"]
            if f"{result['score']:.3f}" in row:
                assert f"{paired['difference']:+.3f} +- {paired['half_width']:.3f}" in row
        assert row.count("0.") >= 3
