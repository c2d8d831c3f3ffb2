from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from policy_accel.data import Episodes, write_zarr
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.run import robot_config

TINY = ["model.down_dims=[8,16]", "model.kernel_size=3", "model.step_embedding_dim=8", "training.device=cpu"]


def write_demonstrations(path: Path, *, seed: int = 0, episodes: int = 6) -> Path:
    """Smooth random walks with the keys of Push-T."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(20, 40, episodes)
    steps = int(lengths.sum())
    arrays = {
        key: np.cumsum(generator.normal(size=(steps, *shape)), axis=0).astype(np.float32)
        for key, shape in {"state": (5,), "action": (2,), "keypoint": (9, 2)}.items()
    }
    write_zarr(path, Episodes(arrays, lengths.cumsum()))
    return path


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demonstrations(tmp_path_factory.mktemp("data") / "walks.zarr.zip")


@pytest.fixture
def tiny_config(demonstrations: Path, tmp_path: Path) -> Callable[..., RobotConfig]:
    """A configuration of a tiny U-Net on made-up demonstrations, four updates, nothing evaluated."""

    def build(*overrides: str) -> RobotConfig:
        base = [
            "task=pusht_state",
            "model=unet",
            f"task.data={demonstrations}",
            "training.steps=4",
            "training.batch_size=8",
            "training.validate_every=2",
            "training.logging.every=1",
            "evaluation.episodes=0",
            f"run_dir={tmp_path / 'run'}",
        ]
        chosen = [override for override in overrides if override.startswith("model=")]
        net = TINY[3:] if chosen and chosen != ["model=unet"] else TINY
        return robot_config([*base, *net, *overrides])

    return build
