import subprocess
import sys

import numpy as np
import pytest

from policy_accel.data.images import read_images
from policy_accel.errors import UserError
from policy_accel.images.shapes import CONTRAST, GRADIENT, MARGIN, RADIUS, SHAPES, TILT, class_densities, make_shapes


def areas():
    def segment(radius, distance):
        return radius**2 * np.arccos(distance / radius) - distance * np.sqrt(radius**2 - distance**2)

    apart, outer, inner = 0.55, 0.95, 0.8  # the crescent's two circles
    chord = (apart**2 + outer**2 - inner**2) / (2 * apart)
    lens = segment(outer, chord) + segment(inner, apart - chord)
    return {
        "circle": np.pi * 0.9**2,
        "square": 1.4**2,
        "triangle": 3 * np.sqrt(3) / 4,
        "ring": np.pi * (0.94**2 - 0.5**2),
        "cross": 2 * 1.9 * 0.56 - 0.56**2,
        "star": 5 * 0.42 * np.sin(np.pi / 5),
        "crescent": np.pi * outer**2 - lens,
        "bar": 1.9 * 0.5,
    }


def test_densities_are_probabilities_and_unequal():
    densities = class_densities()
    assert densities.sum() == pytest.approx(1)
    assert len(set(densities)) == len(SHAPES) == 8


def test_shares_agree_with_the_densities():
    count = 20_000
    found = make_shapes(count, size=16, seed=3)
    counts = np.bincount(found.labels, minlength=8)
    expected = count * class_densities()
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 24.3  # the 99.9 % quantile at 7 degrees of freedom
    assert found.classes == tuple(SHAPES)
    assert found.images.shape == (count, 3, 16, 16)


def test_reproducible_and_a_prefix_of_more():
    more, fewer = make_shapes(1500, seed=5), make_shapes(1100, seed=5)
    np.testing.assert_array_equal(more.images[:1100], fewer.images)
    np.testing.assert_array_equal(more.labels[:1100], fewer.labels)
    for other in (make_shapes(50, seed=6), make_shapes(50, seed=5, stream=1)):
        assert (other.images != more.images[:50]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("label", range(8))
def test_area_of_the_shape(label):
    """Coverage, measured on a large picture against the border's colour, has the area of elementary geometry."""
    name, size = list(SHAPES)[label], 96
    picture = make_shapes(6, size=size, seed=1, labels=np.full(6, label)).images.astype(float)
    along_x = np.linspace(0, 1, size)[None, None, None, :]
    background = picture[:, :, :1, :1] * 0 + _background(picture, along_x)
    difference = np.abs(picture - background).sum(axis=1)
    covered = (difference > 0.5 * np.percentile(difference, 99, axis=(1, 2), keepdims=True)).sum(axis=(1, 2))
    uniform = np.random.Generator(np.random.PCG64([1, 0])).random((6, 12))
    radius = size * (RADIUS[0] + (RADIUS[1] - RADIUS[0]) * uniform[:, 1])
    np.testing.assert_allclose(covered / radius**2, areas()[name], rtol=0.06)


def _background(picture, along):
    """Bilinear between the corners, which no shape reaches."""
    left = picture[:, :, :1, :1] + (picture[:, :, -1:, :1] - picture[:, :, :1, :1]) * along.swapaxes(2, 3)
    right = picture[:, :, :1, -1:] + (picture[:, :, -1:, -1:] - picture[:, :, :1, -1:]) * along.swapaxes(2, 3)
    return left + (right - left) * along


def test_border_is_background_and_all_else_varies():
    assert MARGIN >= 1
    images = make_shapes(2000, seed=2).images.astype(float)
    along = np.linspace(0, 1, 24)[None, None, None, :]
    difference = np.abs(images - _background(images, along)).max(axis=1)
    for edge in (difference[:, 0], difference[:, -1], difference[:, :, 0], difference[:, :, -1]):
        assert edge.max() <= 2  # rounding
    assert (difference > 20).any(axis=0)[4:-4, 4:-4].all()  # shapes are everywhere but in the corners
    assert images[:, :, 0, 0].std(axis=0).min() > 12


def test_shapes_stand_out_by_brightness():
    images = make_shapes(500, seed=4).images.astype(float)
    difference = images - _background(images, np.linspace(0, 1, 24)[None, None, None, :])
    brightness = np.abs(np.einsum("nchw,c->nhw", difference, [0.299, 0.587, 0.114])).max(axis=(1, 2))
    assert brightness.min() > 255 * (CONTRAST - GRADIENT) - 2


def test_shapes_are_tilted_evenly_to_both_sides():
    """The long axis of bars, from their second moments, is spread evenly over 15 degrees on both sides of upright."""
    images = make_shapes(400, seed=4, labels=np.full(400, list(SHAPES).index("bar"))).images.astype(float)
    weight = np.abs(images - _background(images, np.linspace(0, 1, 24)[None, None, None, :])).sum(axis=1)
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    y, x = np.mgrid[:24, :24]
    x = x - (weight * x).sum(axis=(1, 2))[:, None, None]
    y = y - (weight * y).sum(axis=(1, 2))[:, None, None]
    second = [(weight * product).sum(axis=(1, 2)) for product in (x * x, x * y, y * y)]
    upright = np.arctan2(2 * second[1], second[2] - second[0]) / 2
    counts, _ = np.histogram(np.rad2deg(upright), bins=8, range=(-TILT, TILT))
    assert abs(counts.sum() - 400) <= 4  # the moments of a few pixels are not exact
    assert ((counts - 50) ** 2 / 50).sum() < 24.3  # the 99.9 % quantile at 7 degrees of freedom


def test_shipped_file_is_what_the_command_draws():
    for split, count, stream in (("train", 8192, 0), ("test", 2048, 1)):
        shipped = read_images("shipped:shapes.npz", split)
        drawn = make_shapes(count, seed=0, stream=stream)
        np.testing.assert_array_equal(shipped.labels, drawn.labels)
        difference = np.abs(shipped.images.astype(int) - drawn.images)
        assert difference.max() <= 1  # another machine may round a pixel the other way
        assert (difference > 0).mean() < 1e-5
        assert shipped.classes == drawn.classes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0, "seed": 0}, "images of the shapes is 0; it must be at least 1"),
        ({"count": 1, "seed": 0, "size": 15}, "size of the shapes is 15; it must be at least 16"),
        ({"count": 1, "seed": -1}, "seed of the shapes is -1"),
    ],
)
def test_impossible_sets(options, words):
    with pytest.raises(UserError, match=words):
        make_shapes(**options)


def test_no_torch_needed():
    code = "import sys, policy_accel.data.images; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
