"""Latents from pictures and back: files of them, runs on them, and what other tools write."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from policy_accel.cli import main
from policy_accel.data.images import ImageSet, read_images
from policy_accel.data.images.encoding import EDM2, Encoding
from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.images.config import ImageConfig
from policy_accel.images.latents.autoencoder import Autoencoder
from policy_accel.images.latents.representation import Representation, encoding_in
from policy_accel.images.scoring.evaluate import ImageEvaluator
from policy_accel.images.sets import load_split
from policy_accel.images.track import IMAGES

Build = Callable[..., ImageConfig]
FACTOR = 2
LATENT_RUN = ["task.augmentation=none", "model.channels=8", "model.multipliers=[1]", "evaluation.grid=4"]


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def network(autoencoder: Path) -> Any:
    """The same, by the library alone."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(autoencoder, low_cpu_mem_usage=False).eval().requires_grad_(False)


def encode(shapes: Path, autoencoder: Path, output: Path, *words: str) -> int:
    paths = ["--autoencoder", str(autoencoder), "--output", str(output)]
    return main(["data", "encode", str(shapes), *paths, "--batch-size", "20", "--device", "cpu", *words])


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory, autoencoder: Path, shapes: Path) -> Path:
    """The shapes, encoded to moments."""
    output = tmp_path_factory.mktemp("latents") / "latents.npz"
    assert encode(shapes, autoencoder, output) == 0
    return output


def part(path: Path, split: Any = "train") -> ImageSet:
    found = read_images(path, split)
    assert found is not None
    return found


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
    from PIL import Image

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
