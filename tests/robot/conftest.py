from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.compositions import composed_once
from support.data import write_zarr

from policy_accel.data import Episodes
from policy_accel.policy.controller import Policy
from policy_accel.policy.track import ROBOT

composed = composed_once(ROBOT.config)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny U-Net on made-up demonstrations with the keys of Push-T."""
    folder = tmp_path_factory.mktemp("robot")
    generator = np.random.default_rng(0)
    arrays = {
        name: np.cumsum(generator.normal(size=(90, size)), axis=0).astype("f4")
        for name, size in (("state", 5), ("action", 2))
    }
    write_zarr(folder / "walks.zarr.zip", Episodes(arrays, np.array([30, 60, 90])))
    ROBOT.train(
        composed(
            [
                "task=pusht_state",
                "model=unet",
                "model.down_dims=[8,16]",
                "model.kernel_size=3",
                "model.step_embedding_dim=8",
                f"task.data={folder / 'walks.zarr.zip'}",
                "training.steps=4",
                "training.batch_size=8",
                "training.device=cpu",
                "sampling.steps=3",
                "task.max_steps=30",
                "evaluation.episodes=0",
                "evaluation.workers=0",
                "evaluation.videos=0",
                f"run_dir={folder / 'run'}",
            ]
        )
    )
    return folder / "run"


@pytest.fixture(scope="session")
def policy(run_dir: Path) -> Policy:
    """The policy of the run; a test that drives it resets it first."""
    return Policy.load(run_dir, device="cpu")
