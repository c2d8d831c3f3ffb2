"""What may happen to a file: each function does one thing to it, and returns True when values may change unseen."""

from __future__ import annotations

import contextlib
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ODD: list[Any] = [None, -1, 10**30, 1e300, "x", "", [], {}, True, [[1]], "\ud800", 2**62]
DEEP = "[" * 100_000 + "]" * 100_000


def cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size + 1))


def flip(path: Path, chance: random.Random) -> bool:
    content = bytearray(path.read_bytes() or b"x")
    for _ in range(chance.choice([1, 8, 64])):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)
    return True


def remove(path: Path, chance: random.Random) -> None:
    path.unlink()


def become_a_pipe(path: Path, chance: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_folder(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def become_a_loop(path: Path, chance: random.Random) -> None:
    if chance.random() < 0.5:
        path.unlink()
        path.symlink_to(path.name)
    else:
        (path.parent / "again").symlink_to(path.parent, target_is_directory=True)


def swap(path: Path, chance: random.Random) -> bool:
    other = chance.choice(sorted(file for file in path.parent.iterdir() if file.is_file()))
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)
    return True


def change_text(path: Path, chance: random.Random) -> bool:
    """A value of a JSON file, or of one line of YAML, becomes another one."""
    text = path.read_text()
    if path.suffix == ".yaml":
        lines = text.splitlines()
        place = chance.randrange(len(lines))
        lines[place] = lines[place].partition(":")[0] + ": " + chance.choice([DEEP, "-1", "1e999", "{}", "x", "[1"])
        path.write_text("\n".join(lines))
        return True
    first, *more = text.splitlines() if path.suffix == ".jsonl" else [text]
    path.write_text("\n".join([changed_json(first, chance), *more]))
    return True


def changed_json(text: str, chance: random.Random) -> str:
    values = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            visit(node[key])

    visit(values)
    if not places or chance.random() < 0.1:
        return chance.choice([DEEP, "[]", "null", "3", "", "{"])
    node, key = chance.choice(places)
    if chance.random() < 0.2:
        del node[key]
    else:
        node[key] = chance.choice([*ODD, "DEEP"])
    return json.dumps(values).replace('"DEEP"', DEEP)


def change_member(path: Path, chance: random.Random) -> bool:
    """An array of an NPZ, or a file of a zip, becomes another one, or is gone."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(sorted(members))
    content = members.pop(name)
    way = chance.randrange(4)
    if way < 3 and name.endswith(".npy"):
        odd = [np.float64("nan"), np.array(["a"]), np.zeros(0), np.full(3, -1), np.zeros((40, 0)), np.full(3, 2**62)]
        np.save(path.parent / "odd.npy", chance.choice(odd))
        members[name] = (path.parent / "odd.npy").read_bytes()
        (path.parent / "odd.npy").unlink()
    elif way < 3:
        changed = changed_json(content.decode(), chance).encode() if content[:1] in b"{[" else content[:-1]
        members[name] = changed
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return True


def change_hdf5(path: Path, chance: random.Random) -> bool:
    """An array, a group or an attribute becomes another one, or is gone."""
    with h5py.File(path, "a") as file:
        found: list[str] = []
        file.visit(found.append)
        name = chance.choice(sorted(found))
        item = file[name]
        if item.attrs and chance.random() < 0.4:
            key = chance.choice(sorted(item.attrs))
            odd = [-1, 2**62, "x", np.zeros(3), float("nan"), b"\xff\xfe", DEEP]
            item.attrs[key] = chance.choice(odd[:-1]) if chance.random() < 0.8 else h5py.Empty("f")
            return True
        shape = getattr(item, "shape", (40,))
        del file[name]
        match chance.randrange(6):
            case 0:
                file.create_group(name)
            case 1:
                file[name] = np.zeros((*shape[:1], 5), np.int8)
            case 2:
                file[name] = "text"
            case 3:
                file.create_dataset(name, (10**9, 2), "f4", chunks=(1000, 2))
            case 4:
                file[name] = h5py.SoftLink(chance.choice(["/", name, "/nowhere"]))
    return True


ANYWHERE = [cut, flip, remove, become_a_pipe, become_a_folder, become_a_loop, swap]


def damage(root: Path, chance: random.Random, *, loose: bool = False) -> tuple[str, bool]:
    """Damage one file below a folder; what was done, and whether values may change without a sign of it: of a `loose`
    form nothing tells how many files it has."""
    path = chance.choice(sorted(file for file in root.rglob("*") if file.is_file() and file.name != "last"))
    ways: list[Callable[[Path, random.Random], bool | None]] = list(ANYWHERE)
    if path.suffix in (".json", ".jsonl", ".yaml") or path.name in (".zarray", ".zgroup", ".zattrs"):
        ways += [change_text] * 8
    if path.suffix in (".zip", ".npz"):
        ways += [change_member] * 8
    if path.suffix == ".hdf5":
        ways += [change_hdf5] * 8
    way = chance.choice(ways)
    with contextlib.suppress(IndexError):  # nothing in it to change
        return f"{way.__name__} {path.relative_to(root)}", bool(way(path, chance)) or (loose and way is not cut)
    return "nothing", True
