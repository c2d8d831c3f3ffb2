"""Files below one root, be it a folder, a ZIP or a tar archive: their names and their bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import os
import re
import tarfile
import zipfile
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policy_accel.data.formats.base import decoding
from policy_accel.errors import UserError
from policy_accel.files import explained, open_regular
from policy_accel.memory import check_fits

_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


@dataclass
class Tree:
    """A folder or archive: where in it each file is, what reads a place, and the file on the disk that it is, or is in;
    what was left out, in sentences; and whether one file of the folder was asked for, and hidden ones."""

    path: Path
    places: dict[str, Any]
    fetch: Callable[[Any], bytes]
    on_disk: Callable[[Any], Path]
    remarks: list[str] = field(default_factory=list)
    alone: bool = False
    hidden: bool = False

    def __post_init__(self) -> None:
        shown = (name for name in self.places if self.hidden or not re.search(r"(^|/)(\.|__MACOSX/)|/$", name))
        self.places = {name.encode("utf-8", "backslashreplace").decode(): self.places[name] for name in sorted(shown)}

    @property
    def names(self) -> list[str]:
        """Of the files, sorted and printable, without hidden ones and what macOS adds."""
        return list(self.places)

    def read(self, name: str) -> bytes:
        """Content of a file; UserError when it is not there or cannot be read."""
        if name not in self.places:
            raise UserError(f"{self.path}/{name}: is not there; add it, or download or make the set again.")
        with decoding(f"{self.path}/{name}", "the file"):
            return self.fetch(self.places[name])


def open_tree(path: Path, stack: ExitStack) -> Tree:
    """A folder, ZIP or tar archive (gz, bz2, xz), recognised by content; any other file is alone in its folder.
    UserError where it is missing, unreadable, damaged, or unpacks to more than is sensible."""
    if path.is_dir():
        return folder_tree(path)
    file = stack.enter_context(open_regular(path))
    start = file.read(262)
    with decoding(path, "the archive"):
        if start[:4] == b"PK\x03\x04" or zipfile.is_zipfile(file):
            return _zip(path, stack.enter_context(zipfile.ZipFile(path)))
        file.seek(0)
        packed = start.startswith(tuple(_PACKED))
        content = unpacked(file.read(), str(path)) if packed else start
        if content[257:262] == b"ustar":
            return _tar(path, content if packed else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return Tree(path.parent, {path.name: str(path)}, _content, Path, alone=True)


def unpacked(content: bytes, where: str) -> bytes:
    """Bytes as they are, or what gzip, bzip2 or xz made of them; UserError where that is damaged or far too much."""
    opener = next((opener for magic, opener in _PACKED.items() if content.startswith(magic)), None)
    if opener is None:
        return content
    result = bytearray()
    with decoding(where, "the archive"), opener(io.BytesIO(content)) as packed:
        while block := packed.read(2**22):
            result += block
            check_fits(len(result), where, stored=len(content))
    return bytes(result)


def folder_tree(path: Path, *, hidden: bool = False) -> Tree:
    """Everything below a folder, without hidden files or with them; UserError where a folder cannot be listed."""
    places, remarks, visited, folders = {}, [], set(), deque([path])
    while folders:
        folder = folders.popleft()
        place, link = folder.resolve(), folder != path and folder.is_symlink()
        if link and (place in visited or path.resolve().is_relative_to(place)):
            remarks.append(f"{folder.relative_to(path)} is a link to a folder that is in the set already; left out.")
        elif place not in visited:
            visited.add(place)
            with explained(folder, "read"):
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            for entry in entries:
                if not (os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()):
                    places[(folder.relative_to(path) / entry.name).as_posix()] = entry.path
                elif hidden or not entry.name.startswith("."):  # links come last, so that nothing is met twice
                    (folders.append if entry.is_symlink() else folders.appendleft)(Path(entry))
    return Tree(path, places, _content, Path, remarks, hidden=hidden)


def _content(path: str) -> bytes:
    with open_regular(path) as file:
        check_fits(os.fstat(file.fileno()).st_size, path)
        return file.read()


def _zip(path: Path, archive: zipfile.ZipFile) -> Tree:
    def fetch(entry: zipfile.ZipInfo) -> bytes:
        check_fits(entry.file_size, f"{path}: {entry.filename} in it", stored=entry.compress_size)
        return archive.read(entry)

    return Tree(path, {entry.filename: entry for entry in archive.infolist()}, fetch, lambda _: path)


def _tar(path: Path, content: bytes | mmap.mmap) -> Tree:
    stream: Any = content if isinstance(content, mmap.mmap) else io.BytesIO(content)
    with tarfile.open(mode="r:", fileobj=stream) as archive:
        files = [member for member in archive if member.isfile() and not member.issparse()]
    if any(file.offset_data + file.size > len(content) for file in files):
        raise tarfile.TarError("its last file ends early")
    places = {file.name.removeprefix("./"): slice(file.offset_data, file.offset_data + file.size) for file in files}
    return Tree(path, places, content.__getitem__, lambda _: path)
