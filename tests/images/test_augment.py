from __future__ import annotations

import math
import time
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from support.simulated_cuda import CUDA, SimulatedCuda
from support.tensors import generator
from torch import Tensor

from policy_accel.images.augment import (
    COARSER,
    FINER,
    PARAMETERS,
    EdmAugmentation,
    Transforms,
    augment,
    half,
    mirror,
    resample,
    resampling_tables,
    transform,
)

CPU = torch.device("cpu")


def one(**done: float) -> Transforms:
    """A single transformation of a single image."""
    nothing = {field.name: torch.zeros(1) for field in fields(Transforms)}
    moved = torch.tensor([bool(set(done) - {"mirrored", "upended"})])
    return Transforms(**{**nothing, **{name: torch.tensor([value]) for name, value in done.items()}, "moved": moved})


def apply(images: Tensor, transforms: Transforms) -> Tensor:
    return transform(images, transforms, resampling_tables(images.shape[2], images.shape[3], CPU))


def photo(height: int = 32, width: int = 32) -> tuple[Tensor, np.ndarray]:
    """A smooth picture without symmetry [1, 1, H, W], and the same in float64 [H, W]."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    values = 0.4 * np.sin(0.31 * x + 0.2 * y) + 0.3 * np.cos(0.27 * y - 0.11 * x + 1) + 0.01 * (x - y)
    return torch.from_numpy(values).float()[None, None], values


def blob(x: float, y: float, size: int = 32, width: float = 2.0) -> Tensor:
    """A bright spot on black, `x` to the right and `y` down from the centre: [1, 1, size, size]."""
    axis = torch.arange(size) - (size - 1) / 2
    return 2 * torch.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * width**2))[None, None] - 1


def where(image: Tensor, near: tuple[float, float] | None = None) -> tuple[float, float]:
    """Centre of the brightness (of what lies within 9 pixels of `near`), as (to the right, down) from the centre."""
    weight = (image[0, 0] + 1).double()
    axis = torch.arange(weight.shape[0], dtype=torch.float64) - (weight.shape[0] - 1) / 2
    if near is not None:
        weight = weight * ((axis[None] - near[0]) ** 2 + (axis[:, None] - near[1]) ** 2 < 81)
    return float((weight.sum(0) @ axis) / weight.sum()), float((weight.sum(1) @ axis) / weight.sum())


def test_horizontal_flip_is_exact_and_in_half_of_the_images() -> None:
    images = torch.randn(2000, 3, 4, 5, generator=generator(1))
    flipped = mirror(images, half(len(images), generator()))
    turned = (flipped == images.flip(3)).flatten(1).all(1)
    assert torch.equal(flipped[~turned], images[~turned])
    assert 0.45 < float(turned.float().mean()) < 0.55
    assert torch.equal(flipped, mirror(images, half(len(images), generator())))
    assert not torch.equal(flipped, mirror(images, half(len(images), generator(1))))


def test_filters_are_biorthogonal_with_four_vanishing_moments() -> None:
    finer, coarser = (np.array([*half[:0:-1], *half]) for half in (FINER, COARSER))
    padded = np.pad(finer, 9)
    for shift in range(-4, 5):
        product = coarser @ padded[8 + 2 * shift : 17 + 2 * shift]
        assert product == pytest.approx(float(shift == 0), abs=1e-12)
    for taps in (finer, coarser):
        for power in range(4):
            assert (taps * (-1.0) ** np.arange(len(taps))) @ np.arange(len(taps)) ** power == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", [(32, 32), (28, 28), (24, 40)])
def test_no_movement_gives_the_image_back_through_the_filters(shape: tuple[int, int]) -> None:
    images = torch.rand(3, 3, *shape, generator=generator()) * 2 - 1
    nothing = replace(one(), **{field.name: torch.zeros(3) for field in fields(Transforms)})
    through = apply(images, replace(nothing, moved=torch.ones(3, dtype=torch.bool)))
    torch.testing.assert_close(through, images, atol=1e-5, rtol=0)
    assert torch.equal(apply(images, replace(nothing, moved=torch.zeros(3, dtype=torch.bool))), images)


@pytest.mark.parametrize("angle", [0.5, -2.0, math.pi / 2])
def test_rotation_equals_a_float64_reference(angle: float) -> None:
    """SciPy's quintic spline interpolation of the same rotation, reflected at the outermost pixels as here."""
    image, exact = photo()
    cosine, sine = math.cos(angle), math.sin(angle)
    # Counter-clockwise as one sees it, in (row, column): the result at q comes from the rotation of q clockwise.
    back = np.array([[cosine, sine], [-sine, cosine]])
    centre = np.array([15.5, 15.5])
    expected = affine_transform(exact, back, offset=centre - back @ centre, order=5, mode="mirror")
    ours = apply(image, one(angle=angle))[0, 0].double().numpy()
    assert np.abs(ours - expected).mean() < 4e-3
    assert np.abs(ours - expected)[8:-8, 8:-8].max() < 1e-2


def test_a_ramp_stays_exact_under_any_map() -> None:
    """Polynomials up to degree one pass the filters and the bilinear samples without error."""
    axis = torch.arange(32) - 15.5
    image = (0.02 * axis[None] - 0.01 * axis[:, None])[None, None]
    done = one(scale=0.7, angle=0.8, stretch=-0.6, axis=0.4, right=0.2, down=-0.3)
    inverse = done.inverse(32, 32)[0].double()
    x, y = torch.meshgrid(axis.double(), axis.double(), indexing="xy")
    source = inverse @ torch.stack([x.flatten(), y.flatten(), torch.ones(1024)])
    expected = (0.02 * source[0] - 0.01 * source[1]).view(32, 32)
    inside = (source.abs() < 11).all(dim=0).view(32, 32)
    assert int(inside.sum()) > 300
    torch.testing.assert_close(apply(image, done)[0, 0].double()[inside], expected[inside], atol=1e-5, rtol=0)


def test_each_transformation_does_what_its_name_says() -> None:
    """A spot to the right of the centre and above it, 6 and 4 pixels."""
    image, tolerance = blob(6, -4), 0.05
    assert where(apply(image, one(mirrored=1.0))) == pytest.approx((-6, -4), abs=tolerance)
    assert where(apply(image, one(upended=1.0))) == pytest.approx((6, 4), abs=tolerance)
    assert where(apply(image, one(angle=math.pi / 2))) == pytest.approx((-4, -6), abs=tolerance)
    assert where(apply(image, one(right=1.0))) == pytest.approx((10, -4), abs=tolerance)
    assert where(apply(image, one(down=0.5))) == pytest.approx((6, -2), abs=tolerance)
    assert where(apply(image, one(scale=1.0))) == pytest.approx((6 * 2**0.2, -4 * 2**0.2), abs=tolerance)
    assert where(apply(image, one(stretch=1.0))) == pytest.approx((6 * 2**0.2, -4 / 2**0.2), abs=tolerance)
    # Along the direction up and to the right, the spot at (6, -4) = 5 (1, -1) + (1, 1).
    stretched = (5 * 2**0.2 + 2**-0.2, -5 * 2**0.2 + 2**-0.2)
    assert where(apply(image, one(stretch=1.0, axis=math.pi / 4))) == pytest.approx(stretched, abs=tolerance)
    assert torch.equal(apply(image, one(mirrored=1.0)), image.flip(3))
    assert torch.equal(apply(image, one(upended=1.0)), image.flip(2))


def test_shifts_are_shares_of_width_and_height() -> None:
    image = torch.zeros(1, 1, 16, 48) - 1
    image[0, 0, 6:8, 20:22] = 1
    moved = apply(image, one(right=1.0, down=1.0))
    expected = torch.roll(image, (2, 6), dims=(2, 3))
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_transformations_come_in_the_published_order() -> None:
    """Scale and rotation, then stretch, then translation."""
    image = blob(5, 0)
    done = one(angle=math.pi / 2, stretch=1.0, axis=0.0, right=1.0)
    assert where(apply(image, done)) == pytest.approx((4, -5 / 2**0.2), abs=0.05)


def test_the_outside_is_the_reflection_however_far() -> None:
    ramp = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32).contiguous()
    moved = apply(ramp, one(right=40.0 / 4))[0, 0, 16]  # by 40 pixels
    places = np.arange(32) - 40
    expected = np.interp(31 - np.abs(np.mod(places, 62) - 31), np.arange(32), np.linspace(-1, 1, 32))
    assert np.abs(moved.numpy() - expected).max() < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_the_parameters_say_what_was_done(seed: int) -> None:
    """A spot is found again at the place that a float64 reading of the parameters gives.

    The told stretch leaves its sign open, so it is left out.
    """
    augmentation = EdmAugmentation(1.0)
    done = augmentation.draw(64, generator(seed))
    done = replace(done, stretch=torch.zeros(64), axis=torch.zeros(64), right=0.3 * done.right, down=0.3 * done.down)
    image = blob(5, -3, size=48).expand(64, 1, 48, 48).contiguous()
    moved = apply(image, done)
    for row in range(0, 64, 5):
        mirrored, upended, scale, cosine, sine, _, _, right, down = done.parameters()[row].double().tolist()
        x, y = 5 * (1 - 2 * mirrored), -3 * (1 - 2 * upended)
        x, y = 2 ** (0.2 * scale) * x, 2 ** (0.2 * scale) * y
        x, y = (1 + cosine) * x + sine * y, -sine * x + (1 + cosine) * y
        expected = (x + 6 * right, y + 6 * down)
        assert where(moved[row : row + 1], expected) == pytest.approx(expected, abs=0.05)


def test_distribution_of_every_parameter() -> None:
    probability, count = 0.3, 200_000
    done = EdmAugmentation(probability).draw(count, generator())
    told = done.parameters().double()
    assert told.shape == (count, PARAMETERS)
    p = probability
    means = [0.5, p / 2, 0, -p, 0, 0, 0, 0, 0]
    # E[(cos - 1)^2] = 3/2 and E[sin^2] = 1/2 over the circle; a stretch has variance 1, of which half is along the
    # first axis alone, and half spread over the circle.
    squares = [0.5, p / 2, p, 1.5 * p, 0.5 * p, 0.75 * p, 0.25 * p, p, p]
    assert told.mean(0).tolist() == pytest.approx(means, abs=0.008)
    assert told.square().mean(0).tolist() == pytest.approx(squares, abs=0.015)
    for index in (2, 4, 5, 7):
        assert float((told[:, index] != 0).double().mean()) == pytest.approx(p, abs=0.005)
    assert float((told[:, 6] != 0).double().mean()) == pytest.approx(p / 2, abs=0.005)
    axis = done.axis[done.axis != 0].double()
    assert [float(axis.mean()), float(axis.square().mean())] == pytest.approx([0.0, math.pi**2 / 3], abs=0.05)
    assert torch.equal(told[:, 7] != 0, told[:, 8] != 0)
    assert float(done.moved.double().mean()) == pytest.approx(1 - (1 - p) ** 4, abs=0.005)
    assert torch.equal(done.moved, (told[:, 2:] != 0).any(dim=1))
    independent = (told[:, [0, 1, 2, 4, 5, 7]] != 0).double().T.corrcoef() - torch.eye(6)
    assert float(independent.abs().max()) < 0.01


def test_images_to_which_nothing_was_done_are_untouched_and_told_as_zeros() -> None:
    images = torch.rand(512, 3, 16, 16, generator=generator(5)) * 2 - 1
    moved, told = augment(images, EdmAugmentation(0.12).draw(len(images), generator()))
    assert moved.dtype == told.dtype == torch.float32
    untouched = (told == 0).all(dim=1)
    assert 0.2 < float(untouched.float().mean()) < 0.4  # half of 0.88 ** 5 or so
    assert torch.equal(moved[untouched], images[untouched])
    only_mirrored = (told[:, 0] == 1) & (told[:, 1:] == 0).all(dim=1)
    assert torch.equal(moved[only_mirrored], images[only_mirrored].flip(3))
    assert not bool((moved[~untouched] == images[~untouched]).flatten(1).all(1).any())
    assert float(moved.abs().max()) <= 1


def test_only_images_that_move_are_resampled_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(64, 3, 16, 16, generator=generator(5)) * 2 - 1
    done = EdmAugmentation(0.12).draw(len(images), generator())
    expected, rows = apply(images, done), []

    def counted(images: Tensor, *others: Any) -> Tensor:
        rows.append(len(images))
        return resample(images, *others)

    monkeypatch.setattr("policy_accel.images.augment.resample", counted)
    torch.testing.assert_close(augment(images, done)[0], expected, atol=1e-5, rtol=0)
    assert rows == [int(done.moved.sum())]
    assert 0 < rows[0] < 40
    with SimulatedCuda() as cuda:
        there = [tensor.to(CUDA) for tensor in (images, *vars(done).values())]
        augment(there[0], Transforms(*there[1:]))  # tables that are made at a first call
        with cuda.phase("augment"):
            found, _ = augment(there[0], Transforms(*there[1:]))
        assert not cuda.waits["augment"]
        assert rows[1:] == [64, 64]
        torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=0)


def test_probability_zero_is_the_identity() -> None:
    images = torch.rand(64, 1, 12, 12, generator=generator()) * 2 - 1
    moved, told = augment(images, EdmAugmentation(0.0).draw(len(images), generator()))
    assert torch.equal(moved, images)
    assert not bool(told.any())


def test_the_generator_decides() -> None:
    images, augmentation = photo()[0].expand(16, 3, 32, 32).contiguous(), EdmAugmentation(1.0)
    first, second = (augment(images, augmentation.draw(len(images), generator(3))) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    torch.rand(5)
    assert not torch.equal(first[1], augment(images, augmentation.draw(len(images), generator(4)))[1])


def test_transform_compiles_whole_and_reads_nothing_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    images, tables = photo()[0].expand(8, 1, 32, 32).contiguous(), resampling_tables(32, 32, CPU)
    done = EdmAugmentation(0.5).draw(8, generator())
    expected = transform(images, done, tables)
    torch._dynamo.reset()
    compiled = torch.compile(transform, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, done, tables), expected, atol=1e-5, rtol=0)

    def refuse(*arguments: object) -> None:
        raise AssertionError("a value was read on the host")

    augmentation = EdmAugmentation(0.5)
    for name in ("item", "__float__", "__int__", "__bool__", "cpu", "numpy", "tolist"):
        monkeypatch.setattr(Tensor, name, refuse)
    augment(images, augmentation.draw(len(images), generator()))


def test_augmenting_is_cheap() -> None:
    """Processor time of less than a millisecond an image of 32 x 32; a training step of a small net takes many."""
    images, augmentation = torch.zeros(128, 3, 32, 32), EdmAugmentation()
    augment(images, augmentation.draw(len(images), generator()))
    began = time.process_time()
    for _ in range(3):
        augment(images, augmentation.draw(len(images), generator()))
    assert (time.process_time() - began) / 3 / 128 < 1e-3
