"""Images as files: grids, PNG, NPZ, and films of a grid that forms from noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.evaluation.video import VideoWriter
from policy_accel.files import explained, new_path, replacing
from policy_accel.images.generation.generate import ImageGenerator

BACKGROUND = 255
LATENT_RANGE = (0.01, 0.99)
SECONDS_AT_END = 1.5
MOST_FRAMES = 120
SHOWN_PIXELS = 64


def to_uint8(x0: Tensor) -> Tensor:
    """Pixels uint8 of x0 in [-1, 1]: round((x0 + 1) 127.5), values beyond the range clamped.

    Raises:
        UserError: x0 is not finite, as from a model whose training diverged.
    """
    pixels = (x0.float() + 1.0).mul(127.5)
    if not bool(torch.isfinite(pixels).all()):
        raise UserError("the model's images are not finite: its training diverged; choose an earlier checkpoint.")
    return pixels.round().clamp(0.0, 255.0).to(torch.uint8)


def displayable(images: Tensor) -> Tensor:
    """What a person can look at, uint8 [n, 1 or 3, H, W].

    uint8 images stay as they are. Of float latents [n, C, H, W] the first three channels (the first of one or two) are
    stretched from their 1 % to their 99 % quantile.
    """
    if images.dtype == torch.uint8:
        return images
    shown = images[:, :3] if images.shape[1] >= 3 else images[:, :1]
    values = shown.float().flatten().cpu().numpy()
    low, high = np.quantile(values, LATENT_RANGE) if values.size else (0.0, 1.0)
    return to_uint8(2.0 * (shown.float() - float(low)) / max(float(high - low), 1e-12) - 1.0)


def grid(images: Tensor, columns: int | None = None, pad: int = 2, scale: int = 1) -> np.ndarray:
    """Images in rows on white, uint8 [height, width, 3].

    Args:
        images: uint8 [n, 1 or 3, H, W], or float latents (see `displayable`).
        columns: images in a row; None for as square a grid as can be.
        pad: white pixels between images and around them.
        scale: whole factor by which images grow, every pixel a square.
    """
    shown = displayable(images).cpu()
    count, _, height, width = shown.shape
    if not count:
        raise ValueError("a grid of no images")
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    pixels = shown.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = height * scale, width * scale
    canvas = np.full((rows * (height + pad) + pad, columns * (width + pad) + pad, 3), BACKGROUND, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        canvas[top : top + height, left : left + width] = image
    return canvas


def shown_scale(width: int) -> int:
    """Whole factor that brings images of `width` pixels to about 64 on a grid, where a person sees them."""
    return max(1, round(SHOWN_PIXELS / width))


def write_png(path: Path, picture: np.ndarray, *, replace: bool = False) -> None:
    """Write uint8 [H, W, 3] or [H, W] as a PNG that appears whole or not at all.

    Raises:
        UserError: the file exists and `replace` is False; the disk is full, no permission.
    """
    from PIL import Image

    with replacing(path, new=not replace) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def write_folder(path: Path, images: Tensor, *, first: int = 0) -> None:
    """Write uint8 [n, C, H, W] (or latents) as a new folder of PNGs, 000000.png ... numbered from `first`."""
    from PIL import Image

    pixels = displayable(images).cpu().permute(0, 2, 3, 1).numpy()
    with new_path(path) as temporary:
        temporary.mkdir()
        for number, image in enumerate(pixels, first):
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(temporary / f"{number:06d}.png")


def write_image_npz(path: Path, images: Tensor, labels: Tensor | None = None, *, adm_names: bool = False) -> None:
    """Write a new NPZ: `images` uint8 [N, H, W, C] and `labels` int64 [N]; latents as `latents` float32 [N, C, H, W].

    `adm_names`: call them arr_0 and arr_1, as the evaluation of Dhariwal & Nichol 2021 (guided-diffusion) does.
    """
    if images.dtype == torch.uint8:
        name, values = "images", images.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    else:
        name, values = "latents", images.float().cpu().numpy()
    arrays = {"arr_0" if adm_names else name: values}
    if labels is not None:
        arrays["arr_1" if adm_names else "labels"] = labels.cpu().numpy()
    with new_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def forming_video(
    path: Path,
    generator: ImageGenerator,
    *,
    indices: Sequence[int],
    labels: Tensor | None = None,
    decode: Callable[[Tensor], Tensor] = to_uint8,
    fps: float = 8.0,
    columns: int | None = None,
    scale: int = 1,
) -> None:
    """Film how the images `indices` form from noise, as an mp4 that replaces an older one.

    A frame shows what the network sees at one of its evaluations (at evenly chosen ones, 120 at most), brought down to
    a root mean square of 1 where it is higher (a process that preserves no variance); the last, held for a while, shows
    the images.

    Args:
        path: the file.
        generator: draws them.
        indices: which images.
        labels: class of each, or None.
        decode: from float32 [n, C, H, W] in the data's units to uint8, or to latents.
        fps: frames a second.
        columns, scale: of the grid.

    Raises:
        UserError: the film cannot be written.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    every = math.ceil(generator.sampler.predictions() / MOST_FRAMES)
    films: list[list[Tensor]] = []

    def watch(evaluation: int, x: Tensor) -> None:
        if evaluation == 0:
            films.append([])  # of the next batch
        if evaluation % every == 0:
            films[-1].append(x / x.square().mean().sqrt().clamp(min=1.0))

    images = torch.cat(list(generator.batches(indices, labels, watch=watch)))
    frames = [*(torch.cat(parts).float().cpu() for parts in zip(*films, strict=True)), images]
    writer = VideoWriter(path, fps)
    try:
        for i, frame in enumerate(frames):
            picture = grid(decode(frame), columns, scale=scale)
            for _ in range(max(1, round(SECONDS_AT_END * fps)) if i == len(frames) - 1 else 1):
                writer.add(picture)
        writer.finish()
    except BaseException:
        writer.discard()
        raise
