"""Policies that begin with the weights of others: init_from and init_normalizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.data import write_zarr

from policy_accel.data import Episodes, read_episodes
from policy_accel.distill import student_config
from policy_accel.errors import UserError
from policy_accel.open_loop.episodes import measured_episodes
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.controller import Policy
from policy_accel.policy.track import ROBOT
from policy_accel.training.build import build_update
from policy_accel.training.checkpoint import load_checkpoint

from .conftest import write_demonstrations

Build = Callable[..., RobotConfig]


@pytest.fixture
def first(tiny_config: Build, tmp_path: Path) -> Path:
    """A trained run."""
    ROBOT.train(tiny_config(f"run_dir={tmp_path / 'first'}", "training.optimizer.warmup_steps=0"))
    return tmp_path / "first"


@pytest.fixture
def other_data(tmp_path: Path) -> Path:
    return write_demonstrations(tmp_path / "other.zarr.zip", seed=5)


def averaged(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run_dir / "checkpoints" / "last").tensors["ema"]


@pytest.mark.parametrize("folder", ["", "checkpoints/last", "checkpoints/00000004"])
def test_a_run_begins_with_the_averaged_weights_and_the_ranges_of_the_other(
    folder: str, first: Path, other_data: Path, tiny_config: Build
) -> None:
    config = tiny_config(f"init_from={first / folder}", f"task.data={other_data}")
    task = ROBOT.build(config)
    update = build_update(task, config.training, config.seed)
    source = averaged(first)
    for model in (task.model, update.ema.model):
        assert all(torch.equal(value, source[key]) for key, value in model.state_dict().items())
    raw = torch.from_numpy(read_episodes(other_data).arrays["action"])
    scale, offset = source["action_normalizer.scale"], source["action_normalizer.offset"]
    assert torch.allclose(task.actions, raw * scale + offset, atol=1e-5)
    assert task.largest() > 1.0
    assert "after 4 updates, its normalisers kept" in task.heading["begins"]
    assert config.sampling.clip_sample is not None
    assert config.sampling.clip_sample >= task.largest()


def test_normalisers_are_refitted_when_asked(first: Path, other_data: Path, tiny_config: Build) -> None:
    task = ROBOT.build(tiny_config(f"init_from={first}", f"task.data={other_data}", "init_normalizer=refit"))
    plain = ROBOT.build(tiny_config(f"task.data={other_data}"))
    source, begun = averaged(first), task.policy.state_dict()
    normalizers = [key for key in begun if "_normalizer." in key]
    assert all(torch.equal(begun[key], plain.policy.state_dict()[key]) for key in normalizers)
    assert all(torch.equal(begun[key], source[key]) for key in begun.keys() - set(normalizers))
    assert torch.equal(task.actions, plain.actions)
    assert "fitted anew" in task.heading["begins"]


def test_a_run_that_goes_on_and_a_student_need_the_first_run_no_more(
    first: Path, other_data: Path, tiny_config: Build, tmp_path: Path
) -> None:
    settings = [f"init_from={first}", f"task.data={other_data}", "training.checkpoint.every=1"]
    ROBOT.train(tiny_config(*settings, f"run_dir={tmp_path / 'whole'}"))
    parts = tiny_config(*settings, f"run_dir={tmp_path / 'parts'}")

    def stop(step: int) -> None:
        if step == 2:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        ROBOT.train(parts, stop)
    kept = averaged(first)
    shutil.rmtree(first)
    ROBOT.train(parts)
    one, other = averaged(tmp_path / "whole"), averaged(tmp_path / "parts")
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert torch.equal(one["action_normalizer.scale"], kept["action_normalizer.scale"])
    student = student_config(ROBOT, tmp_path / "parts", "last", 2, [])
    task = ROBOT.build(student)
    raw = torch.from_numpy(read_episodes(other_data).arrays["action"])
    assert torch.allclose(
        task.actions, raw * kept["action_normalizer.scale"] + kept["action_normalizer.offset"], atol=1e-5
    )


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["init_from={tmp}/nothing"],
            r"init_from=.*nothing: no such file or run; give a run directory",
        ),
        (
            ["init_from={tmp}"],
            r"init_from=.* is neither a run directory \(no config\.yaml\) nor the folder",
        ),
        (["init_normalizer=refit"], "init_normalizer=refit has no effect without init_from; leave it at keep"),
        (["init_from={first}", "init_normalizer=new"], "init_normalizer 'new' is unknown"),
        (
            ["init_from={first}", "task.observation=[state,pose]"],
            r"does not fit this network \(observation_normalizer\.scale is \[5\] there and \[12\] here, and \d+ more\)",
        ),
        (["init_from={first}", "model.down_dims=[8,32]"], r"init_from=.*first does not fit this network \(denoiser\."),
        (
            ["init_from={first}", "model=mlp"],
            r"\(denoiser.*; there model\.name: unet -> mlp; .* here\)",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    overrides: list[str], says: str, first: Path, tiny_config: Build, tmp_path: Path
) -> None:
    given = [override.format(tmp=tmp_path, first=first) for override in overrides]
    with pytest.raises(UserError, match=says):
        ROBOT.build(tiny_config(*given))
    assert not (tmp_path / "run").exists()


def test_an_action_that_would_never_move_is_refused(tiny_config: Build, demonstrations: Path, tmp_path: Path) -> None:
    own = read_episodes(demonstrations)
    still = own.arrays["action"].copy()
    still[:, 1] = 0.5
    write_zarr(tmp_path / "still.zarr.zip", Episodes({**own.arrays, "action": still}, own.episode_ends))
    ROBOT.train(tiny_config(f"task.data={tmp_path / 'still.zarr.zip'}", f"run_dir={tmp_path / 'first'}"))
    begin = f"init_from={tmp_path / 'first'}"
    with pytest.raises(UserError, match=r"number 1 of the actions was always 0\.5 .*; set init_normalizer=refit"):
        ROBOT.build(tiny_config(begin))
    ROBOT.build(tiny_config(begin, "init_normalizer=refit"))
    ROBOT.build(tiny_config(begin, f"task.data={tmp_path / 'still.zarr.zip'}"))


def test_other_settings_of_the_network_are_told(first: Path, tiny_config: Build) -> None:
    heading: Any = ROBOT.build(tiny_config(f"init_from={first}", "diffusion.target=v")).heading
    assert "; there diffusion.target: sample -> v here" in heading["begins"]


def test_episodes_that_trained_the_first_run_are_not_held_out(
    first: Path, tiny_config: Build, demonstrations: Path, tmp_path: Path
) -> None:
    """With another split the validation episode of the second run trained the first one."""
    config = tiny_config(f"init_from={first}", "task.split_seed=1")
    ROBOT.train(config)
    run, out = ROBOT.load(tmp_path / "run"), tmp_path / "run" / "checkpoints" / "last"
    fingerprint = load_checkpoint(out, ()).state["data"]
    with pytest.raises(UserError, match="all of its 6 episodes trained the run"):
        measured_episodes(run.config, run.policy, fingerprint)
    shutil.move(first / "config.yaml", tmp_path)
    measured = measured_episodes(run.config, run.policy, fingerprint)
    assert measured.trained is None
    assert "whether they trained the run is not known" in measured.which


def test_a_policy_that_was_shared_is_one_to_begin_with(
    first: Path, tiny_config: Build, demonstrations: Path, tmp_path: Path
) -> None:
    Policy.load(first, device="cpu").save_pretrained(tmp_path / "shared")
    config = tiny_config(f"init_from={tmp_path / 'shared'}")
    task, source = ROBOT.build(config), averaged(first)
    assert all(torch.equal(value, source[key]) for key, value in task.model.state_dict().items())
    ROBOT.train(config)
    run = ROBOT.load(tmp_path / "run")
    fingerprint = load_checkpoint(tmp_path / "run" / "checkpoints" / "last", ()).state["data"]
    measured = measured_episodes(run.config, run.policy, fingerprint)
    assert "is not known (init_from=" in measured.which
