"""Every network and every way of training of both tracks as CUDA graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.captured import check_captured, check_resumed
from support.methods import DIT, IMAGES_COMMON, MLP, ROBOT_COMMON
from support.pretrained import write_resnet18

from policy_accel.images.shapes import make_shapes, write_images_npz
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT

UNET = ["model=unet", "model.down_dims=[8,16]", "model.step_embedding_dim=8", "model.groups=4", "model.kernel_size=3"]
POLICIES = {
    "unet": UNET,
    "unet, shifts alone": [*UNET, "model.film_scale=false"],
    "transformer": ["model=transformer", "model.layers=1", "model.embedding_dim=16", "model.heads=2"],
    "inpainting": [*MLP, "policy.conditioning=inpainting", "method=immiscible_denoiser"],
    "masked": [*MLP, "task.mask_padding=true", "method=immiscible"],
    "masked, several times": [*MLP, "task.mask_padding=true", "method=kl"],
    "bf16": [*UNET, "training.precision=bf16"],
    "fp16": [*UNET, "training.precision=fp16"],
    "clipped, averages": [
        *MLP,
        "method=consistency",
        "training.optimizer.clip_grad_norm=0.1",
        "training.ema.half_life=100",
        "training.ema.lengths=[0.05,0.1]",
    ],
}
ENCODERS = {
    "resnet18": ["encoder.crop=42", "encoder.resnet.width=8", "encoder.resnet.group_channels=4"],
    "resnet18, slow": [
        "encoder.crop=42",
        "encoder.resnet.width=8",
        "encoder.resnet.group_channels=4",
        "encoder.lr_factor=0.1",
        "training/optimizer=muon",
    ],
    "resnet18, augmented": [
        "encoder.crop=null",
        "encoder.augmentation.shift=3",
        *(f"encoder.augmentation.{name}=0.2" for name in ("brightness", "contrast", "saturation", "hue")),
        "encoder.resnet.width=8",
        "encoder.resnet.group_channels=4",
    ],
    "vit": [
        "encoder.name=vit_small",
        "encoder.crop=42",
        "encoder.vit.dim=16",
        "encoder.vit.depth=1",
        "encoder.vit.heads=2",
    ],
}
IMAGE_UNET = ["model.channels=8", "model.multipliers=[1,2]", "model.blocks=1", "model.attention_resolutions=[8]",
              "model.heads=1"]  # fmt: skip
IMAGE_NETS = {
    "ddpm": ["model=ddpm", *IMAGE_UNET],
    "edm": ["model=edm", *IMAGE_UNET],
    "ncsnpp": ["model=ncsnpp", *IMAGE_UNET],
    "bf16": ["model=ddpm", *IMAGE_UNET, "training.precision=bf16"],
    "channels first": ["model=ddpm", *IMAGE_UNET, "training.channels_last=false"],
}
IMAGE_WAYS = {
    "augmented, averages": [*DIT, "task.augmentation=edm", "task.label_dropout=0.2", "training.ema.lengths=[0.05,0.1]"],
    "on the host": [*DIT, "task.residence=disk", "method=immiscible_classes"],
    "half-life": [*DIT, "training.ema.half_life=100", "method=immiscible"],
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "shapes.npz"
    write_images_npz(path, make_shapes(64, size=16, seed=0), make_shapes(24, size=16, seed=1))
    return f"task.data={path}"


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two short episodes with pictures of noise."""
    generator, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "filmed.npz"
    numbers = {name: generator.normal(size=(60, size)).astype("f4") for name, size in (("state", 5), ("action", 2))}
    pictures = generator.integers(0, 256, (60, 48, 48, 3), dtype="u1")
    np.savez(path, img=pictures, episode_ends=[30, 60], **numbers)
    return f"task.data={path}"


@pytest.mark.parametrize("way", POLICIES)
def test_policies(way: str) -> None:
    tolerance = 1e-2 if way in ("bf16", "fp16") else 1e-5
    check_captured(ROBOT, ROBOT.config([*ROBOT_COMMON, *POLICIES[way]]), tolerance=tolerance)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoders_of_pictures(encoder: str, filmed: str) -> None:
    config = ROBOT.config([*ROBOT_COMMON, "task=pusht_image", filmed, *MLP, *ENCODERS[encoder]])
    check_captured(ROBOT, config, tolerance=1e-4)  # convolutions sum in another order on CUDA


def test_a_frozen_encoder(filmed: str, tmp_path: Path) -> None:
    weights = write_resnet18(tmp_path / "resnet18.pth")
    given = [filmed, *MLP, "encoder.crop=42", f"encoder.weights={weights}", "encoder.lr_factor=0"]
    config = ROBOT.config([*ROBOT_COMMON, "task=pusht_image", *given])
    check_captured(ROBOT, config, tolerance=1e-4)


@pytest.mark.parametrize("net", IMAGE_NETS)
def test_image_networks(net: str, shapes: str) -> None:
    tolerance = 1e-2 if "bf16" in str(IMAGE_NETS[net]) else 1e-5
    check_captured(IMAGES, IMAGES.config([*IMAGES_COMMON, shapes, *IMAGE_NETS[net]]), tolerance=tolerance)


@pytest.mark.parametrize("way", IMAGE_WAYS)
def test_ways_of_images(way: str) -> None:
    check_captured(IMAGES, IMAGES.config([*IMAGES_COMMON, *IMAGE_WAYS[way]]))
    check_resumed(IMAGES, IMAGES.config([*IMAGES_COMMON, *IMAGE_WAYS[way]]))
