from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.runs import training_rows

from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.run import check_config
from policy_accel.policy.track import ROBOT
from policy_accel.training.checkpoint import load_checkpoint, record_evaluation

Build = Callable[..., RobotConfig]


def test_a_loaded_policy_is_the_average_of_the_run(tiny_config: Build, tmp_path: Path) -> None:
    config = tiny_config("training.checkpoint.every=2", "model=mlp", "model.hidden_dims=[8]")
    ROBOT.train(config)
    loaded = ROBOT.load(tmp_path / "run")
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last").tensors
    assert loaded.step == 4
    assert loaded.config == config
    assert not loaded.policy.training
    state = loaded.policy.state_dict()
    assert all(torch.equal(state[key], value) for key, value in saved["ema"].items())
    assert any(not torch.equal(state[key], value) for key, value in saved["model"].items())
    assert ROBOT.load(tmp_path / "run", "2").step == 2


def test_act_samples_a_chunk_as_the_run_says(tiny_config: Build, tmp_path: Path) -> None:
    ROBOT.train(tiny_config())
    run = ROBOT.load(tmp_path / "run")
    observations = torch.zeros(3, 2, 5)
    actions, again, other = (run.act(observations, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert actions.shape == (3, 8, 2)
    assert torch.equal(actions, again)
    assert not torch.equal(actions, other)


def test_best_is_the_checkpoint_with_the_highest_score(tiny_config: Build, tmp_path: Path) -> None:
    ROBOT.train(tiny_config("training.checkpoint.every=2"))
    with pytest.raises(UserError, match="has a score"):
        ROBOT.load(tmp_path / "run", "best")
    for step, score in ((2, 0.9), (4, 0.5)):
        record_evaluation(tmp_path / "run" / "checkpoints" / f"{step:08d}", {"score": score})
    assert ROBOT.load(tmp_path / "run", "best").step == 2


def test_weights_follow_from_the_seed(tiny_config: Build) -> None:
    first, again, other = (next(ROBOT.build(tiny_config(f"seed={seed}")).model.parameters()) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_on_windows_lowers_the_loss(tiny_config: Build, tmp_path: Path) -> None:
    ROBOT.train(
        tiny_config(
            "training.steps=160",
            "training.logging.every=40",
            "training.optimizer.lr=0.003",
            "training.optimizer.warmup_steps=5",
            "diffusion.target=sample",
        )
    )
    losses = [row["loss"] for row in training_rows(tmp_path / "run")]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("model", ["transformer", "mlp"])
def test_other_networks_train(tiny_config: Build, model: str) -> None:
    small = {"transformer": ["model.embedding_dim=16", "model.layers=1"], "mlp": ["model.hidden_dims=[8]"]}[model]
    assert ROBOT.train(tiny_config(f"model={model}", *small)).finished


@pytest.mark.parametrize(
    ("checkpoint", "sentence"),
    [("3", r"there are last, best and the steps \[4\]"), ("newest", "no checkpoint 'newest'")],
)
def test_unknown_checkpoints(tiny_config: Build, tmp_path: Path, checkpoint: str, sentence: str) -> None:
    ROBOT.train(tiny_config())
    with pytest.raises(UserError, match=sentence):
        ROBOT.load(tmp_path / "run", checkpoint)


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no config"):
        ROBOT.load(tmp_path)


def test_a_damaged_configuration(tiny_config: Build, tmp_path: Path) -> None:
    ROBOT.train(tiny_config())
    for content in ("track: robot\nmodel: {name: unet}\nbogus: 1\n", "model: {name: [", "3"):
        (tmp_path / "run" / "config.yaml").write_text(content)
        with pytest.raises(UserError, match=r"config\.yaml (cannot be read as a configuration|is damaged)"):
            ROBOT.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("evaluation.episodes=-1", r"evaluation\.episodes=-1"),
        ("evaluation.slots=0", r"evaluation\.slots=0"),
        ("evaluation.confidence=1.5", r"evaluation\.confidence=1\.5"),
        ("sampling.sampler=dim", r"did you mean .ddim.\?$"),
        ("sampling.clip_sample=-1", r"sampling\.clip_sample=-1"),
        ("diffusion.clip_sample=2", r"did you mean .sampling\.clip_sample."),
    ],
)
def test_evaluation_errors(tiny_config: Build, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_config(tiny_config("evaluation.episodes=2", override))
