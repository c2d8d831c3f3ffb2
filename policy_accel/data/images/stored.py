"""Arrays in a ZIP that is not compressed: mapped into memory, and written piece by piece."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from policy_accel.data.images.encoding import ENCODING, Encoding
from policy_accel.files import new_path, zip_entry

_LOCAL_HEADER = 30  # bytes before the name of a member (PKWARE, APPNOTE.TXT, 4.3.7)


def mapped_array(archive: zipfile.ZipFile, name: str) -> np.ndarray | None:
    """An array of an open ZIP, mapped into memory; None where it is compressed, or of a form that has to be decoded.

    Raises:
        ValueError: the member is shorter than its array.
    """
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        return None
    with archive.open(entry) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            return None
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        header = member.tell()
    if dtype.hasobject:
        return None
    if entry.file_size < header + dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{name} is shorter than its array")
    path = Path(str(archive.filename))
    with path.open("rb") as file:
        file.seek(entry.header_offset + _LOCAL_HEADER - 4)
        begin = entry.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", file.read(4)))
    return np.memmap(path, dtype, "r", begin + header, shape, "F" if fortran else "C")


class Part(NamedTuple):
    """A part of a set that is to be written: "" or "test_"; the shape and type of all its arrays; the arrays, in
    pieces; the labels int64 [N]."""

    prefix: str
    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Iterable[np.ndarray]
    labels: np.ndarray | None


def write_image_set(
    path: Path, parts: Sequence[Part], classes: tuple[str, ...], *, name: str, encoding: Encoding | None = None
) -> None:
    """Write a new NPZ that `read_images` reads, in which arrays are not compressed; it appears whole or not at all.

    Args:
        path: of the file.
        parts: in pieces, which are made while they are written.
        classes: names; () without labels.
        name: "images", [N, H, W, C], or "latents", [N, C, H, W].
        encoding: of latents.

    Raises:
        UserError: the file exists, the disk is full, no permission.
    """
    with new_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        if encoding is not None:
            archive.writestr(zip_entry(ENCODING), encoding.to_json())
        small = {"classes": np.array(classes)} if classes else {}
        for part in parts:
            with archive.open(zip_entry(f"{part.prefix}{name}.npy"), "w", force_zip64=True) as member:
                facts = {"descr": part.dtype.str, "fortran_order": False, "shape": part.shape}
                np.lib.format.write_array_header_1_0(member, facts)
                for piece in part.pieces:
                    member.write(np.ascontiguousarray(piece, part.dtype).data)
            if part.labels is not None:
                small[f"{part.prefix}labels"] = part.labels
        for key, array in small.items():
            with archive.open(zip_entry(f"{key}.npy"), "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
