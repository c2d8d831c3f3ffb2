"""A report on an image set: its parts, sizes, classes and statistics, and everything that is doubtful."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from policy_accel.data.images import ImageSet, Split, image_form, image_path, read_images
from policy_accel.data.images.encoding import Encoding
from policy_accel.data.images.subset import ImageArray
from policy_accel.data.inspect import Inspection
from policy_accel.errors import UserError

_PIECE = 1024  # images looked at together
_SPLITS: tuple[Split, ...] = ("train", "test")


def inspect_images(path: Path | str, *, resolution: int | None = None, cache_dir: Path | None = None) -> Inspection:
    """Look at an image set as far as it can be read.

    Problems are what keeps a part from being read. Remarks: classes without images, images that occur twice in a part
    or in both parts, channels that are equal in every image.

    Raises:
        UserError: there is nothing to look at: missing path, no permission, no image set.
    """
    form = image_form(path)
    if form is None:
        raise UserError(f"{image_path(path)}: holds no image set that is known; check the path.")
    lines, problems = [f"{image_path(path)}: {form}"], []
    remarks: list[str] = []
    digests: dict[str, dict[bytes, int]] = {}
    for split in _SPLITS:
        try:
            part = read_images(path, split, resolution=resolution, cache_dir=cache_dir, skip_bad=True)
        except UserError as error:
            problems.append(str(error))
            continue
        if part is None:
            lines.append(f"{split}: none")
            continue
        lines += _description(split, part)
        problems += part.skipped
        remarks += [remark for remark in part.remarks if remark not in remarks]
        digests[split], twice = _digests(part)
        remarks += _doubtful(split, part, twice)
    shared = len(digests.get("train", {}).keys() & digests.get("test", {}).keys())
    if shared:
        remarks.append(f"{shared} images of the test part are in the training part too; leave them out of one.")
    lines += [f"remark: {remark}" for remark in remarks]
    lines += [f"problem: {problem}" for problem in problems] or ["no problem found"]
    return Inspection("\n".join(lines), tuple(problems), tuple(remarks))


def _description(split: str, part: ImageSet) -> Iterator[str]:
    channels, height, width = part.shape
    kind = "latents" if part.latents else "images"
    yield f"{split}: {len(part)} {kind} of {channels} x {height} x {width} ({part.images.dtype})"
    if part.encoding is not None:
        yield from _encoded(part.encoding)
    mean, deviation = _moments(part.values)
    scale = 1.0 if part.latents else 255.0
    unit = "" if part.latents else " (of a range 0..1)"
    yield f"  mean {_row(mean / scale)}, standard deviation {_row(deviation / scale)} of each channel{unit}"
    if part.labels is not None:
        counts = np.bincount(part.labels, minlength=len(part.classes))
        shown = [
            f"{repr(name) if ',' in name else name} {count}" for name, count in zip(part.classes, counts, strict=True)
        ]
        more = f", ... ({counts.min()} to {counts.max()} each)" if len(shown) > 20 else ""
        yield f"  {len(shown)} classes: {', '.join(shown[:20])}{more}"
    else:
        yield "  no labels"


def _encoded(encoding: Encoding) -> Iterator[str]:
    drawn = "drawn from means and deviations" if encoding.moments else "stored"
    yield f"  {drawn}, made by {encoding.autoencoder or 'an autoencoder'} of {encoding.pixels or 'images'}"
    yield f"  a model is given (latent - {_row(np.array(encoding.shift))}) * {_row(np.array(encoding.scale))}"


def _row(values: np.ndarray) -> str:
    return "[" + " ".join(f"{value:.4f}" for value in values) + "]"


def _moments(images: ImageArray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, float64 [C]; the array is not copied as a whole."""
    total = square = np.zeros(images.shape[1])
    for begin in range(0, len(images), _PIECE):
        piece = images[begin : begin + _PIECE].astype(np.float64)
        total = total + piece.sum(axis=(0, 2, 3))
        square = square + (piece**2).sum(axis=(0, 2, 3))
    count = len(images) * math.prod(images.shape[2:])
    mean = total / count
    return mean, np.sqrt(np.maximum(square / count - mean**2, 0))


def _digests(part: ImageSet) -> tuple[dict[bytes, int], list[tuple[int, int]]]:
    """Digest of every image with its first place, and the pairs of places of equal images."""
    seen: dict[bytes, int] = {}
    twice = []
    for place in range(len(part)):
        digest = hashlib.blake2b(np.ascontiguousarray(part.images[place]).data, digest_size=16).digest()
        first = seen.setdefault(digest, place)
        if first != place:
            twice.append((first, place))
    return seen, twice


def _doubtful(split: str, part: ImageSet, twice: list[tuple[int, int]]) -> Iterator[str]:
    if twice:
        first, second = twice[0]
        yield f"{split}: {len(twice)} images occur again, for example {second} equals {first}; keep one of them."
    if part.labels is not None:
        counts = np.bincount(part.labels, minlength=len(part.classes))
        empty = [name for name, count in zip(part.classes, counts, strict=True) if not count]
        if empty:
            shown = ", ".join(empty[:8]) + (", ..." if len(empty) > 8 else "")
            yield f"{split}: {len(empty)} classes have no image ({shown}); nothing can be learned of them."
    if part.shape[0] == 3 and not part.latents and _grey(np.asarray(part.images)):
        yield f"{split}: the three channels are equal in every image; store the images grey, at a third of the size."


def _grey(images: np.ndarray) -> bool:
    pieces = (images[begin : begin + _PIECE] for begin in range(0, len(images), _PIECE))
    return all(bool((piece == piece[:, :1]).all()) for piece in pieces)
