"""Camera frames of a whole data set as 8-bit tensors, gathered by rows with the random crop taken in the same copy."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.formats.streaming import pieces
from policy_accel.errors import UserError, did_you_mean
from policy_accel.files import explained
from policy_accel.memory import free_memory
from policy_accel.progress import Progress

MEMORY_SHARE = 0.5  # of what is free may go to frames; the rest is for the model and its activations
CHANNELS = (1, 3, 4)
_PIECE_BYTES = 64 * 2**20
_FINGERPRINT_FRAMES = 256


class ImageStore:
    """All frames of the cameras of a data set.

    Args:
        frames: camera -> uint8 [N, H, W, C], tensors or arrays (memory-mapped ones stay on the disk); N is the same
            for all.

    Attributes:
        frames: camera -> uint8 [N, H, W, C] tensors, where they are kept.
        shapes: camera -> (H, W, C).
        device: where gathered frames go.
        resident: whether the frames themselves are there.

    Raises:
        ValueError: frames of another dtype or rank, or of different N.
    """

    def __init__(self, frames: Mapping[str, Tensor | np.ndarray]) -> None:
        self.frames = {
            camera: values if isinstance(values, Tensor) else torch.from_numpy(values)
            for camera, values in frames.items()
        }
        for camera, values in self.frames.items():
            if values.dtype != torch.uint8 or values.ndim != 4 or not values.is_contiguous():
                raise ValueError(f"frames of {camera} are {values.dtype} {tuple(values.shape)}, not uint8 [N, H, W, C]")
        if len({len(values) for values in self.frames.values()}) > 1:
            raise ValueError(f"cameras differ in frames: { {key: len(v) for key, v in self.frames.items()} }")
        self.shapes: dict[str, tuple[int, int, int]] = {
            camera: (values.shape[1], values.shape[2], values.shape[3]) for camera, values in self.frames.items()
        }
        self.device = torch.device("cpu")
        self.resident = True

    @property
    def bytes(self) -> int:
        """Size of all frames."""
        return sum(values.numel() for values in self.frames.values())

    def to(self, device: torch.device, *, share: float = MEMORY_SHARE) -> None:
        """Hand frames out on `device` from now on, and keep them there when they take at most `share` of its free
        memory. Otherwise they stay on the host, and a gather waits for its rows and sends the frames across.
        """
        device = torch.empty(0, device=device).device  # "cuda" is the current CUDA device, with its number
        here = all(values.device == device for values in self.frames.values())
        self.resident = here or device.type == "cpu" or self.bytes <= share * free_memory(device)
        if self.resident:
            self.frames = {camera: values.to(device) for camera, values in self.frames.items()}
        self.device = device

    def places(self, shape: Sequence[int], crop: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Places at which frames of `shape` are cut out: camera -> [*shape, 2] int64, rows and columns above and left.

        As in robomimic, every frame of every camera has a place of its own, uniform over all that fit.

        Args:
            shape: [B, T], or any.
            crop: side in px of the squares to cut out.
            generator: draws the places, on `device`.

        Raises:
            UserError: a crop larger than the frames of a camera.
        """
        found = {}
        for camera, (height, width, _) in self.shapes.items():
            if crop > min(height, width):
                raise UserError(
                    f"a crop of {crop} px is larger than the frames of {camera}, which are {height} x {width} px; "
                    f"use at most {min(height, width)}."
                )
            sides = [
                torch.randint(side - crop + 1, tuple(shape), generator=generator, device=generator.device)
                for side in (height, width)
            ]
            found[camera] = torch.stack(sides, dim=-1)
        return found

    def gather(
        self, rows: Tensor, *, crop: int | None = None, places: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Frames of some rows, whole or cut out. Resident frames are gathered without waiting for the device.

        Args:
            rows: [B, T] (or any shape) int64 in [0, N), on `device`.
            crop: side in px of the squares to cut out; None for whole frames.
            places: where, from `places`; None for whole frames, whose centre the encoder takes.

        Returns:
            camera -> uint8 [B, T, crop, crop, C], or [B, T, H, W, C] for whole frames; all on `device`.
        """
        if crop is None or places is None:
            return {camera: self._copy(values, rows) for camera, values in self.frames.items()}
        return {camera: self._crops(camera, rows, crop, places[camera]) for camera in self.frames}

    def _crops(self, camera: str, rows: Tensor, crop: int, places: Tensor) -> Tensor:
        height, width, channels = self.shapes[camera]
        top, left = places.unbind(-1)
        line, frame = width * channels, height * width * channels
        flat = self.frames[camera].view(-1)
        # Element s of this overlapping view is the window whose first byte is s, so that one gather cuts out windows at
        # any place, each copied line by line.
        last = flat.numel() - (crop - 1) * line - crop * channels
        windows = flat.as_strided((last + 1, crop, crop, channels), (1, line, channels, 1))
        return self._copy(windows, rows * frame + top * line + left * channels)

    def _copy(self, table: Tensor, indices: Tensor) -> Tensor:
        """table[indices] on `device`."""
        flat = indices.flatten()
        if self.resident:
            return torch.unflatten(table.index_select(0, flat), 0, indices.shape)
        out = torch.empty((len(flat), *table.shape[1:]), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        torch.index_select(table, 0, flat.to(table.device), out=out)
        return torch.unflatten(out.to(self.device, non_blocking=True), 0, indices.shape)

    def fingerprint(self) -> str:
        """Tells one set of frames from another: a digest of names, shapes and up to 256 evenly spaced frames each."""
        digest = hashlib.sha256()
        for camera, values in self.frames.items():
            digest.update(f"{camera} {tuple(values.shape)}\n".encode())
            rows = np.linspace(0, len(values) - 1, min(len(values), _FINGERPRINT_FRAMES)).round().astype(np.int64)
            for row in rows:
                digest.update(values[row].cpu().numpy().tobytes())
        return digest.hexdigest()


def read_image_store(
    reader: EpisodeReader, cameras: Sequence[str], *, folder: Path | None = None, share: float = MEMORY_SHARE
) -> ImageStore:
    """Read the frames of `cameras`, a piece at a time, into host memory, or onto the disk when they take more than
    `share` of the memory that is free: into nameless files, which are mapped and vanish with the process.

    Frames are whole numbers from 0 to 255 of any type, or floats from 0 to 1, [H, W, C] or [C, H, W]; a warning says
    where they had to be converted.

    Args:
        reader: the open data set.
        cameras: keys.
        folder: where the files go; None for $XDG_CACHE_HOME or ~/.cache, and policy_accel/frames below it.
        share: between 0 and 1.

    Raises:
        UserError: a key that the set does not have or that holds no frames, other values, a full disk; as the reader.
    """
    shapes = {camera: _frame_shape(reader, camera) for camera in cameras}
    steps = int(reader.episode_ends[-1])
    fits = steps * sum(map(math.prod, shapes.values())) <= share * free_memory(torch.device("cpu"))
    place = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policy_accel" / "frames"
    frames = {camera: _room((steps, *shape), None if fits else place) for camera, shape in shapes.items()}
    scaled: set[str] = set()
    while (camera := _fill(frames, reader, scaled)) is not None:
        scaled.add(camera)
        warnings.warn(f"{reader.source}: {camera} holds values from 0 to 1, which are read times 255.", stacklevel=2)
    return ImageStore(frames)


def _frame_shape(reader: EpisodeReader, camera: str) -> tuple[int, int, int]:
    """(H, W, C) of the frames of one key."""
    known = [key for key, feature in reader.features.items() if _channels_last(feature)]
    if camera not in reader.features:
        have = did_you_mean(camera, known) if known else "there are no camera frames in it."
        raise UserError(f"{reader.source}: there is no camera '{camera}'; {have}")
    feature = reader.features[camera]
    shape = _channels_last(feature)
    if shape is None:
        remedy = f"cameras are: {', '.join(known)}" if known else "store frames so"
        raise UserError(
            f"{reader.source}: {camera} holds {feature.dtype} {list(feature.shape)} per step, which are no frames "
            f"[H, W, 1, 3 or 4]; {remedy}."
        )
    if shape != feature.shape:
        warnings.warn(f"{reader.source}: {camera} has its channels first, which are moved last.", stacklevel=3)
    return shape


def _channels_last(feature: Feature) -> tuple[int, int, int] | None:
    """(H, W, C) of frames that are stored so or as [C, H, W]; None for what holds no frames."""
    if len(feature.shape) != 3 or feature.dtype.kind not in "uif":
        return None
    first, second, last = feature.shape
    return (first, second, last) if last in CHANNELS else (second, last, first) if first in CHANNELS else None


def _room(shape: tuple[int, ...], folder: Path | None) -> np.ndarray:
    """uint8 array in memory, or mapped to a nameless file in `folder`."""
    if folder is None:
        return np.empty(shape, np.uint8)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a mapping that meets a full disk would end the process
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))
            return np.memmap(file, np.uint8, "r+", shape=shape)


def _fill(frames: Mapping[str, np.ndarray], reader: EpisodeReader, scaled: set[str]) -> str | None:
    """Fill in all frames; stops at a camera whose values turn out to need a factor of 255, and returns it."""
    done = 0
    with closing(Progress("frames", int(reader.episode_ends[-1]), unit="step")) as progress:
        for piece in pieces(reader, list(frames), piece_bytes=_PIECE_BYTES, finite=False):
            for camera, target in frames.items():
                values = piece.values[camera]
                if values.shape[1:] != target.shape[1:]:
                    values = np.moveaxis(values, 1, -1)
                found = target[done : done + piece.rows]
                wrong = _convert(values, found, 255 if camera in scaled else 1)
                if wrong is None:
                    continue
                if camera not in scaled and values.min() >= 0 and values.max() <= 1:
                    return camera
                raise UserError(
                    f"{reader.source}: {camera} holds {wrong}, and frames are whole numbers from 0 to 255, or any from "
                    "0 to 1; store them as uint8."
                )
            done += piece.rows
            progress.to(done)
    return None


def _convert(values: np.ndarray, target: np.ndarray, factor: int) -> Any:
    """Write values times a factor into uint8 `target`; returns a value that cannot be written so, or None."""
    if values.dtype == np.uint8:
        target[:] = values
        return None
    wanted = values if factor == 1 else np.rint(values * float(factor))
    with np.errstate(invalid="ignore"):  # of NaN, found by the comparison
        target[:] = wanted.astype(np.uint8)
    wrong = target != wanted
    return values[wrong][0] if wrong.any() else None
