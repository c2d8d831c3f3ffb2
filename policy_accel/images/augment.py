"""Augmentation on the device: mirrored images, and EDM's geometric pipeline that tells the model what was done.

Nothing waits for a GPU, and every shape is fixed there: all images are resampled, as EDM does, and those that do not
move are put back. On the CPU, where a count is known at once, only those that move are resampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

PARAMETERS = 9
"""Numbers that describe what was done to an image; all zero for an image as it was."""

SCALE = 0.2
"""Standard deviation of log2 of the scale, and of the stretch."""
SHIFT = 0.125
"""Standard deviation of the translation, as a share of the image's width or height."""

FINER = (1.115087052456994, 0.5912717631142470, -0.05754352622849957, -0.09127176311424948)
COARSER = (0.6029490182363579, 0.2668641184428723, -0.07822326652898785, -0.01686411844287495, 0.02674875741080976)
"""Halves of the symmetric 7-tap and 9-tap low-pass filters of the biorthogonal wavelet with 4 vanishing moments on both
sides (Cohen, Daubechies & Feauveau 1992; JPEG 2000's), for twice the resolution and back."""


def half(count: int, generator: torch.Generator) -> Tensor:
    """Which of `count` images are mirrored, each with probability 1/2: bool [B]."""
    return torch.rand(count, generator=generator, device=generator.device) < 0.5


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror images [B, C, H, W] left to right where `mirrored` [B] is true."""
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


@dataclass(frozen=True)
class Transforms:
    """What is done to each of B images, in this order; float32 [B], 0 for nothing.

    Directions are as one sees them: angles counter-clockwise, shifts to the right and down.

    mirrored, upended: 1 where left and right, top and bottom are exchanged.
    scale: the image grows by 2 ** (0.2 scale).
    angle: of rotation, in (-pi, pi).
    stretch, axis: the image grows by 2 ** (0.2 stretch) along the direction `axis`, and shrinks as much across it.
    right, down: translation in units of an eighth of the width and height.
    moved: bool, whether anything but the exchanges is done.
    """

    mirrored: Tensor
    upended: Tensor
    scale: Tensor
    angle: Tensor
    stretch: Tensor
    axis: Tensor
    right: Tensor
    down: Tensor
    moved: Tensor

    def of(self, rows: Tensor) -> Transforms:
        """Those of the images `rows` [b] int64."""
        return Transforms(**{name: values[rows] for name, values in vars(self).items()})

    def parameters(self) -> Tensor:
        """What the model is told, [B, 9] float32 (Karras et al. 2022, table 6).

        As published, (stretch, axis) is told as a vector, the same for (-stretch, axis + pi).
        """
        return torch.stack(
            [
                self.mirrored,
                self.upended,
                self.scale,
                self.angle.cos() - 1,
                self.angle.sin(),
                self.stretch * self.axis.cos(),
                self.stretch * self.axis.sin(),
                self.right,
                self.down,
            ],
            dim=1,
        )

    def inverse(self, height: int, width: int) -> Tensor:
        """Where each point of the result comes from: [B, 2, 3], (x, y, 1) -> (x, y) in pixels from the centre, x to the
        right and y down.
        """
        grow, stretch = torch.exp2(-SCALE * self.scale), torch.exp2(-SCALE * self.stretch)
        turned_back = _rotation(-self.angle) * grow[:, None, None]
        along = torch.diag_embed(torch.stack([stretch, 1 / stretch], dim=1))
        linear = turned_back @ _rotation(self.axis) @ along @ _rotation(-self.axis)
        shift = SHIFT * torch.stack([width * self.right, height * self.down], dim=1)[:, :, None]
        return torch.cat([linear, -linear @ shift], dim=2)


def _rotation(angle: Tensor) -> Tensor:
    """Counter-clockwise rotations [B, 2, 2] where y points down."""
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cosine, sine], dim=1), torch.stack([-sine, cosine], dim=1)], dim=1)


@dataclass(frozen=True)
class EdmAugmentation:
    """The non-leaking augmentation of Karras et al. 2022 (appendix F.2, table 6): geometric transformations that the
    model is told, so that it can be asked for images without any.

    Left and right are exchanged in half of the images; each other transformation is done with `probability`: exchange
    of top and bottom (in half of those), scaling, rotation, stretch (along a random axis in half of those, else from
    left to right, as in the released code), translation.

    Beyond its border an image goes on as its reflection, however far (no margin to bound: coordinates are reflected and
    not pixels padded). Results are clamped to [-1, 1], which the filters can overshoot at sharp edges.

    Args:
        probability: in [0, 1]; 0.12 for CIFAR-10 and 0.15 for larger images in the paper. 0 leaves every image as it
            is, without the exchange of left and right.
    """

    probability: float = 0.12

    def draw(self, count: int, generator: torch.Generator) -> Transforms:
        """Random transformations of `count` images, on the generator's device."""
        uniform = torch.rand(9, count, generator=generator, device=generator.device)
        normal = torch.randn(4, count, generator=generator, device=generator.device)
        done = (uniform[:5] < self.probability).float()
        circle = (2 * uniform[5:7] - 1) * math.pi
        bits = (uniform[7:9] < 0.5).float()
        return Transforms(
            mirrored=bits[0] if self.probability else torch.zeros_like(bits[0]),
            upended=bits[1] * done[0],
            scale=normal[0] * done[1],
            angle=circle[0] * done[2],
            stretch=normal[1] * done[3],
            axis=torch.where(uniform[6] < 0.5, 0.0, 2.0 * circle[1] - math.pi) * done[3],
            right=normal[2] * done[4],
            down=normal[3] * done[4],
            moved=done[1:].any(dim=0),
        )


def augment(images: Tensor, transforms: Transforms) -> tuple[Tensor, Tensor]:
    """Do `transforms` to `images` [B, C, H, W] float32 in [-1, 1].

    Returns:
        Images [B, C, H, W] float32 in [-1, 1], bit for bit those given where nothing was done, and parameters [B, 9]
        float32.
    """
    tables = resampling_tables(images.shape[2], images.shape[3], images.device)
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return transform(images, transforms, tables), transforms.parameters()
    # Only those that move: how many they are is known here without a wait, and shapes need not stay as they are.
    exchanged, moved = exchange(images, transforms), transforms.moved.nonzero().squeeze(1)
    exchanged[moved] = resample(exchanged[moved], transforms.of(moved), tables)
    return exchanged, transforms.parameters()


@dataclass(frozen=True)
class ResamplingTables:
    """Linear maps along the two sides (rows, columns) of an image, float32.

    up: [2 L - 1, L], from pixels to samples twice as dense: sample n lies at pixel n / 2.
    down: [L, 2 L + 7], from samples that go on for 2 pixels beyond both ends back to pixels.
    places: [2 L + 7], where the samples that `down` takes lie, in pixels from the centre.
    """

    up: tuple[Tensor, Tensor]
    down: tuple[Tensor, Tensor]
    places: tuple[Tensor, Tensor]


@lru_cache(maxsize=16)
def resampling_tables(height: int, width: int, device: torch.device) -> ResamplingTables:
    """The tables for images of height x width (each at least 2), on `device`.

    The filters are symmetric around a pixel, so that an image that is reflected at its outermost pixels stays so at
    twice the resolution; and biorthogonal, so that down(up(image)) is the image.
    """
    from scipy.ndimage import correlate1d  # which most runs do without

    finer, coarser = (np.array([*half[:0:-1], *half]) for half in (FINER, COARSER))
    sides = []
    for size in (height, width):
        spread = np.zeros((2 * size - 1, size))
        spread[::2] = np.eye(size)
        up = correlate1d(spread, finer, axis=0, mode="mirror")
        down = np.zeros((size, 2 * size + 7))
        for row in range(size):
            down[row, 2 * row : 2 * row + 9] = coarser
        places = (np.arange(2 * size + 7) - 4) / 2 - (size - 1) / 2
        sides.append([torch.from_numpy(table).float().to(device) for table in (up, down, places)])
    rows, columns = sides
    return ResamplingTables((rows[0], columns[0]), (rows[1], columns[1]), (rows[2], columns[2]))


def transform(images: Tensor, transforms: Transforms, tables: ResamplingTables) -> Tensor:
    """Apply `transforms` to images [B, C, H, W] float32 in [-1, 1], resampling all of them, in shapes that stay."""
    images = exchange(images, transforms)
    return torch.where(transforms.moved[:, None, None, None], resample(images, transforms, tables), images)


def exchange(images: Tensor, transforms: Transforms) -> Tensor:
    """Exchange the sides of images [B, C, H, W], exactly: a new tensor."""
    images = mirror(images, transforms.mirrored > 0)
    return torch.where(transforms.upended[:, None, None, None] > 0, images.flip(2), images)


def resample(images: Tensor, transforms: Transforms, tables: ResamplingTables) -> Tensor:
    """Do the rest of `transforms`, one affine map, to images [B, C, H, W] float32 in [-1, 1].

    Up to twice the resolution with a wavelet filter, bilinear samples there, and down again, as the paper does (with a
    filter whose phase is linear, unlike its sym6).
    """
    height, width = images.shape[2:]
    inverse = transforms.inverse(height, width)[:, :, :, None, None]
    y, x = tables.places[0][:, None], tables.places[1][None, :]
    source = inverse[:, :, 0] * x + inverse[:, :, 1] * y + inverse[:, :, 2]
    finer = tables.up[0] @ images @ tables.up[1].T
    at = torch.stack([_sample_place(source[:, 0], width), _sample_place(source[:, 1], height)], dim=3)
    sampled = functional.grid_sample(finer, at, mode="bilinear", padding_mode="border", align_corners=True)
    return (tables.down[0] @ sampled @ tables.down[1].T).clamp(-1, 1)


def _sample_place(from_centre: Tensor, size: int) -> Tensor:
    """Pixels from the centre, reflected at the outermost pixels, as places in [-1, 1] between those."""
    last = size - 1
    pixel = last - (torch.remainder(from_centre + last / 2, 2 * last) - last).abs()
    return 2 / last * pixel - 1
