"""`recipe=diffusion_policy` is Diffusion Policy's low-dimensional Push-T set-up, number by number.

Its files: config/train_diffusion_unet_lowdim_workspace.yaml and config/task/pusht_lowdim.yaml of
real-stanford/diffusion_policy (commit 5ba07ac), and what its code makes of the demonstrations.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from policy_accel.groups import flatten
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.run import build_policy
from policy_accel.policy.track import ROBOT

OBSERVATION_DIM = 9 * 2 + 2  # block key-points and the agent's position
ACTION_DIM = 2
EPOCHS = 5000
UPDATES_PER_EPOCH = 42

REFERENCE: dict[str, Any] = {
    # task.dataset
    "task.val_ratio": 0.02,
    "task.split_seed": 42,
    "task.max_train_episodes": 90,
    "task.observation": ["keypoint", "state[:2]"],
    "task.action": "action",
    "task.observation_normalization": "limits",
    "task.action_normalization": "limits",
    "task.mask_padding": False,  # the loss counts repeated steps
    # horizon, n_obs_steps, n_action_steps, obs_as_global_cond
    "policy.horizon": 16,
    "policy.n_obs_steps": 2,
    "policy.n_action_steps": 8,
    "policy.conditioning": "global",
    # policy.model
    "model.name": "unet",
    "model.down_dims": [256, 512, 1024],
    "model.kernel_size": 5,
    "model.groups": 8,
    "model.step_embedding_dim": 256,
    "model.film_scale": True,
    # policy.noise_scheduler (variance_type fixed_small is how `ddpm` samples: see test_reference_parity.py)
    "diffusion.schedule": "squaredcos_cap_v2",
    "diffusion.timesteps": 100,
    "diffusion.beta_start": 0.0001,
    "diffusion.beta_end": 0.02,
    "diffusion.target": "epsilon",
    "sampling.clip_sample": 1.0,
    # policy.num_inference_steps, with diffusers' default spacing
    "sampling.sampler": "ddpm",
    "sampling.steps": 100,
    "sampling.spacing": "leading",
    # dataloader, training
    "training.batch_size": 256,
    "training.steps": 210_000,
    "training.precision": "fp32",
    "training.matmul_precision": "highest",
    "training.compile": False,
    "training.validate_every": 42,
    "training.evaluate_every": 2100,
    "seed": 42,
    # optimizer, training.lr_*
    "training.optimizer.lr": 1e-4,
    "training.optimizer.betas": [0.95, 0.999],
    "training.optimizer.eps": 1e-8,
    "training.optimizer.weight_decay": 1e-6,
    "training.optimizer.schedule": "cosine",
    "training.optimizer.warmup_steps": 500,
    "training.optimizer.clip_grad_norm": None,
    # ema
    "training.ema.update_after_step": 0,
    "training.ema.inv_gamma": 1.0,
    "training.ema.power": 0.75,
    "training.ema.min_decay": 0.0,
    "training.ema.max_decay": 0.9999,
    # checkpoint
    "training.checkpoint.every": 2100,
    "training.checkpoint.keep_best": 5,
    # task.env_runner
    "task.environment": "policy_accel/PushT-v0",
    "task.environment_options.observation": "keypoints",
    "task.max_steps": 300,
    "evaluation.episodes": 50,
    "evaluation.start_seed": 100_000,
    "evaluation.videos": 4,
}


@pytest.fixture(scope="module")
def recipe() -> RobotConfig:
    return ROBOT.config(["recipe=diffusion_policy"])


@pytest.mark.parametrize("name", REFERENCE)
def test_value(recipe: RobotConfig, name: str) -> None:
    resolved = flatten(ROBOT.record(recipe))[name]
    assert resolved == REFERENCE[name]
    assert isinstance(resolved, bool) == isinstance(REFERENCE[name], bool)


def test_epochs_as_updates(data_file: Path, recipe: RobotConfig) -> None:
    """The reference counts epochs: 5,000 of them, validation after each, rollouts and checkpoints after 50."""
    windows = count_windows(data_file, train_episodes(data_file))
    assert math.ceil(windows / 256) == UPDATES_PER_EPOCH
    assert recipe.training.steps == EPOCHS * UPDATES_PER_EPOCH
    assert recipe.training.validate_every == UPDATES_PER_EPOCH
    assert recipe.training.evaluate_every == recipe.training.checkpoint.every == 50 * UPDATES_PER_EPOCH


def lengths(data_file: Path) -> list[int]:
    group = zarr.open_group(zarr.storage.ZipStore(data_file, mode="r"), mode="r", zarr_format=2)
    return np.diff(group["meta/episode_ends"][:], prepend=0).tolist()


def validation_episodes() -> list[int]:
    return np.random.default_rng(42).choice(206, 4, replace=False).tolist()


def train_episodes(data_file: Path) -> list[int]:
    held_out = validation_episodes()
    others = [episode for episode in range(len(lengths(data_file))) if episode not in held_out]
    return [others[i] for i in np.random.default_rng(42).choice(len(others), 90, replace=False)]


def count_windows(data_file: Path, episodes: list[int]) -> int:
    """Windows of 16 steps that begin at most 1 step early and end at most 7 late, counted one by one."""
    steps = lengths(data_file)
    return sum(first + 16 <= steps[episode] + 7 for episode in episodes for first in range(-1, max(steps) + 1))


def test_windows_of_the_real_demonstrations(data_file: Path) -> None:
    task = ROBOT.build(ROBOT.config(["recipe=diffusion_policy", *small_net(), f"task.data={data_file}"]))
    assert len(lengths(data_file)) == 206
    assert task.samples == count_windows(data_file, train_episodes(data_file)) == 10_726
    rest = sorted(set(range(206)) - set(train_episodes(data_file)))
    assert set(validation_episodes()) < set(rest)
    assert task.validation_samples == count_windows(data_file, rest) == 24_208 - 10_726
    steps = lengths(data_file)
    assert task.samples == sum(steps[episode] - 7 for episode in train_episodes(data_file))
    assert task.observations.shape == (25_650, OBSERVATION_DIM)
    assert task.actions.shape == (25_650, ACTION_DIM)


def small_net() -> list[str]:
    return ["model.down_dims=[8]", "model.step_embedding_dim=8"]


@pytest.mark.parametrize(
    ("overrides", "parameters"),
    [
        (["recipe=diffusion_policy"], 65_783_298),
        (["recipe=diffusion_policy", "policy.conditioning=inpainting"], 65_245_718),
        (["model=transformer"], 8_965_122),
    ],
)
def test_parameters(overrides: list[str], parameters: int) -> None:
    with torch.device("meta"):
        policy = build_policy(ROBOT.config(overrides), OBSERVATION_DIM, ACTION_DIM)
    assert sum(parameter.numel() for parameter in policy.parameters()) == parameters


def test_transformer_of_the_reference() -> None:
    """config/train_diffusion_transformer_lowdim_pusht_workspace.yaml, policy.model."""
    assert flatten(ROBOT.record(ROBOT.config(["model=transformer"]))["model"]) == {
        "name": "transformer",
        "embedding_dim": 256,
        "layers": 8,
        "heads": 4,
        "embedding_dropout": 0.0,
        "attention_dropout": 0.01,
        "causal": True,
    }
