"""Images made from given ones: edits at a strength, and in-painting of a part."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.files import explained
from policy_accel.images.generate import ImageGenerator, Watch

PAINTED_FROM = 128  # lightest shades of a mask, 128 to 255, are painted anew


def edit(
    generator: ImageGenerator,
    images: Tensor,
    *,
    strength: float,
    indices: Sequence[int],
    labels: Tensor | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """Noise images and denoise them again (Meng et al. 2022, SDEdit).

    Args:
        generator: the model and how it samples.
        images: x0 [n, C, H, W] in the data's units.
        strength: share of the sampler's steps, in (0, 1]: little changes little, 1 leaves next to nothing (see
            `policy_accel.diffusion.Sampler`).
        indices: [n]; the noise of an edit is that of (seed, index).
        labels: class of each result [n] int64, or None.
        watch: see `ImageGenerator.draw`.

    Returns:
        float32 [n, C, H, W] on the CPU in the data's units.

    Raises:
        ValueError: a strength outside (0, 1].
    """
    _check_images(generator, images, indices)
    return torch.cat(list(generator.batches(indices, labels, image=images, strength=strength, watch=watch)))


def inpaint(
    generator: ImageGenerator,
    images: Tensor,
    mask: Tensor,
    *,
    indices: Sequence[int],
    labels: Tensor | None = None,
    strength: float = 1.0,
    resamplings: int = 1,
    watch: Watch | None = None,
) -> Tensor:
    """Paint the part `mask` of images anew; the rest of the result is exactly as given.

    Before every evaluation the given part is put back at the noise level of the state (Song et al. 2021b, appendix
    I.2), so the model need not have been trained for it. On its own that is not a draw from the conditional
    distribution: for two entries of correlation 0.9, of which one is given as 1.5, the other comes out with a mean of
    0.6 (by ddim) or 0.9 (by ddpm) instead of 1.35. Taking each step 5 times makes it 1.27, with the right deviation.

    Args:
        generator, indices, labels, watch: as for `edit`.
        images: x0 [n, C, H, W] in the data's units.
        mask: bool [H, W] or [n, H, W], True where to paint.
        strength: below 1 the painted part starts from the image too, as in `edit`.
        resamplings: how often each step is taken, from noise added anew (Lugmayr et al. 2022); more than once takes
            the sampler ddpm, and as many times the evaluations.

    Returns:
        float32 [n, C, H, W] on the CPU in the data's units.

    Raises:
        ValueError: a strength outside (0, 1], or resamplings that the sampler cannot do.
    """
    _check_images(generator, images, indices)
    if mask.shape not in {images.shape[-2:], (len(images), *images.shape[-2:])}:
        raise ValueError(f"a mask of shape {tuple(mask.shape)} for images of shape {tuple(images.shape)}")
    keep = ~mask.view(-1, 1, *images.shape[-2:])
    parts = generator.batches(
        indices, labels, image=images, strength=strength, keep=keep, resamplings=resamplings, watch=watch
    )
    return torch.cat(list(parts))


def _check_images(generator: ImageGenerator, images: Tensor, indices: Sequence[int]) -> None:
    if images.shape != (len(indices), *generator.shape):
        raise ValueError(f"images of shape {tuple(images.shape)} for {len(indices)} indices of {generator.shape}")


def read_pictures(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """The picture `path`, or the pictures of a folder in order of their names, uint8 [n, C, H, W] of `shape` (C, H, W).

    Grey is made colour and colour grey as the model needs; transparency is dropped.

    Raises:
        UserError: no picture there, one that cannot be read, or one of another size.
    """
    from PIL import Image

    if path.is_dir():
        known = Image.registered_extensions()
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in known)
        if not files:
            raise UserError(f"{path}: holds no pictures; give a picture, or a folder of some.")
    else:
        files = [path]
    mode = "L" if shape[0] == 1 else "RGB"
    pixels = [_read_picture(file, mode, shape[1:], "the model's images") for file in files]
    return torch.from_numpy(np.stack(pixels).reshape(len(pixels), *shape[1:], shape[0])).movedim(-1, 1).contiguous()


def read_mask(text: str, size: tuple[int, int]) -> Tensor:
    """What to paint anew, bool [H, W], from a box "x0,y0,x1,y1" or a picture of that size whose light part it is.

    A box is in pixels from the upper left corner; x1 and y1 are the first ones beyond it.

    Raises:
        UserError: neither of the two, another size, or nothing to paint.
    """
    height, width = size
    mask = torch.zeros(size, dtype=torch.bool)
    corners = text.split(",")
    if len(corners) == 4 and all(corner.strip().isdigit() for corner in corners):
        x0, y0, x1, y1 = (int(corner) for corner in corners)
        if not (x0 < x1 <= width and y0 < y1 <= height):
            raise UserError(
                f"--mask {text} is not a box x0,y0,x1,y1 inside an image of {width} x {height}; choose "
                f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}."
            )
        mask[y0:y1, x0:x1] = True
        return mask
    path = Path(text)
    if not path.is_file():
        raise UserError(
            f"--mask {text} is neither a file nor a box x0,y0,x1,y1; give a PNG that is white where to paint."
        )
    mask = torch.from_numpy(_read_picture(path, "L", size, "the image") >= PAINTED_FROM)
    if not bool(mask.any()):
        raise UserError(f"{path}: is dark everywhere, so nothing would be painted; make it white where to paint.")
    return mask


def _read_picture(path: Path, mode: str, size: tuple[int, int], what: str) -> np.ndarray:
    """Pixels uint8 [H, W] or [H, W, 3] of a file."""
    from PIL import Image

    with explained(path, "read"):
        content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as picture:
            found = (picture.height, picture.width)
            pixels = np.asarray(picture.convert(mode)) if found == tuple(size) else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as a picture; give a PNG or another common format.") from error
    if pixels is None:
        raise UserError(
            f"{path}: is {found[1]} x {found[0]} pixels and {what} {size[1]} x {size[0]}; resize it to that."
        )
    return pixels
