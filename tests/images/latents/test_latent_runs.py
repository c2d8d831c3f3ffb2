"""Runs on latents: what they are trained on, measured in, and draw."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.scoring.evaluate import ImageEvaluator
from policy_accel.images.sets import load_split
from policy_accel.images.track import IMAGES

from .conftest import LATENT_RUN, encode, part

Build = Callable[..., ImageConfig]


def test_a_run_on_latents_draws_and_measures_pixels(
    latents: Path, shapes: Path, network: Any, tiny_images: Build, tmp_path: Path
) -> None:
    config = tiny_images(f"task.data={latents}", *LATENT_RUN, "evaluation.video=true")
    IMAGES.train(config)
    run_dir = Path(config.run_dir)
    result = json.loads((run_dir / "checkpoints" / "last" / "evaluation.json").read_text())
    of_pixels = tiny_images(f"task.data={shapes}", *LATENT_RUN)
    floors = [measured["floor"] for measured in result["measures"].values()]
    own = ImageEvaluator(of_pixels, load_split(of_pixels.task), tmp_path)
    expected = own.quality.measure(part(shapes).images[:24], None)
    assert floors == [measured["floor"] for measured in expected.values()]
    with Image.open(run_dir / "samples" / "00000004.png") as picture:
        assert picture.size == (2 * (16 * 4 + 2) + 2,) * 2
    assert (run_dir / "samples" / "forming.mp4").exists()

    assert (
        main(["sample", str(run_dir), "--count", "3", "--npz", "--device", "cpu", "--output", str(tmp_path / "s")]) == 0
    )
    loaded = IMAGES.load(run_dir)
    x0 = torch.randn(2, 4, 8, 8)
    pixels = network.decode(x0 / 0.5 + 0.25).sample.add(1).mul(127.5).clamp(0, 255)
    assert (loaded.representation.decode(x0) - pixels).abs().max() <= 0.51
    with np.load(tmp_path / "s" / "samples.npz") as arrays:
        assert arrays["images"].shape == (3, 16, 16, 3)


def test_latents_are_drawn_anew_each_time(latents: Path, tiny_images: Build) -> None:
    task = IMAGES.build(tiny_images(f"task.data={latents}", *LATENT_RUN))
    task.to(torch.device("cpu"))
    generator, indices = torch.Generator().manual_seed(0), torch.arange(48)
    mean, deviation = torch.from_numpy(part(latents).images.copy()).chunk(2, dim=1)
    noises = []
    for _ in range(2):
        x0 = task.batch(indices, task.draw(48, generator)).x0
        noises.append((x0 / 0.5 + 0.25 - mean) / deviation)
    assert all(abs(noise.std() - 1) < 0.02 for noise in noises)
    assert abs(torch.corrcoef(torch.stack(noises).flatten(1))[0, 1]) < 0.03
    held_out = [task.validation_batch(torch.arange(first, 24)).x0 for first in (0, 3)]
    assert torch.equal(held_out[0][3:], held_out[1])
    mean, deviation = torch.from_numpy(part(latents, "test").images.copy()).chunk(2, dim=1)
    assert abs(((held_out[0] / 0.5 + 0.25 - mean) / deviation).std() - 1) < 0.03


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pixels": "gone.npz"}, "gone.npz: does not exist.* Until then measures compare latents"),
        ({"pixels": None}, "does not say of which images its latents were made"),
        ({"autoencoder": "nowhere"}, "nowhere: is no folder of an autoencoder.* Without it, latents are drawn"),
    ],
)
def test_what_latents_name_may_be_gone(
    change: dict[str, Any], said: str, latents: Path, tiny_images: Build, tmp_path: Path
) -> None:
    told = part(latents)
    assert told.encoding is not None
    rewritten = tmp_path / "moved.npz"
    with zipfile.ZipFile(latents) as old, zipfile.ZipFile(rewritten, "w") as new:
        for name in old.namelist():
            facts = {**json.loads(old.read(name)), **change} if name == "encoding.json" else None
            new.writestr(name, old.read(name) if facts is None else json.dumps(facts))
    config = tiny_images(f"task.data={rewritten}", *LATENT_RUN)
    with pytest.warns(UserWarning, match=said):
        task = IMAGES.build(config, scored=True)
    evaluator = task.evaluator
    assert task.heading["pictures"].endswith("" if "autoencoder" in change else "; measured against the latents")
    assert task.heading["sees"].startswith("latents of 4 x 8 x 8, drawn anew each time, ")
    assert evaluator.quality.reference.shape == (48, 4, 8, 8)
    decoded = evaluator.representation.pixels(torch.zeros(1, 4, 8, 8))
    assert decoded.shape == ((1, 4, 8, 8) if "autoencoder" in change else (1, 3, 16, 16))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["task.autoencoder=nowhere"], "nowhere: is no folder of an autoencoder"),
        (
            ["task.pixels=SMALLER"],
            "holds 43 images of 16 x 16, and .* 48 latents of images of 16 x 16",
        ),
        (["task.latent_scale=0.5"], "task.latent_scale=0.5 has no effect with latents that tell their own scale"),
    ],
)
def test_settings_that_do_not_fit_latents(
    settings: list[str], said: str, latents: Path, tiny_images: Build, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((48, 16, 16, 3), np.uint8), labels=np.zeros(48, int))
    settings = [setting.replace("SMALLER", str(tmp_path / "x.npz")) for setting in settings]
    with pytest.raises(UserError, match=said):
        IMAGES.build(tiny_images(f"task.data={latents}", *LATENT_RUN, *settings), scored=True)


def test_settings_of_latents_do_nothing_for_pixels(tiny_images: Build) -> None:
    for setting in ("task.autoencoder=x", "task.pixels=x"):
        with pytest.raises(UserError, match=f"{setting} has no effect with pixels"):
            IMAGES.build(tiny_images(setting))


def test_grey_images_by_an_autoencoder_of_colour(autoencoder: Path, tiny_images: Build, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (30, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", images=grey)
    assert encode(tmp_path / "grey.npz", autoencoder, tmp_path / "x.npz") == 0
    settings = ["task.conditional=false", "evaluation.samples=8"]
    built = IMAGES.build(tiny_images(f"task.data={tmp_path / 'x.npz'}", *LATENT_RUN, *settings), scored=True)
    assert built.evaluator.quality.reference.shape == (27, 3, 16, 16)
    settings += ["task.held_out=0"]
    whole = IMAGES.build(tiny_images(f"task.data={tmp_path / 'x.npz'}", *LATENT_RUN, *settings), scored=True)
    assert whole.evaluator.quality.reference.shape == (30, 3, 16, 16)
    assert built.heading["pictures"] == f"decoded by {autoencoder}; measured against the images that were encoded"


def test_pictures_are_edited_by_a_run_on_latents(
    latents: Path, network: Any, tiny_images: Build, tmp_path: Path, capsys: Any
) -> None:
    """They are seen as the autoencoder's mean; a mask is one of latents, and what it leaves stays what it was."""
    config = tiny_images(f"task.data={latents}", *LATENT_RUN, "evaluation.samples=0", "evaluation.curve_samples=0")
    IMAGES.train(config)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    arguments = ["sample", config.run_dir, "--labels", "ring", "--device", "cpu", "--npz"]
    inpaint = ["--inpaint", str(tmp_path / "photo.png"), "--mask", "0,0,20,32", "--output", str(tmp_path / "out")]
    with pytest.warns(UserWarning, match="middle cut out and resized to 16 x 16"):
        assert main([*arguments, *inpaint]) == 0
    seen = torch.from_numpy(np.asarray(Image.fromarray(pixels).crop((4, 0, 36, 32)).resize((16, 16), 1)).copy())
    mean = network.encode(seen.movedim(-1, 0)[None] / 127.5 - 1).latent_dist.mean
    loaded = IMAGES.load(Path(config.run_dir))
    torch.testing.assert_close(
        loaded.representation.see(seen.movedim(-1, 0)[None]), (mean - 0.25) * 0.5, rtol=1e-4, atol=1e-4
    )
    drawn = np.load(tmp_path / "out" / "samples.npz")["images"]
    assert drawn.shape == (1, 16, 16, 3)
    kept = network.decode(mean).sample.add(1).mul(127.5).clamp(0, 255)[0].movedim(0, -1).numpy()
    difference = np.abs(drawn[0] - kept)
    assert difference[:, :8].mean() > 2 * difference[:, 12:].mean()  # this decoder's norms mix the whole picture
    given = Image.open(tmp_path / "out" / "given.png")
    assert given.size == (4 * 16 + 4, 4 * 16 + 4)
