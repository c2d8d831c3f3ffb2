"""Latents of an autoencoder in NumPy's own format: one array of all, or one file for each image."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.errors import UserError
from policy_accel.files import explain_os_error

_MAGIC = b"\x93NUMPY"


def is_npy(path: Path) -> bool:
    """Whether the file begins as an array of NumPy does."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_npy(path: Path, split: Split) -> ImageSet | None:
    """Map latents float16 or float32 [N, C, H, W] into memory; without labels, and without a test part.

    Raises:
        UserError: damaged file, Python objects inside, whatever `ImageSet` refuses.
    """
    if split == "test":
        return None
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        stamp = path.stat()
    except OSError as error:
        raise explain_os_error(error, path, "read") from error
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as an array ({error}); write or copy it again.") from error
    return ImageSet(values, None, (), str(path), key=f"{path.resolve()} {stamp.st_size} {stamp.st_mtime_ns}")


def latent(content: bytes, where: str) -> np.ndarray:
    """One latent [C, H, W] float16 or float32 from the bytes of its file.

    Raises:
        UserError: no such array.
    """
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{where}: cannot be read as an array ({error}); encode it again.") from error
    if not isinstance(values, np.ndarray) or values.ndim != 3 or values.dtype not in (np.float16, np.float32):
        shown = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else "an archive"
        raise UserError(f"{where}: is {shown}; a latent is float16 or float32 [C, H, W].")
    return values
