"""Image sets in one NPZ file: our own, those of guided-diffusion (arr_0, arr_1), and latents."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from policy_accel.data.images.image_set import ImageSet, Split, number_names
from policy_accel.errors import UserError
from policy_accel.files import explain_os_error, new_path

_NAMES = {
    "train": (("images", "latents", "arr_0"), ("labels", "arr_1")),
    "test": (("test_images", "test_latents"), ("test_labels",)),
}


def is_npz(path: Path) -> bool:
    """Whether the file is a ZIP of arrays under the names of an image set, or any ZIP of arrays that is called .npz."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    known = {f"{name}.npy" for name in _NAMES["train"][0]}
    return all(name.endswith(".npy") for name in names) and (not known.isdisjoint(names) or path.suffix == ".npz")


def read_npz(path: Path, split: Split) -> ImageSet | None:
    """Read `images` (or `latents`, or `arr_0`) and, if there are any, `labels` (or `arr_1`).

    Images are uint8 [N, H, W, C] or [N, C, H, W]; latents float16 or float32 [N, C, H, W]. The test part has names that
    begin with `test_`. `classes`, an array of names, is optional.

    Raises:
        UserError: damaged file, no such array, Python objects inside, whatever `ImageSet` refuses.
    """
    array_names, label_names = _NAMES[split]
    try:
        with np.load(path, allow_pickle=False) as archive:
            name = next((name for name in array_names if name in archive.files), None)
            if name is None:
                if split == "test":
                    return None
                shown = ", ".join(archive.files[:5]) + (", ..." if len(archive.files) > 5 else "")
                raise UserError(f"{path}: holds the arrays {shown}; an image set has 'images', 'latents' or 'arr_0'.")
            values = archive[name]
            label_name = next((name for name in label_names if name in archive.files), None)
            labels = None if label_name is None else archive[label_name]
            names = tuple(map(str, archive["classes"])) if "classes" in archive.files else None
            of_train = next((archive[name] for name in _NAMES["train"][1] if name in archive.files), None)
    except OSError as error:
        raise explain_os_error(error, path, "read") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as NPZ ({error}); copy or download the file again.") from error
    if (values.dtype.kind == "f") != (name.endswith("latents")):
        raise UserError(
            f"{path}: '{name}' holds {values.dtype} values; 'images' are uint8 and 'latents' float16 or float32."
        )
    if labels is not None:
        if labels.dtype.kind not in "iu":
            raise UserError(f"{path}: {label_name} holds {labels.dtype} values; labels are integers from 0.")
        labels = labels.reshape(-1).astype(np.int64)
        known = labels if of_train is None else np.append(labels, of_train).astype(np.int64)  # of both parts
        names = names or number_names(known, str(path))
    return ImageSet(_channels_first(values), labels, (names or ()) if labels is not None else (), f"{path} ({split})")


def write_images_npz(path: Path, train: ImageSet, test: ImageSet | None) -> None:
    """Write a file that `read_npz` reads, never over another one; the same sets give the same arrays.

    Raises:
        UserError: the file exists, the disk is full, no permission; parts that do not fit together.
    """
    arrays: dict[str, np.ndarray] = {}
    for prefix, part in (("", train), ("test_", test)):
        if part is None:
            continue
        if part.shape != train.shape or part.classes != train.classes or part.latents != train.latents:
            raise UserError(f"{path}: {part.source} has other images or classes than {train.source}; write two files.")
        name = "latents" if part.latents else "images"
        arrays[prefix + name] = part.images if part.latents else np.ascontiguousarray(part.images.transpose(0, 2, 3, 1))
        if part.labels is not None:
            arrays[f"{prefix}labels"] = part.labels
    if train.classes:
        arrays["classes"] = np.array(train.classes)
    with new_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _channels_first(values: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] or [N, C, H, W] -> [N, C, H, W]; grey [N, H, W] gets its channel; all else as it is."""
    if values.dtype == np.uint8 and values.ndim == 3:
        return values[:, None]
    if values.dtype == np.uint8 and values.ndim == 4 and values.shape[3] in (1, 3):
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    return values
