"""Files below one root, be it a folder, a ZIP or a tar archive: their names, their stamps and their bytes."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

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


class Tree(Protocol):
    """Files below a root.

    Attributes:
        path: the folder or archive.
        names: relative names with slashes, sorted; hidden files and what macOS adds are left out.
    """

    path: Path
    names: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """Content of one file.

        Raises:
            UserError: it cannot be read, or the archive is damaged.
        """
        ...

    def head(self, name: str) -> BinaryIO:
        """One file opened to read its beginning, which is cheap in a folder; raises as `read` does."""
        ...

    def stamps(self, names: Collection[str]) -> Iterator[str]:
        """For each name a text that changes when the file does."""
        ...


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
        return _Folder(path)
    if zipfile.is_zipfile(path):
        return _Zip(path, stack.enter_context(zipfile.ZipFile(path)))
    with path.open("rb") as file:
        start = file.read(262)
    if start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start[:6] == b"\xfd7zXZ\x00" or start[257:] == b"ustar":
        return _Tar(path)
    if start[:4] == b"PK\x03\x04":
        raise zipfile.BadZipFile("a ZIP without its end")
    raise NoTree(
        f"{path}: is neither a folder nor an archive nor an array, it begins with {start[:8]!r}; {KNOWN_FORMS}"
    )


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        names = []
        for folder, folders, files in os.walk(path, followlinks=True, onerror=_stop):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = Path(folder).relative_to(path)
            names += [(inside / name).as_posix() for name in files]
        self.names = _visible(names)

    def read(self, name: str) -> bytes:
        with explained(self.path / name, "read"):
            return (self.path / name).read_bytes()

    def head(self, name: str) -> BinaryIO:
        with explained(self.path / name, "read"):
            return (self.path / name).open("rb")

    def stamps(self, names: Collection[str]) -> Iterator[str]:
        for name in names:
            with explained(self.path / name, "read"):
                found = (self.path / name).stat()
            yield f"{name} {found.st_size} {found.st_mtime_ns}"


class _Zip:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self.names = _visible(archive.namelist())

    def read(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except _BROKEN as error:
            raise UserError(
                f"{self.path}: {name} in it cannot be unpacked ({error}); copy or download the archive again."
            ) from error

    def head(self, name: str) -> BinaryIO:
        return io.BytesIO(self.read(name))

    def stamps(self, names: Collection[str]) -> Iterator[str]:
        for name in names:
            entry = self._archive.getinfo(name)
            yield f"{name} {entry.file_size} {entry.CRC}"


class _Tar:
    """A tar archive has no table of contents: it is read once from beginning to end, the files stay in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, bytes] = {}
        with tarfile.open(path) as archive:
            unpacked = 0
            for member in archive:
                unpacked += member.size
                if unpacked > MOST_UNPACKED:
                    raise UserError(f"{path}: is larger than {MOST_UNPACKED} bytes; unpack it and give the folder.")
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    self._files[member.name.removeprefix("./")] = content.read()
        self.names = _visible(self._files)

    def read(self, name: str) -> bytes:
        return self._files[name]

    def head(self, name: str) -> BinaryIO:
        return io.BytesIO(self.read(name))

    def stamps(self, names: Collection[str]) -> Iterator[str]:
        for name in names:
            yield f"{name} {zlib.crc32(self._files[name])}"


def _visible(names: Collection[str]) -> tuple[str, ...]:
    return tuple(
        sorted(
            name
            for name in names
            if not name.endswith("/")
            and not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
        )
    )


def _stop(error: OSError) -> None:
    raise error
