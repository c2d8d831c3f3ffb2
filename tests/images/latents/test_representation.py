"""Latents as other tools write them, and what is told of how they were made."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy_accel.cli import main
from policy_accel.data.images import read_images
from policy_accel.data.images.encoding import EDM2, Encoding
from policy_accel.errors import UserError
from policy_accel.images.latents.autoencoder import Autoencoder
from policy_accel.images.latents.representation import Representation, encoding_in

from .conftest import part


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def test_what_edm2_writes(network: Any, autoencoder: Path, tmp_path: Path, capsys: Any) -> None:
    """Means and deviations of pixels in [0, 1], in a ZIP of files that its tool names so."""
    pictures = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    made = network.encode(torch.from_numpy(pictures) / 255).latent_dist
    moments = torch.cat([made.mean, made.std], dim=1).numpy()
    names = [f"00000/img-mean-std-{i:08d}.npy" for i in range(4)]
    with zipfile.ZipFile(tmp_path / "latents.zip", "w") as archive:
        for name, values in zip(names, moments, strict=True):
            archive.writestr(name, npy(values))
        archive.writestr("dataset.json", json.dumps({"labels": [[name, i % 2] for i, name in enumerate(names)]}))
    found = part(tmp_path / "latents.zip")
    assert found.encoding == EDM2
    assert found.shape == (4, 8, 8)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 0, 1]
    x0 = Representation(EDM2).encode(torch.from_numpy(found.images.copy()))
    raw_mean, raw_std = ([5.81, 3.25, 0.12, -2.15], [4.17, 4.62, 3.71, 3.28])
    expected = (made.mean - torch.tensor(raw_mean)[:, None, None]) / torch.tensor(raw_std)[:, None, None] * 0.5
    torch.testing.assert_close(x0, expected, rtol=1e-4, atol=1e-5)
    decoded = Representation(EDM2, Autoencoder(autoencoder)).decode(x0)
    pixels = network.decode(made.mean).sample.clamp(0, 1) * 255
    assert (decoded - pixels).abs().max() <= 0.51
    assert main(["data", "decode", str(tmp_path / "latents.zip"), "--output", str(tmp_path / "x.npz")]) == 2
    assert "give --autoencoder FOLDER" in capsys.readouterr().err


def test_other_forms_of_latents(tmp_path: Path) -> None:
    """One file for each, with a first axis of 1 too; what was told of how they were made is in a file beside them."""
    values = np.random.default_rng(0).normal(size=(3, 4, 8, 8)).astype(np.float32)
    (tmp_path / "features").mkdir()
    for i, value in enumerate(values):
        np.save(tmp_path / "features" / f"{i}.npy", value[None])
    np.testing.assert_array_equal(part(tmp_path / "features").images, values)
    before = part(tmp_path / "features").fingerprint()
    (tmp_path / "features" / "encoding.json").write_text('{"scale": [1, 2, 3, 4], "shift": 0.5}')
    found = part(tmp_path / "features")
    assert found.encoding == Encoding(scale=(1.0, 2.0, 3.0, 4.0), shift=(0.5,))
    assert found.fingerprint() != before
    representation = Representation(found.encoding)
    x0 = representation.encode(torch.from_numpy(found.images.copy()))
    np.testing.assert_allclose(x0, (values - 0.5) * np.arange(1, 5)[:, None, None], rtol=1e-6)
    np.testing.assert_allclose(representation.decode(x0), values, rtol=1e-5, atol=1e-6)
    assert encoding_in(json.loads(json.dumps(representation.record())), "x") == found.encoding
    assert encoding_in({"latents": True, "latent_scale": 0.5}, "x") == Encoding(scale=(0.5,))  # of earlier versions
    np.save(tmp_path / "all.npy", values)
    (tmp_path / "encoding.json").write_text('{"moments": true}')
    assert part(tmp_path / "all.npy").shape == (2, 8, 8)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ("{", "encoding.json: does not tell how latents were made"),
        ("[1]", "it holds list, not an object"),
        ('{"scael": 1}', "scael is unknown; did you mean 'scale'"),
        ('{"scale": 0}', "scale cannot be 0"),
        ('{"scale": "1"}', "scale cannot be '1'"),
        ('{"moments": 1}', "moments cannot be 1"),
        ('{"resolution": 0}', "resolution cannot be 0"),
        ('{"pixels": 3}', "pixels cannot be 3"),
        ('{"scale": [1, 2]}', "has 3 channels and 2 values of scale"),
        ('{"moments": true}', "has 3 channels, which are no means and as many deviations"),
    ],
)
def test_damaged_facts(facts: str, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 8, 8), np.float32))
    (tmp_path / "encoding.json").write_text(facts)
    with pytest.raises(UserError, match=said):
        read_images(tmp_path / "x.npy", "train")
