"""`policy-accel data encode | decode`: images to the latents of an autoencoder, and back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from policy_accel.commands.output import suggest
from policy_accel.data.images import ImageSet, Split, image_path, read_images
from policy_accel.data.images.encoding import Encoding
from policy_accel.errors import UserError
from policy_accel.files import check_new
from policy_accel.images.latents.autoencoder import Autoencoder
from policy_accel.images.latents.encode import Encoder, write_latents, write_pixels
from policy_accel.images.latents.representation import Representation
from policy_accel.training.devices import choose_device

_SPLITS: tuple[Split, ...] = ("train", "test")


def run_encode(options: argparse.Namespace) -> int:
    """Encode an image set; when it was stopped, the same command goes on."""
    check_new(options.output)
    autoencoder = Autoencoder(options.autoencoder, choose_device(options.device, "--device"))
    parts = _read(options.path, resolution=options.resolution, skip_bad=options.skip_bad_images)
    first = next(iter(parts.values()))
    if first.latents:
        raise UserError(f"{options.path}: holds latents already; give the images.")
    shape = autoencoder.latent_shape(first.shape, first.source)
    shipped = options.path.startswith("shipped:")
    encoding = Encoding(
        scale=autoencoder.scale,
        shift=autoencoder.shift,
        moments=options.posterior == "moments",
        autoencoder=str(autoencoder.folder),
        pixels=options.path if shipped else str(image_path(options.path).resolve()),
        resolution=options.resolution,
    )
    encoder = Encoder(autoencoder.load(), options.posterior, options.seed, np.dtype(options.dtype))
    try:
        write_latents(options.output, parts, encoder, encoding, batch_size=options.batch_size)
    except KeyboardInterrupt:
        print("policy-accel: start the same command again to go on.", file=sys.stderr)
        raise
    return _told(options.output, parts, f"latents of {' x '.join(map(str, shape))}")


def run_decode(options: argparse.Namespace) -> int:
    """Decode latents to an NPZ of images."""
    check_new(options.output)
    parts = _read(options.path)
    first = next(iter(parts.values()))
    if not first.latents:
        raise UserError(f"{options.path}: holds images, which need no decoding; give latents.")
    encoding = first.encoding or Encoding()
    folder = options.autoencoder or encoding.autoencoder
    if folder is None:
        raise UserError(f"{options.path}: does not say which autoencoder made its latents; give --autoencoder FOLDER.")
    autoencoder = Autoencoder(folder, choose_device(options.device, "--device"))
    write_pixels(options.output, parts, Representation(encoding, autoencoder.load()), batch_size=options.batch_size)
    return _told(options.output, parts, "images")


def _read(path: str, *, resolution: int | None = None, skip_bad: bool = False) -> dict[Split, ImageSet]:
    """The parts that the set has, all of one shape, with what was remarked about them on the standard error."""
    found = {
        split: read_images(path, split, resolution=resolution, skip_bad=skip_bad, labelled=False) for split in _SPLITS
    }
    parts = {split: part for split, part in found.items() if part is not None}
    for part in parts.values():
        for remark in (*part.remarks, *part.skipped):
            print(f"remark: {part.source}: {remark}", file=sys.stderr)
    if "train" not in parts:
        raise UserError(f"{path}: has no training part; give the folder with the images to train on.")
    shapes = {part.images.shape[1:] for part in parts.values()}
    if len(shapes) > 1:
        raise UserError(f"{path}: its test images are of another size than those to train on; give --resolution.")
    return parts


def _told(output: Path, parts: Mapping[Split, ImageSet], what: str) -> int:
    counted = " and ".join(f"{len(part)} {'training' if split == 'train' else 'test'}" for split, part in parts.items())
    print(f"{counted} {what}: {output}")
    suggest("look at them", ["data", "inspect", output])
    return 0
