"""What torch.save wrote, read without running any of it: tensors, plain values, and husks of everything else."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.files import open_regular

LARGEST_PICKLE, MOST_OBJECTS = 2**26, 2**20
"""Bytes that describe the tensors, which of a network with its optimiser are some hundred kilobytes, and objects."""
MOST_VALUES, DEEPEST = 100_000, 30
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Husk:
    """An object whose class is not looked for: what it was made of, as data."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Husk:
        """A husk, whatever it is made of."""
        husk = super().__new__(cls)
        husk.name, husk.state = "", None
        return husk

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.name: str
        self.state: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Husk:
        """Another husk: a function that a file made is not called."""
        return Husk()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Items of a dictionary of a class of its own are left out."""

    def append(self, value: Any) -> None:
        """Items of a list of a class of its own are left out."""

    extend = add = append


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file, not read yet."""

    storage: tuple[torch.dtype, str, int]
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class TorchFile:
    """The content of a file that torch.save wrote as a zip.

    Attributes:
        path: of the file.
        content: what was saved, with a `StoredTensor` for each tensor and a `Husk` for all that is no plain value.
    """

    path: Path
    content: Any
    folder: str = field(repr=False, default="")

    @classmethod
    def open(cls, path: Path) -> TorchFile:
        """Read everything but the tensors' numbers.

        Raises:
            UserError: the file cannot be read, or torch.save did not write it so.
        """
        with open_regular(path) as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    name = next(name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"])
                    folder = name.removesuffix("data.pkl")
                    order = f"{folder}byteorder"
                    if order in archive.namelist() and _small(archive, order) != b"little":
                        raise ValueError("its numbers are not little-endian")
                    info = archive.getinfo(name)
                    if info.file_size > LARGEST_PICKLE or info.compress_type != zipfile.ZIP_STORED:
                        raise ValueError("what describes its tensors is too large, or compressed")
                    pickled = archive.read(info)
                    check_opcodes(pickled)
                    return cls(path, Reader(io.BytesIO(pickled)).load(), folder)
            except Exception as error:  # a damaged pickle raises anything
                raise UserError(
                    f"{path} is not a checkpoint that torch.save wrote as a zip ({type(error).__name__}: "
                    f"{' '.join(str(error).split())[:100]}); it may be damaged, or older than torch 1.6."
                ) from error

    def tensors(self, stored: dict[str, StoredTensor]) -> dict[str, Tensor]:
        """The numbers of some tensors.

        Raises:
            UserError: they are not in the file as it says.
        """
        storages: dict[str, Tensor] = {}
        found = {}
        with open_regular(self.path) as file, zipfile.ZipFile(file) as archive:
            for name, entry in stored.items():
                try:
                    key = entry.storage[1]
                    if key not in storages:
                        storages[key] = self._storage(archive, entry)
                    found[name] = view(storages[key], entry)
                except (KeyError, ValueError, TypeError, OverflowError, RuntimeError, zipfile.BadZipFile) as error:
                    raise UserError(
                        f"{self.path} is damaged: its tensor {name} cannot be read ({type(error).__name__}); get the "
                        "file again."
                    ) from error
        return found

    def _storage(self, archive: zipfile.ZipFile, entry: StoredTensor) -> Tensor:
        dtype, key, count = entry.storage
        info = archive.getinfo(f"{self.folder}data/{key}")
        if info.file_size != count * dtype.itemsize or info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("another size")
        content = bytearray(archive.read(info))
        return torch.frombuffer(content, dtype=dtype) if count else torch.empty(0, dtype=dtype)


def shapes_of(stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Empty tensors of their shapes."""
    return {name: torch.empty(entry.size, device="meta") for name, entry in stored.items()}


def view(storage: Tensor, entry: StoredTensor) -> Tensor:
    """The tensor, a copy of its part of the storage."""
    if math.prod(entry.size) > len(storage) or min((0, entry.offset, *entry.size, *entry.stride)) < 0:
        raise ValueError("larger than what holds it")
    return storage.as_strided(entry.size, entry.stride, entry.offset).clone(memory_format=torch.contiguous_format)


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of an entry of some bytes; nothing of a larger one."""
    return archive.read(name) if archive.getinfo(name).file_size <= 16 else b""


def check_opcodes(pickled: bytes | IO[bytes]) -> None:
    """Refuse a pickle that asks for more memory than it has bytes for.

    Raises:
        ValueError: it does, or is damaged.
    """
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > MOST_OBJECTS:
            raise ValueError(f"it numbers more than {MOST_OBJECTS:,} objects")


class Reader(pickle.Unpickler):
    """Makes dictionaries, lists, numbers, texts, `StoredTensor` and `Husk`. Nothing is imported, nothing is called."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class or function of that name: one of ours."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _tensor if name == "_rebuild_tensor_v2" else _first
        if module in ("torch", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        return type(name, (Husk,), {}) if name.isidentifier() else Husk  # named, for what is said of it

    def persistent_load(self, pid: Any) -> tuple[torch.dtype, str, int]:
        """Where the numbers of a tensor lie."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError("a storage of an unknown type")
        return dtype, str(key), int(count)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> StoredTensor:
    return StoredTensor(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _first(data: Any, *_: Any) -> Any:
    return data


def plain(value: Any) -> Any:
    """Plain values of a configuration: dictionaries, lists, numbers and texts, also those inside OmegaConf's nodes;
    None for anything else, and behind `MOST_VALUES` of them."""
    left = MOST_VALUES

    def found(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > DEEPEST:
            return None
        if isinstance(value, Husk):
            state = value.state if isinstance(value.state, dict) else {}
            return found(state.get("_content", state.get("_val")), depth + 1)
        if isinstance(value, dict):
            return {str(key): found(part, depth + 1) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [found(part, depth + 1) for part in value]
        return value if isinstance(value, str | int | float | bool) else None

    return found(value, 0)
