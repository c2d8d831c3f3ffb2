"""Replay buffers and NPZ damaged in 40 seeded ways: read, or refused in one sentence, in little memory."""

from __future__ import annotations

import json
import random
import resource
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy_accel.data import Episodes, MemoryReader, inspect, read_episodes, write_episodes
from policy_accel.errors import UserError

WAYS = 40
ODD = [None, -1, 0, 10**9, 10**30, 1.5, "x", [], {}, True, [0], [-5, 2], [10**9, 2], [[[]]], "<f4", "|O"]
METADATA = (".zarray", ".zattrs", ".zgroup", ".json")


def changed_json(content: bytes, rng: random.Random) -> bytes:
    document = holder = json.loads(content)
    while isinstance(holder, dict | list) and len(holder):
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if not (isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.7):
            holder[key] = rng.choice(ODD)
            break
        holder = holder[key]
    return json.dumps(document).encode()


def damaged(content: bytes, name: str, rng: random.Random) -> bytes:
    way = rng.randrange(6)
    if name.endswith(METADATA) and way < 4:
        return changed_json(content, rng)
    if way == 0:
        return content[: rng.randrange(len(content) + 1)]
    if way == 1:
        return rng.choice([b"", b"[" * 200_000])
    spoiled = bytearray(content)
    for _ in range(rng.choice([1, 10, 100])):
        place = rng.randrange(len(spoiled)) if way < 4 else rng.randrange(min(len(spoiled), 24))
        spoiled[place] = rng.randrange(256)
    return bytes(spoiled)


def damage(path: Path, rng: random.Random) -> None:
    """Damage one file of a folder, one member of an archive, or the archive."""
    if path.is_dir():
        path = rng.choice(sorted(file for file in path.rglob("*") if file.is_file()))
    elif rng.random() < 0.5:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        chosen = rng.choice(sorted(members))
        members[chosen] = damaged(members[chosen], chosen, rng)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return
    path.write_bytes(damaged(path.read_bytes(), path.name, rng))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "form", "options"),
    [("x.zarr", "zarr", {}), ("x.zarr", "zarr", {"zarr_format": 3}), ("x.zarr.zip", "zarr", {}), ("x.npz", "npz", {})],
)
def test_damage_is_told_in_one_sentence(tmp_path: Path, name: str, form: str, options: dict[str, Any]) -> None:
    arrays = {"action": np.random.default_rng(0).normal(size=(40, 2)), "img": np.zeros((40, 8, 8, 3), np.uint8)}
    facts = ({"name": "a"}, {"filters": ["train"]})
    sound, path = tmp_path / f"sound{name}", tmp_path / name
    write_episodes(sound, MemoryReader(Episodes(arrays, [15, 40], "", {"fps": 10}, facts)), form, **options)
    before, said = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, list[str]()
    for way in range(WAYS):
        (shutil.copytree if sound.is_dir() else shutil.copyfile)(sound, path)
        damage(path, random.Random(f"{name}{options}{way}"))
        for look in (read_episodes, inspect):
            try:
                look(path)
            except UserError as error:
                said.append(str(error))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert len(said) > WAYS / 4
    assert [text for text in said if not text.startswith(str(path)) or "\n" in text] == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
