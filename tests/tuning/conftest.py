from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.data import write_zarr

from policy_accel.data import Episodes
from policy_accel.policy.track import ROBOT


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy for Push-T after a few updates on made-up demonstrations, of which one is held out."""
    folder = tmp_path_factory.mktemp("tuning")
    generator = np.random.default_rng(0)
    arrays = {
        key: np.cumsum(generator.normal(0, 9, (90, size)), axis=0).astype("f4") + 256
        for key, size in (("state", 5), ("action", 2))
    }
    write_zarr(folder / "data.zarr.zip", Episodes(arrays, np.array([30, 60, 90])))
    settings = [
        "task=pusht_state",
        f"task.data={folder / 'data.zarr.zip'}",
        "task.max_steps=16",
        "model=mlp",
        "model.hidden_dims=[32]",
        "model.step_embedding_dim=8",
        "diffusion.target=sample",
        "training.steps=6",
        "training.batch_size=16",
        "training.device=cpu",
        "training.threads=1",
        "sampling.steps=3",
        "evaluation.episodes=2",
        "evaluation.videos=0",
        "evaluation.workers=0",
        f"run_dir={folder / 'run'}",
    ]
    ROBOT.train(ROBOT.config(settings))
    return folder / "run"


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    return tmp_path / "run"
