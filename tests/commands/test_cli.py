from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from support.data import write_zarr

from policy_accel.cli import main
from policy_accel.data import Episodes, read_episodes
from policy_accel.errors import UserError
from policy_accel.files import new_path
from policy_accel.training.ranks import Told

Train = Callable[..., list[str]]


@pytest.fixture
def demonstrations(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    arrays = {
        "state": generator.uniform(0, 512, (90, 5)).astype("f4"),
        "action": generator.uniform(0, 512, (90, 2)).astype("f4"),
    }
    path = tmp_path / "made.zarr.zip"
    write_zarr(path, Episodes(arrays, np.array([30, 60, 90])))
    return path


@pytest.fixture
def train(demonstrations: Path, tmp_path: Path) -> Train:
    """Arguments of a short training."""

    def arguments(*overrides: str) -> list[str]:
        return [
            "train",
            "task=pusht_state",
            f"task.data={demonstrations}",
            "model.down_dims=[8,16]",
            "training.steps=6",
            "training.batch_size=4",
            "training.device=cpu",
            "evaluation.episodes=2",
            "evaluation.videos=1",
            "evaluation.workers=0",
            "task.max_steps=16",
            f"run_dir={tmp_path / 'run'}",
            *overrides,
        ]

    return arguments


def test_a_run_that_is_shown_elsewhere_has_its_report(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made after the score is kept; where it cannot be made, a sentence says so and the run is done all the same."""
    assert main(train("training.logging.tensorboard=true")) == 0
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert ">Runs</h2>" in (tmp_path / "run" / "report.html").read_text()
    (tmp_path / "run" / "report.html").write_text("a page of another hand")
    capsys.readouterr()
    assert main(train("training.logging.tensorboard=true")) == 0
    assert "No report was made: --output" in capsys.readouterr().err
    assert (tmp_path / "run" / "report.html").read_text() == "a page of another hand"


def test_train_then_evaluate(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    assert main(train()) == 0
    printed, said = capsys.readouterr()
    assert f"Training pusht_state with unet in {run_dir}\n" in said
    assert "Score " in printed
    assert str(run_dir / "learning_curve.png") in printed
    names = {path.name for path in run_dir.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "evaluation.json", "videos", "learning_curve.png"} <= names
    assert (run_dir / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (run_dir / "videos").iterdir()] == ["100000.mp4"]
    trained = json.loads((run_dir / "evaluation.json").read_text())
    assert trained["step"] == 6
    assert [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()] == [trained]

    options = ["--episodes", "3", "--seed", "5", "--sampler", "ddpm", "--sampling-steps", "2", "--workers", "0"]
    assert main(["evaluate", str(run_dir), *options, "--videos", "0", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["seed"] for row in result["episodes"]] == [5, 6, 7]
    assert (result["sampler"], result["sampling_steps"], result["network_evaluations"]) == ("ddpm", 2, 2)
    assert json.loads((run_dir / "evaluation.json").read_text()) == result
    assert len((run_dir / "evaluations.jsonl").read_text().splitlines()) == 2


def test_the_same_command_again_leaves_a_finished_run_alone(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train()) == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    first = capsys.readouterr().out
    assert main(train()) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    assert next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Score")) in first


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["training.stepps=3"], "no key 'training.stepps'; did you mean 'training.steps'?"),
        (["lr=3"], "no key 'lr'; did you mean 'training.optimizer.lr'?"),
        (["+training.extra=1"], "'+training.extra=1': keys cannot be added or removed"),
        (["training.steps=many"], "training.steps=many must be a whole number, for example 4, 1000 or 1e4."),
        (["model=unett"], "model=unett is unknown; did you mean 'unet'?"),
        (["task=pushT"], "task=pushT is unknown; did you mean 'pusht_"),
        (["training.steps"], "'training.steps' is not of the form key=value"),
        (["task.data=/no/such/file.zarr"], "/no/such/file.zarr"),
        (["policy.horizon=17"], "policy.horizon=17 is not divisible by 2"),
        (["policy.n_action_steps=16"], "policy.n_action_steps=16 is more than horizon - n_obs_steps + 1"),
        (["task.observation=[stat]"], "did you mean 'state'?"),
        (["diffusion.target=eps"], "diffusion.target 'eps' does not go with this process; did you mean"),
        (["task.environment=policy_accel/Nowhere-v0"], "policy_accel/Nowhere-v0"),
        (
            ["task.environment_options={observation: keypoints}"],
            "the demonstrations have 5 numbers a step; make task.observation",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(
    train: Train, capsys: pytest.CaptureFixture[str], overrides: list[str], sentence: str
) -> None:
    assert main(train(*overrides)) == 2
    said = capsys.readouterr().err
    assert "Training" not in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("policy-accel: ")
    assert sentence in last
    assert "Traceback" not in last


def test_another_configuration_in_the_run_directory(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train()) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert main(train("training.optimizer.lr=0.5")) == 2
    assert "training.optimizer.lr: 0.001 -> 0.5" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_no_permission(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    user = os.geteuid()
    if user == 0:
        for folder in (tmp_path, *tmp_path.parents):
            if folder.name.startswith(("pytest-", "popen-", tmp_path.name)):
                os.chmod(folder, 0o755)
        os.seteuid(65534)
    try:
        status = main(train(f"run_dir={locked / 'run'}"))
    finally:
        os.seteuid(user)
    assert status == 2
    assert f"{locked / 'run'}: no permission to write it" in capsys.readouterr().err


def test_print_config_is_the_whole_configuration(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    assert main([*train("training.steps=123"), "--print-config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["training"]["steps"] == 123
    assert set(config) == {
        "track",
        "plugins",
        "acceleration",
        "method",
        "task",
        "model",
        "encoder",
        "policy",
        "diffusion",
        "sampling",
        "training",
        "distillation",
        "init_from",
        "init_normalizer",
        "evaluation",
        "label",
        "seed",
        "run_dir",
    }


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom policy_accel.cli import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'gymnasium' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "training.steps" in done.stdout


def test_ctrl_c_saves_and_says_how_to_go_on(train: Train, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "policy_accel",
        *train("training.steps=100000", "training.checkpoint.every=20"),
    ]
    log = tmp_path / "log"
    with open(log, "w") as output:
        process = subprocess.Popen(command, stderr=output, stdout=output)
        checkpoints = tmp_path / "run" / "checkpoints"
        deadline = time.monotonic() + 120
        while not (checkpoints / "last").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=60)
    said = log.read_text()
    assert status == 130, said
    assert "of 100000 updates, saved in" in said
    assert "To go on: policy-accel train task=pusht_state" in said
    assert "Traceback" not in said
    step = int(said.split("Stopped after ")[1].split()[0])
    assert (checkpoints / f"{step:08d}" / "state.json").is_file()


def test_inspect(demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(demonstrations)]) == 0
    printed = capsys.readouterr().out
    assert "episodes: 3, steps: 90" in printed
    assert "action: [90, 2] float32" in printed
    content = demonstrations.read_bytes()
    demonstrations.write_bytes(content[: len(content) // 2])
    assert main(["data", "inspect", str(demonstrations)]) == 2
    assert main(["data", "inspect", str(tmp_path / "nowhere")]) == 2


def test_generate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "made_by_expert.zarr.zip"
    command = ["data", "generate", "pusht", "--episodes", "1", "--seed", "3", "--workers", "1", "--output", str(output)]
    assert main(command) == 0
    episodes = read_episodes(output)
    assert len(episodes) == 1
    assert set(episodes.arrays) == {"state", "action", "keypoint"}
    assert main(command) == 2
    assert "exists already and is not overwritten" in capsys.readouterr().err


def test_fetch_of_an_unknown_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "pushed", "--to", str(tmp_path)]) == 2
    assert "did you mean 'pusht'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_processes_of_a_run_say_what_they_alone_met(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)

    def fail(error: UserError) -> str:
        monkeypatch.setattr("policy_accel.commands.list.run_list", mock.Mock(side_effect=error))
        assert main(["list", "tasks"]) == 2
        return capsys.readouterr().err

    assert fail(UserError("no GPU here.")) == "policy-accel: process 3: no GPU here.\n"
    assert fail(Told("said by the first.")) == ""


def test_sigterm_is_as_ctrl_c_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(options: object) -> int:
        with new_path(tmp_path / "new") as temporary:
            temporary.write_text("half of it")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        return 0

    monkeypatch.setattr("policy_accel.commands.list.run_list", killed)
    assert main(["list", "tasks"]) == 130
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
