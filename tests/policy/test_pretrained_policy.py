"""Policies whose encoder begins with weights from a file, is frozen, or learns at a rate of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from support.pretrained import write_resnet18
from torch import Tensor

from policy_accel.cli import main
from policy_accel.distill import student_config
from policy_accel.errors import UserError
from policy_accel.models.encoders.pretrained import read_weights
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT
from policy_accel.training.build import build_update
from policy_accel.training.checkpoint import load_checkpoint

Build = Callable[..., RobotConfig]
SEEN = ["task.images=[img]", "encoder.crop=36", "training.threads=1", "training.optimizer.warmup_steps=0"]
TRUNK = "encoder.networks.0.trunk."


@pytest.fixture
def pretrained(tiny_config: Build, tmp_path: Path) -> Build:
    path = write_resnet18(tmp_path / "resnet18.pth")
    return lambda *overrides: tiny_config(*SEEN, f"encoder.weights={path}", *overrides)


def checkpoint(config: RobotConfig) -> dict[str, dict[str, Tensor]]:
    return load_checkpoint(Path(config.run_dir) / "checkpoints" / "last").tensors


def test_a_run_begins_with_the_weights_and_goes_on_without_their_file(pretrained: Build, tmp_path: Path) -> None:
    short = ["training.steps=2", "training.batch_size=2", "training.checkpoint.every=1", "training.validate_every=0"]
    whole = pretrained(*short, f"run_dir={tmp_path / 'whole'}")
    stopped = pretrained(*short)
    first = ROBOT.build(stopped).model.state_dict()
    weights = read_weights(tmp_path / "resnet18.pth")
    assert all(torch.equal(first[TRUNK + name], tensor) for name, tensor in weights.items())
    ROBOT.train(whole)

    def stop(updates: int) -> None:
        if updates == 2:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        ROBOT.train(stopped, after_update=stop)
    (tmp_path / "resnet18.pth").unlink()
    ROBOT.train(stopped)
    one, other = checkpoint(whole), checkpoint(stopped)
    for file in one:
        assert all(torch.equal(value, other[file][name]) for name, value in one[file].items())
    assert not torch.equal(one["ema"][TRUNK + "conv1.weight"], weights["conv1.weight"])
    loaded = ROBOT.load(Path(stopped.run_dir)).policy.state_dict()
    assert all(torch.equal(value, one["ema"][name]) for name, value in loaded.items())


def test_what_comes_of_a_run_needs_no_file(pretrained: Build, tmp_path: Path) -> None:
    """Not even when the run was moved: its student begins with its weights, and it is tuned with them."""
    config = pretrained("training.steps=1", "training.batch_size=2", "training.validate_every=0")
    ROBOT.train(config)
    moved = Path(config.run_dir).rename(tmp_path / "moved")
    (tmp_path / "resnet18.pth").unlink()
    student = student_config(ROBOT, moved, "last", 1, [])
    ROBOT.check_weights(student)
    taught, own = ROBOT.build(student).model.state_dict(), ROBOT.load(moved).policy.state_dict()
    assert all(torch.equal(taught[name], tensor) for name, tensor in own.items())
    few = ["--windows", "2", "--noises", "2", "--episodes", "0", "--evaluations", "1"]
    assert main(["tune-sampling", str(moved), *few]) == 0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_frozen_trunk_stays_in_the_model_and_in_the_average(
    optimizer: str, pretrained: Build, tmp_path: Path
) -> None:
    config = pretrained(
        "encoder.lr_factor=0", f"training/optimizer={optimizer}", "training.ema.half_life=50", "training.steps=2"
    )
    begun = ROBOT.build(config).model.state_dict()
    ROBOT.train(config)
    saved = checkpoint(config)
    weights = read_weights(tmp_path / "resnet18.pth")
    for file in ("model", "ema"):
        assert all(torch.equal(saved[file][TRUNK + name], tensor) for name, tensor in weights.items())
        for name in ("encoder.networks.0.head.weight", "denoiser.head.1.weight"):
            assert name in begun
            assert not torch.equal(saved[file][name], begun[name])
    learnt = {name for name, p in ROBOT.build(config).model.named_parameters() if p.requires_grad}
    assert not any(name.startswith(TRUNK) for name in learnt)
    assert len({key.split(".")[0] for key in saved["optimizer"]}) == len(learnt)


def moved(config: RobotConfig) -> dict[str, float]:
    """How far one update moves each parameter, on the average."""
    update = build_update(ROBOT.build(config), config.training, config.seed)
    before = {name: p.detach().clone() for name, p in update.task.model.named_parameters()}
    update(0)
    return {name: float((p.detach() - before[name]).abs().mean()) for name, p in update.task.model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_trunk_with_a_tenth_of_the_rate_moves_a_tenth_as_far(optimizer: str, tiny_config: Build) -> None:
    base = [*SEEN, "encoder.resnet.width=16", f"training/optimizer={optimizer}", "training.optimizer.weight_decay=0"]
    plain, slow = (moved(tiny_config(*base, *more)) for more in ([], ["encoder.lr_factor=0.1"]))
    trunk = [name for name in plain if name.startswith(TRUNK)]
    assert len(trunk) == 60
    for name, distance in plain.items():
        expected = 0.1 * distance if name in trunk else distance
        assert slow[name] == pytest.approx(expected, rel=2e-3 if name in trunk else 0), name


def test_a_wrong_file_is_refused_before_anything_is_written(pretrained: Build, tmp_path: Path) -> None:
    config = pretrained(f"encoder.weights={tmp_path / 'missing.pth'}")
    for refuse in (ROBOT.train, ROBOT.check_weights, ROBOT.build):
        with pytest.raises(UserError, match=r"encoder\.weights=.*missing\.pth is not a file"):
            refuse(config)
    assert not Path(config.run_dir).exists()
    with pytest.raises(UserError, match=r"encoder\.resnet\.width=8 does not fit"):
        ROBOT.check(pretrained("encoder.resnet.width=8"))


def test_a_run_of_before_these_settings_goes_on(tiny_config: Build) -> None:
    config = tiny_config("training.checkpoint.every=2")

    def stop(updates: int) -> None:
        if updates == 3:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        ROBOT.train(config, after_update=stop)
    record = Path(config.run_dir) / "config.yaml"
    settings = yaml.safe_load(record.read_text())
    for key in ("weights", "lr_factor"):
        del settings["encoder"][key]
    record.write_text(yaml.safe_dump(settings))
    assert ROBOT.train(config).finished
    with pytest.raises(UserError, match=r"another configuration \(.*encoder\.lr_factor: 1\.0 -> 0\.5; task"):
        ROBOT.train(tiny_config("training.checkpoint.every=2", *SEEN[:2], "encoder.lr_factor=0.5"))
