"""Arrays of picture files, JPEG or PNG, one a step: what their frames are, and the frames."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from policy_accel.data.formats.base import Feature
from policy_accel.data.formats.hdf5 import Unusable

if TYPE_CHECKING:
    import h5py

_BEGIN = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_DAMAGE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)


def encoded_feature(array: h5py.Dataset) -> Feature | None:
    """What a frame of an array of picture files is, by its first; None for any other array.

    A row is bytes of its own length, or [length] uint8 with zeros behind the file, as ALOHA's recordings are.

    Raises:
        Unusable: the first file is damaged.
    """
    import h5py

    if array.dtype.kind not in "OSu" or not array.shape or not array.shape[0]:
        return None
    rows = h5py.check_vlen_dtype(array.dtype) == np.uint8 or h5py.check_string_dtype(array.dtype) is not None
    padded = array.dtype == np.uint8 and array.ndim == 2
    if not (padded or (rows and array.ndim == 1)):
        return None
    first = _bytes(array[0])
    return _feature(_opened(first)) if first.startswith(_BEGIN) else None


def decoded(name: str, files: np.ndarray, feature: Feature) -> np.ndarray:
    """The frames [N, *shape] of picture files, which are rows of the array `name`.

    Raises:
        Unusable: a file is damaged, or its picture is of another size or kind.
    """
    frames = np.empty((len(files), *feature.shape), feature.dtype)
    for row, file in enumerate(files):
        picture = _opened(_bytes(file))
        if _feature(picture) != feature:
            raise Unusable(f"{name} holds a picture of another size, {picture.size}, or kind; record it again.")
        try:
            frames[row] = np.asarray(_usual(picture)).reshape(feature.shape)
        except _DAMAGE as error:
            raise Unusable(f"{name} holds a damaged picture ({error}); record it again.") from error
    return frames


def _bytes(row: Any) -> bytes:
    return row.tobytes() if isinstance(row, np.ndarray) else bytes(row)


def _opened(file: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(file), formats=("JPEG", "PNG"))
    except _DAMAGE as error:
        raise Unusable(f"holds a damaged picture ({error})") from error


def _usual(picture: Image.Image) -> Image.Image:
    return picture if picture.mode in ("L", "RGB", "RGBA", "I;16") else picture.convert("RGB")


def _feature(picture: Image.Image) -> Feature:
    channels = {"L": 1, "I;16": 1, "RGBA": 4}.get(picture.mode, 3)
    dtype = np.dtype(np.uint16 if picture.mode == "I;16" else np.uint8)
    return Feature((picture.height, picture.width, channels), dtype)
