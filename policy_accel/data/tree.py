"""Files below one root, be it a folder, a ZIP or a tar archive: their names, their stamps and their bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from policy_accel.errors import UserError, one_line
from policy_accel.files import explain_os_error, explained, open_regular
from policy_accel.memory import check_fits

KNOWN_FORMS = (
    "known are folders of images, by class or with metadata.jsonl, metadata.csv or dataset.json, ZIP and tar archives "
    "of such (WebDataset too), Parquet of Hugging Face, .npz and .npy arrays, CIFAR-10 and -100 and MNIST."
)

_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
_PACKED: dict[bytes, Callable[[BinaryIO], BinaryIO]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),  # type: ignore[dict-item,return-value]
    b"BZh": bz2.BZ2File,  # type: ignore[dict-item]
    b"\xfd7zXZ\x00": lzma.LZMAFile,  # type: ignore[dict-item]
}
_BLOCK = 2**22


class NoTree(UserError):
    """A file that is no archive."""


@dataclass(frozen=True)
class Tree:
    """Files below a root.

    Attributes:
        path: the folder or archive.
        names: relative names with slashes, sorted; hidden files and what macOS adds are left out.
        read: content of one file; UserError when it cannot be read, or the archive is damaged.
        stamp: for a name a text that changes when the file does.
        remarks: what was left out, one sentence each.
    """

    path: Path
    names: tuple[str, ...]
    read: Callable[[str], bytes]
    stamp: Callable[[str], str]
    remarks: tuple[str, ...] = ()


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
        except (*_BROKEN, ValueError, OverflowError) as error:
            raise UserError(
                f"{path}: the archive is damaged or cut off ({one_line(error)}); copy or download it again."
            ) from error
        yield tree


def unpacked(content: bytes, where: str) -> bytes:
    """Bytes as they are, or what gzip, bzip2 or xz made of them.

    Raises:
        UserError: they are cut off or damaged, or unpack to more than is free, or than anything sensible does.
    """
    opener = next((opener for magic, opener in _PACKED.items() if content.startswith(magic)), None)
    if opener is None:
        return content
    result, packed = bytearray(), opener(io.BytesIO(content))
    try:
        while block := packed.read(_BLOCK):
            result += block
            check_fits(len(result), where, stored=len(content))
    except (OSError, *_BROKEN) as error:
        raise UserError(
            f"{where}: the archive is damaged or cut off ({one_line(error)}); copy or download it again."
        ) from error
    return bytes(result)


def _open(path: Path, stack: ExitStack) -> Tree:
    if path.is_dir():
        return folder_tree(path)
    with open_regular(path) as file:
        start = file.read(262)
        if zipfile.is_zipfile(file):
            return zip_tree(path, stack.enter_context(zipfile.ZipFile(path)))
        if start.startswith(tuple(_PACKED)) or start[257:] == b"ustar":
            return _tar(path, file, packed=start[257:] != b"ustar")
    if start.startswith(b"PAR1"):
        return _files(path.parent, [path.name])
    if start[:4] == b"PK\x03\x04":
        raise zipfile.BadZipFile("a ZIP without its end")
    raise NoTree(
        f"{path}: is neither a folder nor an archive nor an array, it begins with {start[:8]!r}; {KNOWN_FORMS}"
    )


def folder_tree(path: Path, *, hidden: bool = False) -> Tree:
    """Everything below a folder; with `hidden` ones, whose name begins with a dot, or without.

    Links to folders are followed after all that is really there, so that no file is met twice.

    Raises:
        OSError: the folder, or one in it, cannot be listed.
    """
    names, visited, root = [], set(), path.resolve()
    remarks = []
    links = [path]
    while links:
        link = links.pop(0)
        if link.resolve() in visited or (link != path and root.is_relative_to(link.resolve())):
            remarks.append(f"{link.relative_to(path)} is a link to a folder that is in the set already; left out.")
            continue
        folders = [link]
        while folders:
            folder = folders.pop()
            if folder.resolve() in visited:
                continue
            visited.add(folder.resolve())
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                if entry.name.startswith(".") and not hidden:
                    continue
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(folder / entry.name)
                else:
                    names.append((folder / entry.name).relative_to(path).as_posix())

    return _files(path, _sorted(names, hidden=hidden), tuple(remarks))


def _files(path: Path, names: Sequence[str], remarks: tuple[str, ...] = ()) -> Tree:
    """Some of the files below a folder."""

    def read(name: str) -> bytes:
        with explained(path / name, "read"), open_regular(path / name) as file:
            return file.read()

    def stamp(name: str) -> str:
        with explained(path / name, "read"):
            found = (path / name).stat()
        return f"{name} {found.st_size} {found.st_mtime_ns}"

    return Tree(path, tuple(names), read, stamp, remarks)


def zip_tree(path: Path, archive: zipfile.ZipFile, *, hidden: bool = False) -> Tree:
    """Everything in an open ZIP; see `folder_tree`."""

    def read(name: str) -> bytes:
        entry = archive.getinfo(name)
        check_fits(entry.file_size, f"{path}: {name} in it", stored=entry.compress_size)
        try:
            return archive.read(name)
        except (*_BROKEN, OSError, ValueError) as error:
            raise UserError(
                f"{path}: {name} in it cannot be unpacked ({one_line(error)}); copy or download the archive again."
            ) from error

    def stamp(name: str) -> str:
        entry = archive.getinfo(name)
        return f"{name} {entry.file_size} {entry.CRC}"

    return Tree(path, _sorted(archive.namelist(), hidden=hidden), read, stamp)


def _tar(path: Path, file: BinaryIO, *, packed: bool) -> Tree:
    """A tar archive, mapped into memory, or unpacked into it."""
    content: bytes | mmap.mmap
    file.seek(0)
    content = unpacked(file.read(), str(path)) if packed else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    stream: Any = io.BytesIO(content) if packed else content
    with tarfile.open(mode="r:", fileobj=stream) as archive:
        spans = {
            member.name.removeprefix("./"): (member.offset_data, member.offset_data + member.size)
            for member in archive
            if member.isfile() and not member.issparse()
        }
    if spans and max(end for _, end in spans.values()) > len(content):
        raise tarfile.TarError("its last file ends early")

    def read(name: str) -> bytes:
        return content[slice(*spans[name])]

    return Tree(path, _sorted(spans), read, lambda name: f"{name} {zlib.crc32(read(name))}")


def _sorted(names: Collection[str], *, hidden: bool = False) -> tuple[str, ...]:
    def shown(name: str) -> bool:
        parts = PurePosixPath(name).parts
        return hidden or not any(part.startswith(".") or part == "__MACOSX" for part in parts)

    return tuple(sorted(name for name in names if not name.endswith("/") and shown(name)))
