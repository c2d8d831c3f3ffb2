"""What several tests share: recordings, and a robosuite environment, which takes seconds to make."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policy_accel.data import Episodes
from policy_accel.envs import robosuite_demonstrations
from policy_accel.envs.robosuite_env import Robosuite


def pytest_collection_finish() -> None:
    """Load Triton before anything is drawn: its LLVM crashes when that of Mesa's software EGL came first."""
    if "torch" in sys.modules:
        import torch._dynamo  # noqa: F401


@pytest.fixture(scope="module")
def lift() -> Iterator[Robosuite]:
    """Lift with relative actions and no camera; a test that uses it resets it first."""
    environment = Robosuite("lift")
    yield environment
    environment.close()


@pytest.fixture(scope="session")
def recorded() -> Episodes:
    """Three episodes of the expert in Lift, generated with seed 5."""
    episodes = robosuite_demonstrations.generate(3, 5)
    robosuite_demonstrations._environment.cache_clear()  # hundreds of megabytes for a next call
    return episodes


@pytest.fixture(scope="session")
def replay(shared_data: Path) -> dict[str, np.ndarray]:
    """Published demonstrations of Push-T: state, action, keypoint, n_contacts."""
    return dict(np.load(shared_data / "pusht_lowdim.npz"))


@pytest.fixture(autouse=True, scope="module")
def no_meshes_left() -> Iterator[None]:
    """MuJoCo keeps up to 500 MB of those that it has read."""
    yield
    if "mujoco" in sys.modules:
        sys.modules["mujoco"].mj_clearCache(sys.modules["mujoco"].mj_getCache())


@pytest.fixture(autouse=True)
def one_environment_kept() -> Iterator[None]:
    """Of those that `generate` keeps for its next call, each with hundreds of megabytes."""
    yield
    if robosuite_demonstrations._environment.cache_info().currsize > 1:
        robosuite_demonstrations._environment.cache_clear()
