"""Networks that NVIDIA's libraries pickle with the source of their classes (EDM, EDM2): read as data, without running
any of it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.errors import UserError, one_line
from policy_accel.files import open_regular
from policy_accel.foreign.torch_zip import DEEPEST, MOST_VALUES, Husk, Reader, StoredTensor, check_opcodes, view

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""With which torch.save begins a file that is no zip."""


def read_pickle(path: Path) -> Any:
    """What was pickled: plain values, tensors, and a `Husk` for each object of a class, which is not looked for.

    Raises:
        UserError: the file cannot be read, or is no such pickle.
    """
    with open_regular(path) as file:
        if file.read(2) == b"PK":
            raise UserError(
                f"{path} is of torch.save, which EDM and EDM2 do not use for their networks; give a network-snapshot, "
                "or save its tensors as safetensors."
            )
        file.seek(0)
        try:
            check_opcodes(file)
            file.seek(0)
            return _Snapshot(file).load()
        except Exception as error:  # a damaged pickle raises anything
            raise UserError(
                f"{path} is no pickle of a network that can be read as data ({type(error).__name__}: "
                f"{one_line(error)[:100]}); it may be damaged: get it again, or save its tensors as safetensors."
            ) from error


def state_dict(module: Husk) -> dict[str, Tensor]:
    """Parameters and buffers of a pickled module by the names that torch gives them.

    Raises:
        ValueError: it is no module, or one with more parts than a network has.
    """
    return dict(_tensors(module, "", iter(range(MOST_VALUES)), 0))


def attributes(module: Any) -> dict[str, Any]:
    """What a pickled module keeps.

    Raises:
        ValueError: it is no module.
    """
    kept = getattr(module, "state", None)
    if not isinstance(kept, dict) or not isinstance(kept.get("_modules"), dict):
        raise ValueError("it holds no network")
    return kept


def _tensors(module: Any, prefix: str, left: Iterator[int], depth: int) -> Iterator[tuple[str, Tensor]]:
    if next(left, None) is None or depth > DEEPEST:
        raise ValueError("its network has too many parts")
    kept = attributes(module)
    for kind in ("_parameters", "_buffers"):
        for name, tensor in dict(kept.get(kind) or {}).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
    for name, part in kept["_modules"].items():
        if part is not None:
            yield from _tensors(part, f"{prefix}{name}.", left, depth + 1)


class _Snapshot(Reader):
    """Also makes tensors, of storages that the pickle has inside."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class or function of that name: one of ours."""
        known = {
            ("torch.storage", "_load_from_bytes"): _storage,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("dnnlib.util", "EasyDict"): dict,
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
        }
        return known.get((module, name)) or super().find_class(module, name)


def _persistent(meta: Any) -> Husk:
    """An object of a class whose source is pickled with it: its state, and the name of the class."""
    husk = Husk()
    husk.name, husk.state = str(meta["class_name"]), meta["state"]
    return husk


def _storage(content: Any) -> Tensor:
    """The numbers of a storage that torch.save wrote in its older form."""
    file = io.BytesIO(content)
    parts = [_plain(file) for _ in range(5)]
    magic, protocol, system, (dtype, key, count), keys = parts
    if (magic, protocol, keys) != (MAGIC, PROTOCOL, [key]) or system["little_endian"] is not True:
        raise ValueError("a storage of an unknown form")
    if sys.byteorder != "little":
        raise ValueError("numbers of another machine")
    held = int.from_bytes(file.read(8), "little")
    numbers = file.read()
    if held != count or len(numbers) != count * dtype.itemsize:
        raise ValueError("a storage of another size")
    return torch.frombuffer(bytearray(numbers), dtype=dtype) if count else torch.empty(0, dtype=dtype)


def _plain(file: io.BytesIO) -> Any:
    place = file.tell()
    check_opcodes(file)
    file.seek(place)
    return _Storage(file).load()


class _Storage(Reader):
    """Where the numbers of a storage lie, which has one more entry than in the newer form."""

    def persistent_load(self, pid: Any) -> tuple[torch.dtype, str, int]:
        """See `Reader.persistent_load`; a storage is whole."""
        if pid[5] is not None:
            raise ValueError("a part of a storage")
        return super().persistent_load(pid[:5])


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    entry = StoredTensor((storage.dtype, "", len(storage)), int(offset), tuple(map(int, size)), tuple(map(int, stride)))
    return view(storage, entry)
