"""Camera frames of a whole data set as 8-bit tensors, gathered by rows with the random crop taken in the same copy."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policy_accel.data.formats.base import EpisodeReader, pieces
from policy_accel.errors import UserError
from policy_accel.files import explained
from policy_accel.memory import free_memory
from policy_accel.policy.pictures import PictureView
from policy_accel.progress import Progress

MEMORY_SHARE = 0.5  # of what is free may go to frames; the rest is for the model and its activations
_PIECE_BYTES = 64 * 2**20
_FINGERPRINT_FRAMES = 256


class ImageStore:
    """All frames of the cameras of a data set.

    Args:
        frames: camera -> uint8 [N, H, W, C], tensors or arrays (memory-mapped ones stay on the disk); N is the same
            for all.
        recorded: camera -> (H, W, C) before they were resized; None where none was.

    Attributes:
        frames: camera -> uint8 [N, H, W, C] tensors, where they are kept.
        shapes: camera -> (H, W, C).
        recorded: camera -> (H, W, C) as recorded.
        device: where gathered frames go.
        resident: whether the frames themselves are there.

    Raises:
        ValueError: frames of another dtype or rank, or of different N.
    """

    def __init__(
        self, frames: Mapping[str, Tensor | np.ndarray], recorded: Mapping[str, tuple[int, ...]] | None = None
    ) -> None:
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
        self.recorded = self.shapes if recorded is None else dict(recorded)
        self.device = torch.device("cpu")
        self.resident = True

    @property
    def resized(self) -> dict[str, tuple[int, ...]]:
        """Camera -> (H, W) of those whose frames were resized."""
        return {name: shape[:2] for name, shape in self.shapes.items() if shape != self.recorded[name]}

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


def resize_frames(frames: Tensor, size: Sequence[int]) -> Tensor:
    """Frames uint8 [*B, H, W, C] brought to `size` (H, W), bilinear with antialiasing as torchvision's Resize; those
    that have it stay as they are."""
    if tuple(frames.shape[-3:-1]) == tuple(size):
        return frames
    batch = frames.reshape(-1, *frames.shape[-3:]).permute(0, 3, 1, 2)
    if batch.device.type != "cpu":  # where there is no such kernel for bytes
        batch = batch.float()
    small = torch.nn.functional.interpolate(batch, tuple(size), mode="bilinear", antialias=True)
    small = small.round().clamp(0, 255).to(torch.uint8) if small.is_floating_point() else small
    return small.permute(0, 2, 3, 1).reshape(*frames.shape[:-3], *size, frames.shape[-1]).contiguous()


def read_image_store(
    reader: EpisodeReader,
    cameras: Sequence[str],
    *,
    size_of: Callable[[Sequence[int]], tuple[int, int]] | None = None,
    folder: Path | None = None,
    share: float = MEMORY_SHARE,
) -> ImageStore:
    """Read the frames of `cameras`, a piece at a time, into host memory, or onto the disk when they take more than
    `share` of the memory that is free: into nameless files, which are mapped and vanish with the process.

    Args:
        reader: the open data set; frames as `PictureView` takes them.
        cameras: keys.
        size_of: the size (H, W) at which frames of a shape (H, W, C) are kept; None for their own.
        folder: where the files go; None for $XDG_CACHE_HOME or ~/.cache, and policy_accel/frames below it.
        share: between 0 and 1.

    Raises:
        UserError: a key that the set does not have or that holds no frames, other values, a full disk; as the reader.
    """
    pictures = PictureView(reader, cameras)
    recorded = {camera: pictures.features[camera].shape for camera in cameras}
    shapes = {name: shape if size_of is None else (*size_of(shape), shape[2]) for name, shape in recorded.items()}
    steps = int(reader.episode_ends[-1])
    fits = steps * sum(map(math.prod, shapes.values())) <= share * free_memory(torch.device("cpu"))
    place = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policy_accel" / "frames"
    frames = {camera: _room((steps, *shape), None if fits else place) for camera, shape in shapes.items()}
    done = 0
    with closing(Progress("frames", steps, unit="step")) as progress:
        for _, _, rows, values in pieces(pictures, cameras, piece_bytes=_PIECE_BYTES, finite=False):
            for camera, target in frames.items():
                target[done : done + rows] = resize_frames(torch.from_numpy(values[camera]), target.shape[1:3])
            done += rows
            progress.to(done)
    return ImageStore(frames, recorded)


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
