from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.data import write_zarr

from policy_accel.benchmark.counting import Counted, count_update
from policy_accel.data import Episodes
from policy_accel.policy.track import ROBOT

TINY = [
    "model=mlp",
    "model.hidden_dims=[16,16]",
    "model.step_embedding_dim=8",
    "training.batch_size=8",
    "training.device=cpu",
    "training.logging.every=2",
    "evaluation.episodes=0",
]


@pytest.fixture
def tiny() -> list[str]:
    """Settings of a small robot run."""
    return list(TINY)


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products and copies of no size, tried once."""
    monkeypatch.setattr("policy_accel.benchmark.rates.MATMUL_SIZES", {"cpu": 32, "cuda": 32})
    monkeypatch.setattr("policy_accel.benchmark.rates.COPY_BYTES", {"cpu": 4096, "cuda": 4096})
    monkeypatch.setattr("policy_accel.benchmark.rates.REPEATS", {"cpu": 1, "cuda": 2})
    monkeypatch.setattr("policy_accel.benchmark.rates.TRIES", 2)


@pytest.fixture(scope="session")
def counted_recipe() -> Callable[[str], Counted]:
    """What an update of a recipe in bf16 costs; each is counted once."""

    @cache
    def counted(recipe: str) -> Counted:
        config = ROBOT.config([f"recipe={recipe}", "training.precision=bf16"])
        return count_update(ROBOT.build(config), config.training, config.seed)

    return counted


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy for Push-T after two updates on made-up demonstrations."""
    folder = tmp_path_factory.mktemp("benchmark")
    generator = np.random.default_rng(0)
    arrays = {key: generator.uniform(0, 512, (60, size)).astype("f4") for key, size in (("state", 5), ("action", 2))}
    write_zarr(folder / "data.zarr.zip", Episodes(arrays, np.array([30, 60])))
    own = [
        "task=pusht_state",
        f"task.data={folder / 'data.zarr.zip'}",
        "task.max_steps=16",
        "training.steps=2",
        "sampling.sampler=ddim",
        "sampling.steps=2",
        f"run_dir={folder / 'run'}",
    ]
    ROBOT.train(ROBOT.config([*TINY, *own]))
    return folder / "run"
