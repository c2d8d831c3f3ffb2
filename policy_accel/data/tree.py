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
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from policy_accel.data.formats.base import decoding
from policy_accel.files import explained, open_regular
from policy_accel.memory import check_fits

_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


class Tree(NamedTuple):
    """A folder or archive, and sorted names of files in it; what reads one, or raises UserError; the file on the disk
    that it is, or is in; and what was left out, in sentences."""

    path: Path
    names: list[str]
    read: Callable[[str], bytes]
    file: Callable[[str], Path]
    remarks: tuple[str, ...] = ()


def open_tree(path: Path, stack: ExitStack) -> Tree:
    """A folder, ZIP or tar archive (gz, bz2, xz), recognised by content; any other file is alone in its folder.

    Raises:
        UserError: missing, unreadable, damaged, or it unpacks to more than is sensible.
    """
    if path.is_dir():
        with explained(path, "read"):
            return folder_tree(path)
    file = stack.enter_context(open_regular(path))
    start = file.read(6)
    with decoding(path, "the archive"):
        if start[:4] == b"PK\x03\x04" or zipfile.is_zipfile(file):
            return _zip(path, stack.enter_context(zipfile.ZipFile(path)))
        file.seek(0)
        packed = start.startswith(tuple(_PACKED))
        content = unpacked(file.read(), str(path)) if packed else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _tar(path, content) if content[257:262] == b"ustar" else _on_disk(path.parent, [path.name])


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
    """Everything below a folder, without hidden files or with them; OSError where a folder cannot be listed."""
    names, remarks, visited, folders = [], [], set(), deque([path])
    while folders:
        folder = folders.popleft()
        place, link = folder.resolve(), folder != path and folder.is_symlink()
        if link and (place in visited or path.resolve().is_relative_to(place)):
            remarks.append(f"{folder.relative_to(path)} is a link to a folder that is in the set already; left out.")
        elif place not in visited:
            visited.add(place)
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                if not entry.is_dir():
                    names.append(Path(entry).relative_to(path).as_posix())
                elif hidden or not entry.name.startswith("."):  # links come last, so that nothing is met twice
                    (folders.append if entry.is_symlink() else folders.appendleft)(Path(entry))
    return _on_disk(path, sorted(names) if hidden else _shown(names), remarks)


def _on_disk(path: Path, names: list[str], remarks: Iterable[str] = ()) -> Tree:
    def read(name: str) -> bytes:
        with explained(path / name, "read"), open_regular(path / name) as file:
            return file.read()

    return Tree(path, names, read, lambda name: path / name, tuple(remarks))


def _zip(path: Path, archive: zipfile.ZipFile) -> Tree:
    def read(name: str) -> bytes:
        with decoding(path, f"{name} in it"):
            entry = archive.getinfo(name)
            check_fits(entry.file_size, f"{path}: {name} in it", stored=entry.compress_size)
            return archive.read(name)

    return Tree(path, _shown(archive.namelist()), read, lambda _: path)


def _tar(path: Path, content: bytes | mmap.mmap) -> Tree:
    stream: Any = content if isinstance(content, mmap.mmap) else io.BytesIO(content)
    with tarfile.open(mode="r:", fileobj=stream) as archive:
        members = [member for member in archive if member.isfile() and not member.issparse()]
    spans = {member.name.removeprefix("./"): (member.offset_data, member.size) for member in members}
    if any(begin + size > len(content) for begin, size in spans.values()):
        raise tarfile.TarError("its last file ends early")

    def read(name: str) -> bytes:
        with decoding(path, f"{name} in it"):
            begin, size = spans[name]
            return content[begin : begin + size]

    return Tree(path, _shown(spans), read, lambda _: path)


def _shown(names: Iterable[str]) -> list[str]:
    """The files that are not hidden, nor added by macOS."""
    return sorted(name for name in names if not re.search(r"(^|/)(\.|__MACOSX/)|/$", name))
