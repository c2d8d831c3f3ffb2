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
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policy_accel.data.formats.base import decoding
from policy_accel.errors import UserError
from policy_accel.files import explain_os_error, open_regular
from policy_accel.memory import check_fits

_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


@dataclass
class Tree:
    """A folder or archive: where in it each file is, what reads a place, and the file on the disk that it is, or is in;
    what was left out, in sentences; and whether one file of the folder was asked for, and hidden ones.

    Names are printable and sorted, without hidden files and what macOS adds."""

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
        self.names = list(self.places)

    def read(self, name: str) -> bytes:
        """Content of a file; UserError when it is not there or cannot be read."""
        if name not in self.places:
            raise UserError(f"{self.path}/{name}: is not there; add it, or download or make the set again.")
        with decoding(f"{self.path}/{name}", "the file"):
            return self.fetch(self.places[name])


def by_number(name: str) -> list[str | int]:
    """A key to sort names by, in which demo_2 comes before demo_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def open_tree(path: Path, stack: ExitStack) -> Tree:
    """A folder, ZIP or tar archive (gz, bz2, xz), recognised by content; any other file is alone in its folder.
    UserError where it is missing, unreadable, damaged, or unpacks to more than is sensible."""
    if path.is_dir():
        return folder_tree(path)
    file = stack.enter_context(open_regular(path))
    start = file.read(262)
    with decoding(path, "the archive"):
        if start[:4] == b"PK\x03\x04" or zipfile.is_zipfile(file):
            archive = stack.enter_context(zipfile.ZipFile(path))

            def fetch(entry: zipfile.ZipInfo) -> bytes:
                check_fits(entry.file_size, f"{path}: {entry.filename} in it", stored=entry.compress_size)
                return archive.read(entry)

            return Tree(path, {entry.filename: entry for entry in archive.infolist()}, fetch, lambda _: path)
        file.seek(0)
        packed = start.startswith(tuple(_PACKED))
        content: Any = unpacked(file.read(), str(path)) if packed else start
        if content[257:262] == b"ustar":
            content = content if packed else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            with tarfile.open(mode="r:", fileobj=io.BytesIO(content) if packed else content) as members:
                files = [member for member in members if member.isfile() and not member.issparse()]
            places = {member.name.removeprefix("./"): (member.offset_data, member.size) for member in files}
            if any(begin + size > len(content) for begin, size in places.values()):
                raise tarfile.TarError("its last file ends early")
            return Tree(path, places, lambda place: content[place[0] : sum(place)], lambda _: path)
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
    places: dict[str, str] = {}
    remarks, visited, roots = [], set(), [path]

    def refuse(error: OSError) -> None:
        raise explain_os_error(error, error.filename, "read") from error

    for root in roots:  # and links to folders that are met in them, which come last, so that nothing is met twice
        around = root != path and path.resolve().is_relative_to(root.resolve())
        for folder, folders, files in os.walk(root, onerror=refuse):
            place, below = os.path.realpath(folder), Path(folder).relative_to(path)
            if around or place in visited:
                remarks.append(f"{below} is a link to a folder that is in the set already; left out.")
                folders.clear()
                continue
            visited.add(place)
            folders[:] = sorted(name for name in folders if hidden or not name.startswith("."))
            roots += [Path(folder, name) for name in folders if os.path.islink(os.path.join(folder, name))]
            places |= {(below / name).as_posix(): os.path.join(folder, name) for name in files}
    return Tree(path, places, _content, Path, remarks, hidden=hidden)


def _content(path: str) -> bytes:
    with open_regular(path) as file:
        check_fits(os.fstat(file.fileno()).st_size, path)
        return file.read()
