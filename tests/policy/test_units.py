"""Units, sizes and shapes that no built-in task has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from support.data import write_zarr

from policy_accel import Policy
from policy_accel.data import Episodes
from policy_accel.errors import UserError
from policy_accel.policy import normalization
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.image_store import resize_frames
from policy_accel.policy.task import ChunkTask
from policy_accel.policy.track import ROBOT

Build = Callable[..., RobotConfig]
STEPS, EPISODE = 120, 30
TIME = np.arange(STEPS) % EPISODE / 10
WAVE = np.stack([np.sin(TIME), np.cos(TIME)], axis=1).astype(np.float32)
RARE = WAVE.copy()
RARE[40:45] = 8.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two joints; fields of many shapes and units; large pictures."""
    rng = np.random.default_rng(0)
    arrays = {
        "state": WAVE,
        "action": WAVE,
        "rare": RARE,
        "gripper": 85.0 * WAVE[:, 1:] ** 2,
        "held": np.c_[WAVE, np.full(STEPS, 0.04), np.zeros(STEPS)].astype(np.float32),
        "still": np.full((STEPS, 2), 3.0, np.float32),
        "keypoint": np.repeat(WAVE[:, None], 9, 1),
        "width": WAVE[:, 0].copy(),
        "robot.joints": WAVE,
        "clock": 1.7e9 + TIME,
        "northing": (5e6 + 4 * WAVE[:, :1]).astype(np.float32),
        "button": WAVE[:, 0] > 0,
        "count": (10**9 + 100 * WAVE[:, 0]).astype(np.int64),
        "half": WAVE.astype(np.float16),
        "img": rng.integers(0, 256, (STEPS, 60, 80, 3), dtype=np.uint8),
    }
    path = tmp_path_factory.mktemp("units") / "units.zarr"
    write_zarr(path, Episodes(arrays, np.arange(EPISODE, STEPS + 1, EPISODE)))
    return path


@pytest.fixture
def build(tiny_config: Build, data: Path) -> Build:
    return lambda *overrides: tiny_config(f"task.data={data}", "training.validate_every=0", *overrides)


def trained(config: RobotConfig) -> Policy:
    ROBOT.train(config)
    return Policy.load(config.run_dir, device="cpu")


@pytest.mark.parametrize(
    ("settings", "largest"),
    [
        (["task.action=rare", "task.action_normalization=gaussian"], (8 - RARE.mean(0)) / RARE.std(0, ddof=1)),
        (["task.action=gripper", "task.action_normalization=identity"], [85.0]),
        (["task.observation=[rare]", "policy.conditioning=inpainting", "task.observation_normalization=identity"], [8]),
    ],
)
def test_the_bound_of_the_sampler_holds_the_data(build: Build, settings: list[str], largest: Any) -> None:
    config = build("task.action=state", *settings)
    task = ROBOT.build(config)
    wanted = max(largest)
    assert config.sampling.clip_sample == pytest.approx(wanted, abs=1e-3)
    assert config.sampling.clip_sample >= wanted - 1e-5
    assert "clip_sample is widened from 1 to" in task.heading["bound"]
    for _ in range(2):  # the same command finds the same configuration
        assert ROBOT.train(build("task.action=state", *settings)).finished
    loaded = ROBOT.load(Path(config.run_dir))
    assert loaded.sampler.config.clip_sample == loaded.config.sampling.clip_sample == config.sampling.clip_sample
    with pytest.raises(UserError, match=r"clip_sample=0.9 would cut .* demonstrations reach .* or null"):
        ROBOT.build(build("task.action=state", *settings, "sampling.clip_sample=0.9"))
    unbounded = build("task.action=state", *settings, "sampling.clip_sample=null")
    ROBOT.build(unbounded)
    assert unbounded.sampling.clip_sample is None


@pytest.mark.parametrize("action", ["rare", "gripper", "clock", "northing", "count", "half", "button"])
def test_a_bound_of_one_holds_what_is_scaled_to_one(build: Build, action: str) -> None:
    config = build(f"task.action={action}")
    ROBOT.build(config)
    assert config.sampling.clip_sample == 1.0


@pytest.mark.parametrize("mode", ["limits", "gaussian", "max_abs", "identity"])
def test_an_action_that_never_changes_is_executed_as_it_was(build: Build, mode: str) -> None:
    policy = trained(build("task.action=held", f"task.action_normalization={mode}"))
    actions = np.array([policy.act(WAVE[0]) for _ in range(20)])
    assert set(actions[:, 2]) == {np.float32(0.04)}
    assert set(actions[:, 3]) == {0.0}
    assert len(np.unique(actions[:, 0])) > 8


def test_actions_that_never_change_at_all(build: Build) -> None:
    policy = trained(build("task.action=still"))
    assert (policy.act(WAVE[0]) == 3.0).all()


def test_far_numbers_keep_what_changes_in_them(build: Build) -> None:
    """Observed and executed: tenths of a second since 1970, of which float32 holds every 128 seconds."""
    policy = trained(build("task.observation=[clock,count]", "task.action=clock"))
    action = policy.act({"clock": 1.7e9 + 1.5, "count": 10**9})
    assert action.dtype == np.float64
    assert 1.7e9 <= action[0] <= 1.7e9 + 2.9
    chunks = []
    for clock in (1.7e9, 1.7e9 + 1.0):
        policy.reset()
        chunks.append(policy.act({"clock": np.array([clock]), "count": np.array(10**9)}))
    assert chunks[0] != chunks[1]
    task = ROBOT.build(build("task.observation=[clock,count]"))
    np.testing.assert_allclose(task.observations[:, 0], 2 * TIME / TIME.max() - 1, atol=1e-6)


def test_what_the_file_has_lost_is_said(build: Build) -> None:
    task = ROBOT.build(build("task.observation=[northing]"))
    assert "stored as float32, whose steps are 12% of the range" in task.heading["recorded"]
    with pytest.raises(UserError, match=r"task.observation: dimension 0 goes from .* choose the normalisation limits"):
        ROBOT.build(build("task.observation=[clock]", "task.observation_normalization=identity"))


SHAPED = ["task.observation=[state,'keypoint[:4]',width,robot.joints]", "task.environment=toy/Shaped-v0"]


class Shaped(gymnasium.Env):
    """Observations as the data hold them, in dictionaries in dictionaries."""

    def __init__(self, **_: Any) -> None:
        box, parts = gymnasium.spaces.Box, gymnasium.spaces.Dict
        joints = parts({"joints": box(-9, 9, (2,)), "name": gymnasium.spaces.Text(5)})
        shapes: Any = {"state": (2,), "keypoint": (9, 2), "width": ()}
        self.observation_space = parts({name: box(-9, 9, shape) for name, shape in shapes.items()} | {"robot": joints})
        self.action_space = box(-9, 9, (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._observed(), {}

    def step(self, action: Any) -> Any:
        return self._observed(), -1.0, False, False, {"success": True}

    def _observed(self) -> Any:
        numbers = np.arange(2.0)
        robot = {"joints": numbers, "name": "left"}
        return {"state": numbers, "keypoint": np.ones((9, 2)), "width": np.float32(0.5), "robot": robot}


gymnasium.register("toy/Shaped-v0", entry_point=Shaped)


def test_one_flattening_for_data_environments_and_act(build: Build) -> None:
    scored = ["evaluation.episodes=3", "evaluation.workers=0", "evaluation.videos=0", "task.max_steps=12"]
    config = build(*SHAPED, f"task.environment_module={__name__}", *scored, "task.score=return")
    result = ROBOT.train(config).evaluation
    assert result is not None
    assert (result["score"], result["score_from"], result["success_from"]) == (-12.0, "return", "info.success")
    assert "Score -12.000 by return (95% interval -12.000 to -12.000), success 100% by info" in ROBOT.describe(result)
    policy, observation = Policy.load(config.run_dir, device="cpu"), Shaped()._observed()
    flat = {**observation, "keypoint": np.ones(18), "width": [0.5], "robot.joints": np.arange(2.0)}
    row = np.concatenate([[0, 1], np.ones(4), [0.5], [0, 1]])
    actions = []
    for given in (observation, flat, row):
        policy.reset()
        actions.append(policy.act(given))
    assert np.array_equal(actions[0], actions[1])
    assert np.array_equal(actions[0], actions[2])
    with pytest.raises(UserError, match="is not made of numbers"):
        policy.act({**flat, "width": "wide"})


def test_large_frames_are_resized_before_the_crop(build: Build) -> None:
    small = ["task.images=[img]", "encoder.crop=42", "encoder.resnet.width=16", "encoder.resnet.keypoints=4"]
    config = build(*small)
    task = ROBOT.build(config)
    assert isinstance(task, ChunkTask)
    assert task.store is not None
    assert task.store.shapes == {"img": (48, 48, 3)}
    assert "img (60 x 80 px resized to 48 x 48, of which 42 x 42 at a time)" in task.heading["sees"]
    policy = trained(config)
    whole = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    seen: list[Any] = []
    encoder = policy.run.policy.encoder
    assert encoder is not None
    encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]["img"]))
    policy.act({"state": WAVE[0], "img": whole})
    assert torch.equal(seen[0][0, -1], resize_frames(torch.from_numpy(whole), (48, 48)))
    # As torchvision's Resize of the float picture: one kernel for bytes, one for floats.
    exact = torch.nn.functional.interpolate(
        torch.from_numpy(whole).permute(2, 0, 1)[None].float(), (48, 48), mode="bilinear", antialias=True
    )
    assert (seen[0][0, -1].float() - exact[0].permute(1, 2, 0)).abs().max() < 1.01
    own = ROBOT.build(build(*small, "encoder.resize=[60,80]"))
    assert isinstance(own, ChunkTask)
    assert own.store is not None
    assert own.store.shapes == {"img": (60, 80, 3)}
    with pytest.raises(UserError, match=r"encoder.resize=\[40, 80\] must be .* not below encoder.crop=42"):
        ROBOT.build(build(*small, "encoder.resize=[40,80]"))


def test_a_run_whose_data_an_earlier_version_normalised_otherwise_is_not_continued(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build("sampling.clip_sample=null")
    ROBOT.train(config)
    monkeypatch.setattr(normalization, "never_changes", lambda low, high, _: high - low < 9.0)  # as below 1e-4 once
    with pytest.raises(UserError, match="earlier version, which normalised these data otherwise"):
        ROBOT.train(config)


def test_a_loss_that_explodes_ends_the_run(build: Build) -> None:
    config = build("model=mlp", "training.optimizer.lr=1e4", "training.steps=40", "training.optimizer.warmup_steps=0")
    with pytest.raises(UserError, match=r"(The mean loss|The loss of update).*last good checkpoint is none"):
        ROBOT.train(config)
