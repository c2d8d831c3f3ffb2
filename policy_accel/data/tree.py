"""Files below one root, be it a folder, a ZIP or a tar archive: their names, their stamps and their bytes."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from policy_accel.errors import UserError
from policy_accel.files import explain_os_error, explained

KNOWN_FORMS = (
    "known are CIFAR-10 and -100 (Python or binary version), MNIST (IDX), folders of images in folders of classes, "
    "ZIPs of images with dataset.json, and .npz or .npy arrays."
)

MOST_UNPACKED = 4 * 2**30  # bytes of a tar archive, which is held in memory

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)


class NoTree(UserError):
    """A file that is no archive."""


@dataclass(frozen=True)
class Tree:
    """Files below a root.

    Attributes:
        path: the folder or archive.
        names: relative names with slashes, sorted; hidden files and what macOS adds are left out.
        open: one file to be read, of which a folder reads only what is asked for; UserError when it cannot be read, or
            the archive is damaged.
        stamp: for a name a text that changes when the file does.
    """

    path: Path
    names: tuple[str, ...]
    open: Callable[[str], BinaryIO]
    stamp: Callable[[str], str]

    def read(self, name: str) -> bytes:
        """Content of one file; raises as `open` does."""
        with explained(self.path / name, "read"), self.open(name) as file:
            return file.read()


@contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Open a folder, ZIP or tar archive (gz, bz2, xz), recognised by content.

    Raises:
        NoTree: neither folder nor archive.
        UserError: missing, unreadable or damaged.
    """
    with ExitStack() as stack:
        try:
            tree = _open(path, stack)
        except OSError as error:
            raise explain_os_error(error, Path(error.filename or path), "read") from error
        except _BROKEN as error:
            raise UserError(
                f"{path}: the archive is damaged or cut off ({error}); copy or download it again."
            ) from error
        yield tree


def _open(path: Path, stack: ExitStack) -> Tree:
    if path.is_dir():
        return folder_tree(path)
    if zipfile.is_zipfile(path):
        return zip_tree(path, stack.enter_context(zipfile.ZipFile(path)))
    with path.open("rb") as file:
        start = file.read(262)
    if start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start[:6] == b"\xfd7zXZ\x00" or start[257:] == b"ustar":
        return _tar(path)
    if start[:4] == b"PK\x03\x04":
        raise zipfile.BadZipFile("a ZIP without its end")
    raise NoTree(
        f"{path}: is neither a folder nor an archive nor an array, it begins with {start[:8]!r}; {KNOWN_FORMS}"
    )


def folder_tree(path: Path, *, hidden: bool = False) -> Tree:
    """Everything below a folder; with `hidden` ones, whose name begins with a dot, or without.

    Raises:
        OSError: the folder, or one in it, cannot be listed.
    """
    names = []
    visited: set[tuple[int, int]] = set()  # links may lead back
    for folder, folders, files in os.walk(path, followlinks=True, onerror=_stop):
        folders[:] = [name for name in folders if hidden or not name.startswith(".")]
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        inside = Path(folder).relative_to(path)
        names += [(inside / name).as_posix() for name in files]

    def opened(name: str) -> BinaryIO:
        with explained(path / name, "read"):
            return (path / name).open("rb")

    def stamp(name: str) -> str:
        with explained(path / name, "read"):
            found = (path / name).stat()
        return f"{name} {found.st_size} {found.st_mtime_ns}"

    return Tree(path, _sorted(names, hidden=hidden), opened, stamp)


def zip_tree(path: Path, archive: zipfile.ZipFile, *, hidden: bool = False) -> Tree:
    """Everything in an open ZIP; see `folder_tree`."""

    def opened(name: str) -> BinaryIO:
        try:
            return io.BytesIO(archive.read(name))
        except _BROKEN as error:
            raise UserError(
                f"{path}: {name} in it cannot be unpacked ({error}); copy or download the archive again."
            ) from error

    def stamp(name: str) -> str:
        entry = archive.getinfo(name)
        return f"{name} {entry.file_size} {entry.CRC}"

    return Tree(path, _sorted(archive.namelist(), hidden=hidden), opened, stamp)


def _tar(path: Path) -> Tree:
    """A tar archive has no table of contents: it is read once from beginning to end, the files stay in memory."""
    files: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        unpacked = 0
        for member in archive:
            unpacked += member.size
            if unpacked > MOST_UNPACKED:
                raise UserError(f"{path}: is larger than {MOST_UNPACKED} bytes; unpack it and give the folder.")
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                files[member.name.removeprefix("./")] = content.read()
    return Tree(
        path, _sorted(files), lambda name: io.BytesIO(files[name]), lambda name: f"{name} {zlib.crc32(files[name])}"
    )


def _sorted(names: Collection[str], *, hidden: bool = False) -> tuple[str, ...]:
    def shown(name: str) -> bool:
        parts = PurePosixPath(name).parts
        return hidden or not any(part.startswith(".") or part == "__MACOSX" for part in parts)

    return tuple(sorted(name for name in names if not name.endswith("/") and shown(name)))


def _stop(error: OSError) -> None:
    raise error
