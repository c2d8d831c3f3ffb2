from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import generate
from torch import Tensor

from policy_accel.data.images.decode import decode
from policy_accel.diffusion import FlowProcess, Objective, SigmaProcess, vp_process
from policy_accel.errors import UserError
from policy_accel.images.generation.editing import Given, read_mask, read_pictures
from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.generation.sampling import ImageSampler, ImageSamplingConfig

SHAPE = (3, 6, 5)
OBJECTIVES = {
    "ddpm": Objective(vp_process(), "sample"),
    "scaled data": Objective(vp_process(), "sample", data_scale=2.0),
    "edm": Objective(SigmaProcess("edm"), "sample"),
    "momentum": Objective(SigmaProcess("edm", "momentum"), "sample"),
    "flow": Objective(FlowProcess(), "sample"),
}


def blur(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
    """A model of smooth images: the clean sample is the local mean of what it sees."""
    mixed = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    return torch.tanh(mixed if condition is None else mixed + condition[:, :1, None, None])


def generator(name: str = "ddpm", sampler: str = "ddim", guidance: float = 1.0, **changes: object) -> ImageGenerator:
    settings = {
        "shape": SHAPE,
        "sampler": ImageSampler(OBJECTIVES[name], ImageSamplingConfig(sampler=sampler, steps=8, guidance=guidance)),
        "seed": 3,
    }
    return ImageGenerator(blur, **settings | changes)  # type: ignore[arg-type]


def edit(generator: ImageGenerator, given: Tensor, *, indices: Sequence[int], **how: Any) -> Tensor:
    """`given` noised and denoised again."""
    return torch.cat(list(generator.batches(indices, image=given, **how)))


def inpaint(generator: ImageGenerator, given: Tensor, mask: Tensor, **how: Any) -> Tensor:
    """`given` painted anew where `mask` is true, [H, W] or [n, H, W]."""
    return edit(generator, given, keep=~mask.view(-1, 1, *SHAPE[1:]), **how)


def images(count: int) -> Tensor:
    return 2 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)) - 1


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_edit_follows_from_image_seed_and_index_alone(name: str, sampler: str) -> None:
    given = images(5)
    whole = edit(generator(name, sampler), given, strength=0.5, indices=range(5))
    assert whole.shape == (5, *SHAPE)
    parts = edit(generator(name, sampler, batch_size=2), given, strength=0.5, indices=range(5))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    alone = edit(generator(name, sampler), given[3:4], strength=0.5, indices=[3])
    torch.testing.assert_close(alone, whole[3:4], rtol=1e-4, atol=1e-5)
    other_noise = edit(generator(name, sampler), given[3:4], strength=0.5, indices=[4])
    assert float((other_noise - alone).abs().max()) > 1e-4


def test_strength_decides_how_much_changes() -> None:
    given = images(20)

    def change(strength: float) -> float:
        return float((edit(generator(), given, strength=strength, indices=range(20)) - given).abs().mean())

    drawn = generate(blur, indices=range(20), shape=SHAPE, seed=3,
                     sampler=ImageSampler(OBJECTIVES["ddpm"], ImageSamplingConfig(steps=8)))  # fmt: skip
    whole = edit(generator(), given, strength=1.0, indices=range(20))
    assert change(0.1) < change(0.5) < change(1.0)
    torch.testing.assert_close(whole, drawn, rtol=0, atol=2e-3)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun", "dpm_solver++", "euler"])
@pytest.mark.parametrize("name", ["edm", "momentum", "flow", "scaled data"])
def test_inpainting_keeps_what_is_given_and_paints_the_rest(name: str, sampler: str) -> None:
    if sampler == "heun" and name == "scaled data":
        name = "edm"
    given, mask = images(4), torch.zeros(6, 5, dtype=torch.bool)
    mask[1:4, 2:5] = True
    whole = inpaint(generator(name, sampler), given, mask, indices=range(4))
    torch.testing.assert_close(whole[:, :, ~mask], given[:, :, ~mask], rtol=0, atol=1e-6)
    assert float((whole - given)[:, :, mask].abs().mean()) > 0.05
    assert bool(torch.isfinite(whole).all())
    parts = inpaint(generator(name, sampler, batch_size=3), given, mask, indices=range(4))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_every_image_may_have_its_mask() -> None:
    given, masks = images(6), torch.rand(6, 6, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    for batch_size in (6, 4):
        painted = inpaint(generator("edm", batch_size=batch_size), given, masks, indices=range(6))
        changed = (painted - given).abs().amax(1) > 1e-6
        assert torch.equal(changed, masks)


def test_what_is_painted_depends_on_what_is_around_it() -> None:
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[2:4, 2:4] = True
    results = []
    for shade in (-1.0, 1.0):
        given = torch.full((8, *SHAPE), shade)
        results.append(float(inpaint(generator("edm"), given, mask, indices=range(8))[:, :, mask].mean()))
    assert results[0] < -0.1
    assert results[1] > 0.1


def test_steps_of_an_inpainting_can_be_taken_again() -> None:
    given, mask = images(3), torch.zeros(6, 5, dtype=torch.bool)
    mask[2:4, 2:4] = True
    seen: list[int] = []
    ancestral = generator("edm", "ddpm")
    painted = inpaint(
        ancestral, given, mask, indices=range(3), resamplings=3, watch=lambda number, x: seen.append(number)
    )
    assert len(seen) == ancestral.sampler.network_evaluations(resamplings=3) == 24
    torch.testing.assert_close(painted[:, :, ~mask], given[:, :, ~mask])
    once = inpaint(ancestral, given, mask, indices=range(3))
    assert float((painted - once)[:, :, mask].abs().mean()) > 1e-3
    alone = inpaint(ancestral, given[2:], mask, indices=[2], resamplings=3)
    torch.testing.assert_close(alone, painted[2:], rtol=1e-4, atol=1e-5)


def test_a_weak_inpainting_starts_from_the_image() -> None:
    given, mask = images(8), torch.ones(6, 5, dtype=torch.bool)
    mask[0] = False

    def change(strength: float) -> float:
        painted = inpaint(generator("edm"), given, mask, indices=range(8), strength=strength)
        assert torch.equal(painted[:, :, 0], given[:, :, 0])
        return float((painted - given)[:, :, 1:].abs().mean())

    assert change(0.25) < 0.8 * change(1.0)


def test_edits_take_labels_and_guidance() -> None:
    given, labels = images(2), torch.tensor([0, 1])
    for guidance, count in [(1.0, 4), (3.0, 4)]:
        seen: list[int] = []
        result = edit(
            generator(classes=2, condition_dim=2, guidance=guidance),
            given,
            strength=0.5,
            indices=range(2),
            labels=labels,
            watch=lambda number, x, seen=seen: seen.append(number),  # type: ignore[misc]
        )
        assert seen == list(range(count))
        assert float(result[0].mean()) > float(result[1].mean()) + 0.1


def test_an_edit_has_some_strength() -> None:
    with pytest.raises(ValueError, match=r"strength=0\.0 must be above 0"):
        edit(generator(), images(2), strength=0.0, indices=range(2))


def write(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def of_size(width: int, height: int) -> Given:
    return Given(torch.zeros(1, *SHAPE), (Path("photo.jpg"),), ((width, height),))


def test_pictures_are_read_as_the_model_needs_them(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    path = write(tmp_path / "b.png", colour)
    np.testing.assert_array_equal(read_pictures(path, SHAPE).pixels[0].permute(1, 2, 0).numpy(), colour)
    grey = read_pictures(path, (1, 6, 5)).pixels
    assert grey.shape == (1, 1, 6, 5)
    np.testing.assert_allclose(grey[0, 0].numpy(), colour @ [0.299, 0.587, 0.114], atol=1)
    write(tmp_path / "a.png", colour[:, :, 0])
    alpha = np.full((6, 5, 1), 255, np.uint8)
    alpha[:2] = 0
    write(tmp_path / "c.png", np.dstack([colour, alpha]))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(colour).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "d.png", exif=turned)
    write(tmp_path / "e.tga", colour)  # of which the data room does not know the suffix
    write(tmp_path / ".hidden.png", colour)
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.warns(UserWarning, match="pictures that") as remarks:
        given = read_pictures(tmp_path, SHAPE)
    assert [file.name for file in given.files] == ["a.png", "b.png", "c.png", "d.png", "e.tga"]
    assert given.sizes == ((5, 6),) * 5
    several = given.pixels
    assert several.shape == (5, *SHAPE)
    np.testing.assert_array_equal(several[0].numpy(), np.broadcast_to(colour[:, :, 0], SHAPE))
    assert (several[2, :, :2] == 255).all()
    np.testing.assert_array_equal(several[2, :, 2:].permute(1, 2, 0).numpy(), colour[2:])
    np.testing.assert_array_equal(several[3].permute(1, 2, 0).numpy(), colour)
    np.testing.assert_array_equal(several[4].permute(1, 2, 0).numpy(), colour)
    said = sorted(str(remark.message) for remark in remarks)
    assert said == [
        "pictures that are transparent in places and were put on white: c.png",
        "pictures that were turned as their EXIF orientation says: d.png",
    ]


@pytest.mark.parametrize("size", [(640, 480), (50, 333), (3, 2), (16, 16)])
def test_pictures_of_other_sizes_are_cut_and_resized_as_for_training(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = write(tmp_path / "photo.png", pixels)
    how = "were" if width == height else "had their middle cut out and"
    with pytest.warns(UserWarning, match=rf"pictures that {how} resized to 8 x 8 pixels: photo\.png"):
        given = read_pictures(path, (3, 8, 8))
    trained, _ = decode(path.read_bytes(), "photo.png", 8)
    np.testing.assert_array_equal(given.pixels[0].numpy(), trained)
    assert given.sizes == (size,)


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "I;16", "CMYK", "YCbCr"])
def test_pictures_of_every_mode(tmp_path: Path, mode: str) -> None:
    grey = np.where(np.arange(256).reshape(16, 16) < 100, 0, 255).astype(np.uint8)
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    image = wide if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "a.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a remark on 16 bits
        pixels = read_pictures(tmp_path / "a.tif", (3, 16, 16)).pixels[0]
    assert np.abs(pixels.numpy().astype(int) - grey).max() <= 2


def test_masks(tmp_path: Path) -> None:
    mask = read_mask("1,2,4,5", (6, 5), of_size(5, 6))
    expected = torch.zeros(6, 5, dtype=torch.bool)
    expected[2:5, 1:4] = True
    assert torch.equal(mask, expected[None, None])
    picture = np.zeros((6, 5), np.uint8)
    picture[2:5, 1:4] = 200
    path = str(write(tmp_path / "mask.png", picture))
    assert torch.equal(read_mask(path, (6, 5), of_size(5, 6)), expected[None, None])
    strokes = np.zeros((6, 5, 4), np.uint8)  # white on a transparent layer, as paint programs save it
    strokes[2:5, 1:4] = 255
    layer = str(write(tmp_path / "layer.png", strokes))
    assert torch.equal(read_mask(layer, (6, 5), of_size(5, 6)), expected[None, None])
    # A mask of what the model sees goes with a picture of any size.
    assert torch.equal(read_mask(path, (6, 5), of_size(500, 70)), expected[None, None])


def test_a_mask_is_in_pixels_of_the_picture_and_paints_all_that_it_touches(tmp_path: Path) -> None:
    """The middle 480 x 480 of a picture of 640 x 480 is seen as 8 x 8: a pixel of that is 60 x 60."""
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:3, 2] = True
    found = read_mask("205,119,210,123", (8, 8), of_size(640, 480))
    assert torch.equal(found, expected[None, None])
    picture = np.zeros((480, 640), np.uint8)
    picture[119:123, 205:210] = 255
    path = write(tmp_path / "mask.png", picture)
    assert torch.equal(read_mask(str(path), (8, 8), of_size(640, 480)), found)
    both = Given(torch.zeros(2, 3, 8, 8), (Path("a.jpg"), Path("b.jpg")), ((8, 300), (16, 300)))
    pair = read_mask("6,146,8,147", (8, 8), both)
    assert pair.nonzero().tolist() == [[0, 0, 0, 6], [0, 0, 0, 7], [1, 0, 2, 3]]
    with pytest.raises(
        UserError, match=r"--mask 0,0,50,480 marks nothing of the middle of photo\.jpg, .*: 80,0,560,480;"
    ):
        read_mask("0,0,50,480", (8, 8), of_size(640, 480))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("3,2,3,5", r"--mask 3,2,3,5 is not a box .* is 5 x 6 pixels; choose 0 <= x0 < x1 <= 5"),
        ("0,0,5,7", r"0 <= y0 < y1 <= 6"),
        ("1,2,3", r"--mask 1,2,3 is neither a file nor a box"),
        ("missing.png", r"neither a file"),
        ("dark.png", r"dark.png: is dark everywhere"),
        ("large.png", r"large.png: is 7 x 8 pixels and photo.jpg 5 x 6; make it as large as that, or 5 x 6"),
        ("text.png", r"text.png: is not an image that can be read"),
    ],
)
def test_bad_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "dark.png", np.full((6, 5), 100, np.uint8))
    write(tmp_path / "large.png", np.full((8, 7), 255, np.uint8))
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UserError, match=sentence):
        read_mask(text, (6, 5), of_size(5, 6))


def test_bad_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(
            UserError, match=r"wide\.png: has more than the 20 pixels that Pillow opens; make it smaller"
        ):
            read_pictures(write(tmp_path / "wide.png", np.zeros((5, 5), np.uint8)), SHAPE)
    ranges = tmp_path / "float.tif"
    Image.fromarray(np.zeros((6, 5), np.float32)).save(ranges)
    with pytest.raises(UserError, match=r"float\.tif: holds numbers without a range .*convert it to 8 bits"):
        read_pictures(ranges, SHAPE)
    with pytest.raises(UserError, match=r"missing\.png: does not exist"):
        read_pictures(tmp_path / "missing.png", SHAPE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        read_pictures(tmp_path / "empty", SHAPE)
    cut = tmp_path / "cut.png"
    write(cut, np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8))
    cut.write_bytes(cut.read_bytes()[:60])
    with pytest.raises(UserError, match=r"cut\.png: (is not an image|the image is damaged)"):
        read_pictures(cut, SHAPE)
