from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import policy_accel.envs  # noqa: F401  registers the environment
from policy_accel.data.readers import open_episodes
from policy_accel.models.encoders import EncoderConfig, ObservationEncoder, ResNetConfig
from policy_accel.policy.demonstrations import observation_layout
from policy_accel.policy.track import ROBOT


@pytest.fixture(scope="module")
def config(shared_data):
    return ROBOT.config(["task=pusht_image", f"task.data={shared_data / 'pusht_v7_u8.zarr.zip'}"]).task


@pytest.fixture(scope="module")
def env(config):
    return gymnasium.make(config.environment, **config.environment_options)


def test_the_environment_observes_what_the_recorded_set_holds(config, env):
    layout = observation_layout(config)
    with open_episodes(config.data) as reader:
        shape = reader.features["img"].shape
        layout.check(env.observation_space, 2, {"img": shape}, config.environment)
        recorded = reader.read(7, ["img", "state"], 0, 1)
    observed, _ = env.reset(options={"state": recorded["state"][0]})
    batch = {name: values[None, None] for name, values in observed.items()}
    given = layout.tensors(batch, torch.device("cpu"), images={"img": shape}, sizes={})
    assert given["img"].dtype == torch.uint8
    np.testing.assert_array_equal(given["img"][0, 0].numpy(), recorded["img"][0])
    np.testing.assert_array_equal(given["state"][0, 0].numpy(), recorded["state"][0, :2])
    encoder = ObservationEncoder(EncoderConfig(resnet=ResNetConfig(width=16)), images={"img": shape}, state_dim=2)
    assert encoder(given).shape == (1, 1, 66)
