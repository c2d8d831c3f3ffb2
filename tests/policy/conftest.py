from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.compositions import composed_once
from support.data import write_zarr

from policy_accel.data import Episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import write_episodes
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT

composed = composed_once(ROBOT.config)
TINY = ["model.down_dims=[8,16]", "model.kernel_size=3", "model.step_embedding_dim=8", "training.device=cpu"]


def write_demonstrations(path: Path, *, seed: int = 0, episodes: int = 6) -> Path:
    """Smooth random walks with the keys of Push-T, poses of an arm and small pictures.

    A name that ends in .hdf5 gives a robomimic file, of which half the episodes carry the filter "half".
    """
    generator = np.random.default_rng(seed)
    lengths = generator.integers(20, 40, episodes)
    steps = int(lengths.sum())
    arrays = {
        key: np.cumsum(generator.normal(size=(steps, *shape)), axis=0).astype(np.float32)
        for key, shape in {"state": (5,), "action": (2,), "keypoint": (9, 2), "pose": (7,)}.items()
    }
    for camera in ("img", "img2"):
        arrays[camera] = generator.integers(0, 256, (steps, 44, 44, 3), dtype=np.uint8)
    facts = tuple({"filters": ["half"] if episode % 2 else []} for episode in range(episodes))
    data = Episodes(arrays, lengths.cumsum(), episode_metadata=facts if path.suffix == ".hdf5" else ())
    if path.suffix == ".hdf5":
        write_episodes(path, MemoryReader(data), "robomimic")
    else:
        write_zarr(path, data)
    return path


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demonstrations(tmp_path_factory.mktemp("data") / "walks.zarr.zip")


@pytest.fixture(scope="session")
def data_file(shared_data: Path) -> Path:
    """The demonstrations of Push-T with pictures that Diffusion Policy published."""
    return shared_data / "pusht_v7_u8.zarr.zip"


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
        return composed([*base, *net, *overrides])

    return build
