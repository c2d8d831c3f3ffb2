"""Autoencoders as diffusers saves them: their scales, and those that cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from policy_accel.errors import UserError
from policy_accel.images.latents.autoencoder import Autoencoder


def damaged(folder: Path, how: str) -> None:
    """Spoil a copy of an autoencoder."""
    config, weights = folder / "config.json", folder / "diffusion_pytorch_model.safetensors"
    facts = json.loads(config.read_text())
    if how == "pickle":
        weights.rename(folder / "diffusion_pytorch_model.bin")
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "lacks":
        save_file(dict(list(load_file(weights).items())[1:]), weights)
    else:
        config.write_text(json.dumps({**facts, **json.loads(how)}))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("pickle", "has no diffusion_pytorch_model.safetensors; save the autoencoder in safetensors"),
        ("cut", "cannot be loaded"),
        ("lacks", "does not fit config.json"),
        ('{"_class_name": "VQModel"}', "describes VQModel, not AutoencoderKL"),
        ('{"latent_channels": "4"}', "its latent_channels is '4'"),
        ('{"scaling_factor": "x"}', "its scaling_factor is 'x'"),
        ('{"in_channels": 4}', "takes images of 4 channels"),
    ],
)
def test_autoencoders_that_cannot_be(how: str, said: str, autoencoder: Path, tmp_path: Path) -> None:
    shutil.copytree(autoencoder, tmp_path / "vae")
    damaged(tmp_path / "vae", how)
    with pytest.raises(UserError, match=said):
        Autoencoder(tmp_path).load()  # of the folder of a pipeline, in which it is vae/


def test_scales_of_autoencoders(autoencoder: Path, tmp_path: Path) -> None:
    shutil.copytree(autoencoder, tmp_path / "vae")
    damaged(tmp_path / "vae", '{"latents_mean": [1, 2, 3, 4], "latents_std": [1, 2, 4, 8]}')
    found = Autoencoder(tmp_path)
    assert (found.scale, found.shift) == ((0.5, 0.25, 0.125, 0.0625), (1.0, 2.0, 3.0, 4.0))
    damaged(tmp_path / "vae", '{"latents_mean": null, "shift_factor": null}')
    assert (Autoencoder(tmp_path).scale, Autoencoder(tmp_path).shift) == ((0.5,), (0.0,))
