from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from support.images import generate
from torch import Tensor

from policy_accel.data.images import read_images
from policy_accel.diffusion import Objective, SigmaProcess, vp_process
from policy_accel.errors import UserError
from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.generation.pictures import (
    displayable,
    forming_video,
    grid,
    to_uint8,
    write_folder,
    write_image_npz,
    write_png,
)
from policy_accel.images.generation.sampling import ImageSampler, ImageSamplingConfig


def random_images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_pixels_survive_the_way_into_the_model_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(every.float() / 127.5 - 1), every)
    # Half of the distance to the next shade is still this shade, and beyond the range it is clamped.
    assert torch.equal(to_uint8(every.float() / 127.5 - 1 + 0.49 / 127.5), every)
    assert to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_an_error(value: float) -> None:
    with pytest.raises(UserError, match="not finite"):
        to_uint8(torch.tensor([0.0, value]))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_holds_every_image_where_it_belongs(channels: int) -> None:
    images = random_images(5, channels, 4, 6)
    picture = grid(images, columns=3, pad=1, scale=2)
    assert picture.shape == (2 * 9 + 1, 3 * 13 + 1, 3)
    assert picture.dtype == np.uint8
    for i, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        top, left = 1 + row * 9, 1 + column * 13
        for dy, dx in [(0, 0), (1, 1)]:
            part = picture[top + dy : top + 8 : 2, left + dx : left + 12 : 2]
            np.testing.assert_array_equal(part, images[i].expand(3, -1, -1).permute(1, 2, 0).numpy())
    assert bool((picture[10:, 27:] == 255).all())
    assert grid(random_images(7, 3, 4, 4)).shape == (3 * 6 + 2, 3 * 6 + 2, 3)
    assert grid(random_images(2, 3, 4, 4), columns=10).shape == (8, 14, 3)


def test_latents_are_shown_by_three_channels_stretched() -> None:
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 5 + 2
    shown = displayable(latents)
    assert shown.shape == (3, 3, 8, 8)
    assert shown.dtype == torch.uint8
    order = latents[:, :3].flatten().argsort()
    assert bool((shown.flatten()[order].int().diff() >= 0).all())
    assert 0.005 < float((shown == 0).float().mean()) < 0.03
    assert 0.005 < float((shown == 255).float().mean()) < 0.03
    assert displayable(latents[:, :2]).shape == (3, 1, 8, 8)
    assert grid(latents).shape == (22, 22, 3)


def test_png_is_exact_and_replaced_only_when_asked(tmp_path: Path) -> None:
    path, picture = tmp_path / "new" / "a.png", grid(random_images(4, 3, 5, 5))
    write_png(path, picture)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    with pytest.raises(UserError, match="exists already"):
        write_png(path, 255 - picture)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    write_png(path, 255 - picture, replace=True)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), 255 - picture)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_of_numbered_images(tmp_path: Path, channels: int) -> None:
    images = random_images(3, channels, 4, 4)
    write_folder(tmp_path / "images", images, first=12)
    names = sorted(file.name for file in (tmp_path / "images").iterdir())
    assert names == ["000012.png", "000013.png", "000014.png"]
    second = np.asarray(Image.open(tmp_path / "images" / "000013.png"))
    np.testing.assert_array_equal(second.reshape(4, 4, channels), images[1].permute(1, 2, 0).numpy())


def test_npz_is_an_image_set_again(tmp_path: Path) -> None:
    images, labels = random_images(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    for names, adm in [({"images", "labels"}, False), ({"arr_0", "arr_1"}, True)]:
        path = tmp_path / f"{adm}.npz"
        write_image_npz(path, images, labels, adm_names=adm)
        with np.load(path, allow_pickle=False) as arrays:
            assert set(arrays.files) == names
            np.testing.assert_array_equal(arrays[sorted(names)[0]], images.permute(0, 2, 3, 1).numpy())
        again = read_images(path, "train")
        assert again is not None
        np.testing.assert_array_equal(again.images, images.numpy())
        np.testing.assert_array_equal(again.labels, labels.numpy())
    write_image_npz(tmp_path / "latents.npz", torch.ones(2, 4, 8, 8))
    with np.load(tmp_path / "latents.npz") as arrays:
        assert arrays.files == ["latents"]
        assert arrays["latents"].shape == (2, 4, 8, 8)


def frames_of(path: Path) -> list[np.ndarray]:
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return [np.frombuffer(frame, dtype=np.uint8).reshape(height, width, 3) for frame in reader]


def pull(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
    """A model that says that the image is bright, whatever it sees."""
    return torch.full_like(x, 0.8)


@pytest.mark.parametrize("batch_size", [4, 3])
def test_film_goes_from_noise_to_the_images(tmp_path: Path, batch_size: int) -> None:
    path = tmp_path / "films" / "forming.mp4"
    options: dict[str, Any] = {
        "shape": (1, 16, 16),
        "sampler": ImageSampler(Objective(vp_process(), "sample"), ImageSamplingConfig(steps=6)),
        "seed": 0,
        "batch_size": batch_size,
    }
    forming_video(path, ImageGenerator(pull, **options), indices=range(4), fps=4, scale=2)
    frames = frames_of(path)
    assert len(frames) == 6 + 6  # one an evaluation, and 1.5 seconds of the result
    result = grid(to_uint8(generate(pull, indices=range(4), **options)), scale=2)
    assert frames[0].shape == result.shape
    assert np.abs(frames[-1].astype(int) - result).mean() < 3
    inside = [frame[4:34, 4:34].astype(float) for frame in frames]
    assert inside[0].std() > 50
    spreads = [frame.std() for frame in inside[:6]]
    assert spreads[-1] < 0.7 * spreads[0]
    assert inside[-1].mean() == pytest.approx(0.9 * 255, abs=4)


def test_long_samplings_make_short_films(tmp_path: Path) -> None:
    path = tmp_path / "forming.mp4"
    objective = Objective(SigmaProcess("ve"), "sample")
    long = ImageSampler(objective, ImageSamplingConfig(sampler="heun", steps=200))
    forming_video(path, ImageGenerator(pull, (1, 8, 8), long, seed=0), indices=range(2), fps=2)
    assert len(frames_of(path)) == 100 + 3  # every fourth of 399 evaluations
    short = ImageSampler(objective, ImageSamplingConfig(steps=3))
    forming_video(path, ImageGenerator(pull, (1, 8, 8), short, seed=0), indices=range(2), fps=2)
    assert len(frames_of(path)) == 3 + 3
    assert [file.name for file in tmp_path.iterdir()] == ["forming.mp4"]


def test_a_film_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> subprocess.Popen[bytes]:
        raise KeyboardInterrupt

    monkeypatch.setattr("policy_accel.images.generation.pictures.grid", broken)
    sampler = ImageSampler(Objective(vp_process(), "sample"), ImageSamplingConfig(steps=2))
    with pytest.raises(KeyboardInterrupt):
        forming_video(tmp_path / "forming.mp4", ImageGenerator(pull, (1, 8, 8), sampler, seed=0), indices=range(2))
    assert list(tmp_path.iterdir()) == []
