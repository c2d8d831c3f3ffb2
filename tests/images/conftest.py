from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.compositions import composed_once
from torch import nn

from policy_accel.images.config import ImageConfig
from policy_accel.images.shapes import make_shapes, write_images_npz
from policy_accel.images.track import IMAGES
from policy_accel.models.flops import training_flops

composed = composed_once(IMAGES.config)
COUNTS: dict[tuple[object, ...], float] = {}
TINY_DDPM = ["model.channels=8", "model.multipliers=[1,2]", "model.blocks=1", "model.heads=1", "model.dropout=0.0"]
BY_WIDTH = [*TINY_DDPM[:3], "model.head_channels=8"]
TINY = {
    "ddpm": [*TINY_DDPM, "model.attention_resolutions=[]"],
    "edm": [*TINY_DDPM, "model.attention_resolutions=[]"],
    "adm": [*BY_WIDTH, "model.attention_resolutions=[]"],
    "edm2": [*BY_WIDTH, "model.attention_resolutions=[]"],
    "dit": ["model.width=16", "model.depth=1", "model.heads=2", "model.patch=4"],
}


def write_shapes(path: Path, *, count: int = 48, size: int = 16, seed: int = 0) -> Path:
    """A small set of shapes with a test split."""
    write_images_npz(path, make_shapes(count, size=size, seed=seed), make_shapes(24, size=size, seed=seed + 1))
    return path


@pytest.fixture
def pictures() -> Callable[..., np.ndarray]:
    """Distinct random images: pictures(5, channels=3, size=(8, 8)) -> uint8 [5, 3, 8, 8]."""

    def pictures(count: int, channels: int = 3, size: tuple[int, int] = (8, 8), seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (count, channels, *size), dtype=np.uint8)

    return pictures


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes.npz")


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def operations_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal networks: a count takes a quarter of a second, and every run makes one."""

    def count(model: nn.Module, shape: tuple[int, ...], condition_dim: int = 0) -> float:
        sizes = tuple((name, tensor.shape) for name, tensor in model.state_dict().items())
        key = (repr(model), sizes, tuple(shape), condition_dim)
        if key not in COUNTS:
            COUNTS[key] = training_flops(model, shape, condition_dim)
        return COUNTS[key]

    monkeypatch.setattr("policy_accel.images.task.training_flops", count)


@pytest.fixture
def tiny_images(shapes: Path, tmp_path: Path) -> Callable[..., ImageConfig]:
    """A configuration of a tiny net on 48 shapes, four updates, a handful of images measured at the end."""

    def build(*overrides: str) -> ImageConfig:
        chosen = [override.split("=")[1] for override in overrides if override.startswith("model=")]
        model = chosen[0] if chosen else "ddpm"
        return composed(
            [
                "task=shapes",
                f"model={model}",
                f"task.data={shapes}",
                *TINY[model],
                "training.steps=4",
                "training.batch_size=8",
                "training.evaluate_every=0",
                "training.validate_every=2",
                "training.logging.every=1",
                "training.device=cpu",
                "training.optimizer.warmup_steps=1",
                "training.ema.lengths=[]",
                "sampling.steps=2",
                "evaluation.samples=24",
                "evaluation.curve_samples=24",
                "evaluation.grid=4",
                "evaluation.video=false",
                "evaluation.metrics.neighbours=2",
                f"run_dir={tmp_path / 'run'}",
                *overrides,
            ]
        )

    return build


def pixels(count: int, *, channels: int = 3, size: int = 16, seed: int = 0) -> np.ndarray:
    """Random images uint8 [count, channels, size, size]."""
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)
