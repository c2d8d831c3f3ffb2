"""A small autoencoder of random weights, and shapes encoded by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from policy_accel.cli import main
from policy_accel.data.images import ImageSet, read_images

LATENT_RUN = ["task.augmentation=none", "model.channels=8", "model.multipliers=[1]", "evaluation.grid=4"]


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one that halves height and width."""
    from diffusers import AutoencoderKL

    folder = tmp_path_factory.mktemp("autoencoder")
    blocks: dict[str, Any] = {
        "block_out_channels": (4, 4),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoencoderKL(**blocks, norm_num_groups=2, scaling_factor=0.5, shift_factor=0.25)
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def network(autoencoder: Path) -> Any:
    """The same, by the library alone."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(autoencoder, low_cpu_mem_usage=False).eval().requires_grad_(False)


def encode(shapes: Path, autoencoder: Path, output: Path, *words: str) -> int:
    paths = ["--autoencoder", str(autoencoder), "--output", str(output)]
    return main(["data", "encode", str(shapes), *paths, "--batch-size", "20", "--device", "cpu", *words])


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory, autoencoder: Path, shapes: Path) -> Path:
    """The shapes, encoded to moments."""
    output = tmp_path_factory.mktemp("latents") / "latents.npz"
    assert encode(shapes, autoencoder, output) == 0
    return output


def part(path: Path, split: Any = "train") -> ImageSet:
    found = read_images(path, split)
    assert found is not None
    return found
