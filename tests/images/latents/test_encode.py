"""Files of latents from files of images, and back, by command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy_accel.cli import main
from policy_accel.extras import to_install
from policy_accel.images.latents.autoencoder import Autoencoder

from .conftest import encode, part


def test_moments_are_those_of_the_library(latents: Path, shapes: Path, network: Any) -> None:
    for split in ("train", "test"):
        pictures, found = part(shapes, split), part(latents, split)
        of_library = network.encode(torch.from_numpy(pictures.images) / 127.5 - 1).latent_dist
        moments = torch.cat([of_library.mean, of_library.std], dim=1).numpy()
        np.testing.assert_allclose(found.images, moments, rtol=1e-4, atol=1e-6)
        assert isinstance(found.images, np.memmap)
        assert found.shape == (4, 8, 8)
        np.testing.assert_array_equal(found.labels, pictures.labels)
        assert found.classes == pictures.classes
    assert found.encoding is not None
    assert (found.encoding.scale, found.encoding.shift, found.encoding.moments) == ((0.5,), (0.25,), True)
    with np.load(latents) as plain:  # by NumPy alone, whose arrays come from the same bytes
        np.testing.assert_array_equal(plain["latents"], part(latents).images)


def test_means_and_draws(shapes: Path, autoencoder: Path, latents: Path, tmp_path: Path) -> None:
    moments = part(latents).images
    assert encode(shapes, autoencoder, tmp_path / "mean.npz", "--posterior", "mean", "--dtype", "float16") == 0
    means = part(tmp_path / "mean.npz").images
    np.testing.assert_allclose(means, moments[:, :4].astype(np.float16), rtol=2e-3)
    drawn = []
    for seed in ("0", "0", "1"):
        output = tmp_path / f"{len(drawn)}.npz"
        assert encode(shapes, autoencoder, output, "--posterior", "sample", "--seed", seed) == 0
        drawn.append((part(output).images - moments[:, :4]) / moments[:, 4:])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert abs(np.std(drawn[0]) - 1) < 0.02
    assert abs(np.corrcoef(drawn[0].ravel(), drawn[2].ravel())[0, 1]) < 0.05


def test_what_was_stopped_goes_on_to_the_same_bytes(
    shapes: Path, autoencoder: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output, calls, encode_images = tmp_path / "latents.npz", [], Autoencoder.encode

    def stopped_at(last: int) -> None:
        def counted(self: Autoencoder, images: torch.Tensor) -> Any:
            calls.append(len(images))
            if len(calls) == last:
                raise KeyboardInterrupt
            return encode_images(self, images)

        monkeypatch.setattr(Autoencoder, "encode", counted)

    stopped_at(3)
    assert encode(shapes, autoencoder, output) == 130
    assert "start the same command again to go on" in capsys.readouterr().err
    assert not output.exists()
    assert encode(shapes, autoencoder, output, "--posterior", "mean") == 2
    assert "begun with another posterior (moments, now mean); give the same to go on" in capsys.readouterr().err
    stopped_at(-1)
    assert encode(shapes, autoencoder, output) == 0
    assert calls == [20, 20, 8, 20, 8, 20, 4]  # of 48 and 24; the last batch that was there is made again
    assert output.read_bytes() == latents.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "latents" in path.name] == ["latents.npz"]
    assert encode(shapes, autoencoder, output) == 2
    assert "exists already and is not overwritten" in capsys.readouterr().err


def test_decoded_pictures_are_those_of_the_library(latents: Path, network: Any, tmp_path: Path) -> None:
    assert main(["data", "decode", str(latents), "--output", str(tmp_path / "pixels.npz"), "--device", "cpu"]) == 0
    for split in ("train", "test"):
        found, moments = part(tmp_path / "pixels.npz", split), part(latents, split)
        pixels = network.decode(torch.from_numpy(np.array(moments.values))).sample.add(1).mul(127.5).clamp(0, 255)
        assert np.abs(found.images - pixels.numpy()).max() <= 0.51
        np.testing.assert_array_equal(found.labels, moments.labels)
        assert found.classes == moments.classes


def test_images_that_cannot_be_encoded(
    autoencoder: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    np.savez(tmp_path / "odd.npz", images=np.zeros((2, 9, 9, 3), np.uint8))
    assert encode(tmp_path / "odd.npz", autoencoder, tmp_path / "x.npz") == 2
    assert "9 x 9 pixels" in capsys.readouterr().err
    assert encode(tmp_path / "odd.npz", autoencoder, tmp_path / "x.npz", "--resolution", "8") == 0
    assert encode(latents, autoencoder, tmp_path / "y.npz") == 2
    assert "holds latents already; give the images" in capsys.readouterr().err
    assert encode(tmp_path / "odd.npz", autoencoder, tmp_path / "y.npz", "--batch-size", "0") == 2
    assert main(["data", "decode", str(tmp_path / "odd.npz"), "--output", str(tmp_path / "y.npz")]) == 2
    assert "holds images, which need no decoding" in capsys.readouterr().err
    monkeypatch.setattr("policy_accel.images.latents.autoencoder.find_spec", lambda name: None)
    assert encode(tmp_path / "odd.npz", autoencoder, tmp_path / "y.npz", "--resolution", "8") == 2
    assert f"needs the package diffusers, which is not installed; {to_install('diffusers')}" in capsys.readouterr().err
