from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.data import write_zarr

from policy_accel.commands.data import run_fetch, run_inspect
from policy_accel.data import Episodes, Fetched
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.images import read_images
from policy_accel.data.readers import write_episodes
from policy_accel.errors import UserError


def inspect(path, resolution=None):
    return run_inspect(argparse.Namespace(path=path, resolution=resolution, layout=None))


def test_inspect_takes_what_ships(capsys):
    assert inspect(Path("shipped:shapes.npz")) == 0
    assert "train: 8192 images of 3 x 24 x 24 (uint8)" in capsys.readouterr().out


def test_inspect_still_takes_demonstrations(tmp_path, capsys):
    action = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    write_zarr(tmp_path / "x.zarr.zip", Episodes({"action": action}, [20, 40]))
    assert inspect(tmp_path / "x.zarr.zip") == 0
    assert "episodes: 2, steps: 40" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"holds demonstrations, for which --resolution=8 means nothing"):
        inspect(tmp_path / "x.zarr.zip", 8)


def test_inspect_at_a_resolution(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 10, 3), np.uint8))
    assert inspect(tmp_path / "x.npz") == 2
    assert "give task.resolution=SIZE" in capsys.readouterr().out
    assert inspect(tmp_path / "x.npz", 4) == 0
    assert "train: 2 images of 3 x 4 x 4" in capsys.readouterr().out


def test_inspect_of_a_problem(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=[0])
    assert inspect(tmp_path / "x.npz") == 2
    assert "problem: " in capsys.readouterr().out


def test_inspect_of_neither(tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match=r"text: not a replay buffer.*; nor is it an image set, of which known are"):
        inspect(tmp_path / "text")
    with pytest.raises(UserError, match=r"nope: does not exist"):
        inspect(tmp_path / "nope")


@pytest.mark.parametrize(("name", "words"), [("robomimic", "truncated or damaged"), ("lerobot", "does not exist")])
def test_inspect_of_damaged_demonstrations_does_not_speak_of_images(tmp_path, name, words):
    path = tmp_path / "cut"
    write_episodes(path, MemoryReader(Episodes({"action": np.ones((40, 2), np.float32)}, [20, 40])), name)
    if path.is_dir():
        next(path.glob("data/**/*.parquet")).unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match=words) as error:
        inspect(path)
    assert "image set" not in str(error.value)


def test_inspect_of_images_beside_a_file_that_is_called_as_lerobots(tmp_path, capsys):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text("{}")
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / kind / "0.png")
    assert inspect(tmp_path) == 0
    assert "2 images of 3 x 8 x 8" in capsys.readouterr().out


@pytest.mark.parametrize(("images", "hint"), [(True, "train task=toy task.data="), (False, "train task.data=")])
def test_fetch_says_what_to_do_next(tmp_path, monkeypatch, capsys, images, hint):
    def fetch(name, folder, *, progress):
        progress(1, 2)
        progress(2, 2)
        return Fetched(folder / name, True, f"{name} is here.", images)

    monkeypatch.setattr("policy_accel.commands.data.fetch", fetch)
    assert run_fetch(argparse.Namespace(name="toy", to=tmp_path)) == 0
    captured = capsys.readouterr()
    assert captured.out == "toy is here.\n"
    assert hint in captured.err
    assert "fetch: 2/2 bytes" in captured.err


def test_fetched_set_is_read_where_it_lies(tmp_path, shared_data, monkeypatch):
    """The folder that the command names is what `read_images` takes."""
    from policy_accel.data import fetch

    files = []
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        content = (shared_data / "mnist" / name).read_bytes()
        (tmp_path / "to/mnist").mkdir(parents=True, exist_ok=True)
        (tmp_path / "to/mnist" / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append({"address": "https://nowhere.invalid", "file": name, "bytes": len(content), "sha256": digest})
    (tmp_path / "mnist.json").write_text(json.dumps({"kind": "images", "folder": "mnist", "files": files}))
    result = fetch("mnist", tmp_path / "to", manifest_dir=tmp_path)
    assert len(read_images(result.path, "test")) == 10_000
