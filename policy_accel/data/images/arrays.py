"""Image sets and latents in NumPy's own formats: one array of all (NPY), several (NPZ), or one file for each latent.

NPZ: our own (`images` or `latents`, `labels`, `classes`, and `test_` before those of the test part) and those of
guided-diffusion (`arr_0`, `arr_1`).
"""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import numpy as np

from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.images.listing import number_names
from policy_accel.errors import UserError, one_line
from policy_accel.files import explained, open_regular
from policy_accel.memory import check_fits

_MAGIC = b"\x93NUMPY"
_NAMES = {
    "train": (("images", "latents", "arr_0"), ("labels", "arr_1")),
    "test": (("test_images", "test_latents"), ("test_labels",)),
}
_DAMAGED = (ValueError, EOFError, OverflowError, RuntimeError, MemoryError, SyntaxError, TokenError)  # of an array
_BROKEN = (*_DAMAGED, zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # of the archive around it


def array_form(path: Path) -> str | None:
    """ "NPY", or "NPZ" for a ZIP of arrays under the names of an image set or one that is called .npz; else None."""
    if path.is_dir():
        return None
    with open_regular(path) as file:
        if file.read(len(_MAGIC)) == _MAGIC:
            return "NPY"
        if not zipfile.is_zipfile(file):
            return None
        try:
            names = zipfile.ZipFile(file).namelist()
        except _BROKEN:
            return None
    known = {f"{name}.npy" for name in _NAMES["train"][0]}
    mine = all(name.endswith(".npy") for name in names) and (not known.isdisjoint(names) or path.suffix == ".npz")
    return "NPZ" if mine else None


def read_npy(path: Path, split: Split) -> ImageSet | None:
    """Map latents float16 or float32 [N, C, H, W] into memory; without labels, and without a test part.

    Raises:
        UserError: damaged file, Python objects inside, whatever `ImageSet` refuses.
    """
    if split == "test":
        return None
    try:
        with explained(path, "read"):
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            stamp = path.stat()
    except _DAMAGED as error:
        raise UserError(f"{path}: cannot be read as an array ({one_line(error)}); write or copy it again.") from error
    return ImageSet(values, None, (), str(path), key=f"{path.resolve()} {stamp.st_size} {stamp.st_mtime_ns}")


def latent(content: bytes, where: str) -> np.ndarray:
    """One latent [C, H, W] float16 or float32 from the bytes of its file.

    Raises:
        UserError: no such array.
    """
    try:
        values = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _DAMAGED as error:
        raise UserError(f"{where}: cannot be read as an array ({one_line(error)}); encode it again.") from error
    if values.ndim != 3 or values.dtype not in (np.float16, np.float32):
        raise UserError(
            f"{where}: is {values.dtype} {list(values.shape)}; a latent is float16 or float32 [C, H, W]; encode it so."
        )
    return values


def read_npz(path: Path, split: Split) -> ImageSet | None:
    """Read `images` (or `latents`, or `arr_0`) and, if there are any, `labels` (or `arr_1`).

    Images are uint8 [N, H, W, C] or [N, C, H, W]; latents float16 or float32 [N, C, H, W].

    Raises:
        UserError: damaged file, no such array, Python objects inside, whatever `ImageSet` refuses.
    """
    array_names, label_names = _NAMES[split]
    try:
        with explained(path, "read"), zipfile.ZipFile(path) as stored:
            for entry in stored.infolist():
                check_fits(entry.file_size, f"{path}: {entry.filename} in it")
        with explained(path, "read"), np.load(path, allow_pickle=False) as archive:
            name = next((name for name in array_names if name in archive.files), None)
            if name is None:
                if split == "test":
                    return None
                shown = ", ".join(archive.files[:5]) + (", ..." if len(archive.files) > 5 else "")
                raise UserError(f"{path}: holds the arrays {shown}; an image set has 'images', 'latents' or 'arr_0'.")
            values = archive[name]
            labels = {
                key: archive[key].reshape(-1) for key in sum((n[1] for n in _NAMES.values()), ()) if key in archive
            }
            classes = tuple(map(_text, archive["classes"].reshape(-1))) if "classes" in archive.files else ()
    except _BROKEN as error:
        raise UserError(f"{path}: cannot be read as NPZ ({one_line(error)}); download the file again.") from error
    if (values.dtype.kind == "f") != name.endswith("latents"):
        raise UserError(
            f"{path}: '{name}' holds {values.dtype} values; 'images' are uint8 and 'latents' float16 or float32."
        )
    own = next((labels[key] for key in label_names if key in labels), None)
    if own is None:
        return ImageSet(_channels_first(values), None, (), f"{path} ({split})")
    for key, found in labels.items():
        if found.dtype.kind not in "iu":
            raise UserError(f"{path}: {key} holds {found.dtype} values; labels are integers from 0.")
    largest = max((int(found.max()) for found in labels.values() if found.size), default=0)  # of both parts
    classes = classes or number_names(max(largest, 0), str(path))
    return ImageSet(_channels_first(values), own.astype(np.int64), classes, f"{path} ({split})")


def _text(name: object) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)


def _channels_first(values: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] or [N, C, H, W] -> [N, C, H, W]; grey [N, H, W] gets its channel; all else as it is."""
    if values.dtype == np.uint8 and values.ndim == 3:
        return values[:, None]
    if values.dtype == np.uint8 and values.ndim == 4 and values.shape[3] in (1, 3):
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    return values
