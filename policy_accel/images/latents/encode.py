"""Image sets to latents and back, as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from policy_accel.data.images import ImageSet, Split
from policy_accel.data.images.encoding import Encoding
from policy_accel.data.images.stored import Part, write_image_set
from policy_accel.data.images.subset import ImageArray
from policy_accel.diffusion.counter_noise import normal_by_counter
from policy_accel.errors import UserError
from policy_accel.images.latents.autoencoder import Autoencoder
from policy_accel.images.latents.representation import Representation
from policy_accel.images.latents.unfinished import made_rows, make_rows, unfinished
from policy_accel.images.metrics.image_batches import image_batch
from policy_accel.progress import Progress
from policy_accel.training.randomness import derive_seed

_PIECE = 1024  # rows copied at a time
PREFIXES: dict[Split, str] = {"train": "", "test": "test_"}


@dataclass(frozen=True)
class Encoder:
    """Latents of images, from the normal distribution that an autoencoder gives for each.

    Attributes:
        autoencoder: what gives it.
        posterior: "moments" keeps its mean and deviation, "mean" the mean, "sample" one draw, which follows from the
            seed, the part and the place of the image.
        seed: of the draws.
        dtype: in which latents are kept.
    """

    autoencoder: Autoencoder
    posterior: str
    seed: int
    dtype: np.dtype

    def __call__(self, images: ImageArray, rows: slice, split: Split) -> np.ndarray:
        """Latents [B, C, h, w], or moments [B, 2 C, h, w], of `images[rows]`, uint8 [N, C, H, W].

        Raises:
            UserError: latents beyond the numbers of the type.
        """
        mean, deviation = self.autoencoder.encode(image_batch(images, rows, self.autoencoder.device))
        if self.posterior == "moments":
            mean = torch.cat([mean, deviation], dim=1)
        elif self.posterior == "sample":
            places = torch.arange(rows.start, rows.stop, device=mean.device)
            mean = mean + deviation * normal_by_counter(derive_seed(self.seed, split), places, 0, mean.shape[1:])
        with np.errstate(over="ignore"):
            latents = mean.cpu().numpy().astype(self.dtype)
        if not np.isfinite(latents).all():
            raise UserError(f"{self.autoencoder.folder}: makes latents too large for {self.dtype}; choose float32.")
        return latents


def write_latents(
    output: Path, parts: Mapping[Split, ImageSet], encoder: Encoder, encoding: Encoding, *, batch_size: int
) -> None:
    """Encode a set into a new NPZ, which appears whole or not at all.

    Until then what is made lies beside it, in the folder OUTPUT.partial: the same call goes on from there.

    Args:
        output: the file.
        parts: images, all of one shape.
        encoder: makes latents.
        encoding: how they are made, for the file.
        batch_size: images at a time.

    Raises:
        UserError: the file exists, the disk is full; what lies beside it was begun with something else.
    """
    folder, made, told = output.with_name(f"{output.name}.partial"), [], encoder.autoencoder.weights.stat()
    made_with = {
        "data": " ".join(part.fingerprint() for part in parts.values()),
        "autoencoder": f"{encoder.autoencoder.weights} {told.st_size} {told.st_mtime_ns}",
        "posterior": f"{encoder.posterior}" + (f", seed {encoder.seed}" if encoder.posterior == "sample" else ""),
        "dtype": str(encoder.dtype),
        "encoding": encoding.to_json(),
    }
    first = next(iter(parts.values()))
    channels, *size = encoder.autoencoder.latent_shape(first.shape, first.source)
    row = (2 * channels if encoder.posterior == "moments" else channels, *size)
    shapes = {split: (len(part), *row) for split, part in parts.items()}
    files = {split: folder / f"{split}.bin" for split in parts}
    with unfinished(folder, made_with):
        there = sum(made_rows(files[split], shapes[split], encoder.dtype, batch_size) for split in parts)
        total = sum(map(len, parts.values()))
        with closing(Progress("encode", total, there, unit="image")) as progress:
            for split, part in parts.items():

                def make(rows: slice, split: Split = split, part: ImageSet = part) -> np.ndarray:
                    return encoder(part.images, rows, split)

                latents = make_rows(
                    files[split],
                    shapes[split],
                    encoder.dtype,
                    make,
                    batch_size=batch_size,
                    advance=progress.advance,
                )
                made.append(Part(PREFIXES[split], latents.shape, encoder.dtype, _pieces(latents), part.labels))
        write_image_set(output, made, first.classes, name="latents", encoding=encoding)


def write_pixels(
    output: Path, parts: Mapping[Split, ImageSet], representation: Representation, *, batch_size: int
) -> None:
    """Decode latents (of moments the means) into a new NPZ of images, which appears whole or not at all.

    Raises:
        UserError: the file exists, the disk is full; the autoencoder did not make the latents.
    """
    assert representation.autoencoder is not None
    factor, channels = representation.autoencoder.factor, representation.autoencoder.pixel_channels
    with closing(Progress("decode", sum(map(len, parts.values())), unit="image")) as progress:

        def decoded(latents: ImageArray) -> Iterator[np.ndarray]:
            for at in range(0, len(latents), batch_size):
                piece = image_batch(latents, slice(at, at + batch_size), "cpu")
                progress.advance(len(piece))
                yield representation.pixels(piece).permute(0, 2, 3, 1).numpy()

        made = []
        for split, part in parts.items():
            height, width = (factor * size for size in part.shape[1:])
            shape = (len(part), height, width, channels)
            made.append(Part(PREFIXES[split], shape, np.dtype(np.uint8), decoded(part.values), part.labels))
        write_image_set(output, made, next(iter(parts.values())).classes, name="images")


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    yield from (array[at : at + _PIECE] for at in range(0, len(array), _PIECE))
