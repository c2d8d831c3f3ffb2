from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.data import write_zarr

from policy_accel.cli import main
from policy_accel.commands.data import run_fetch, run_inspect
from policy_accel.data import Episodes, Fetched
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.images import read_images
from policy_accel.data.readers import write_episodes
from policy_accel.errors import UserError


def inspect(path, resolution=None, sheet=None):
    return run_inspect(argparse.Namespace(path=str(path), resolution=resolution, layout=None, sheet=sheet))


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


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"run/config.yaml": "", "run/checkpoints/00000005/state.json": ""}, "a training run, no data; "),
        ({"run/config.json": '{"_class_name": "UNet2DModel"}', "run/diffusion_pytorch_model.bin": ""}, "of diffusers"),
        ({"run/config.json": "{}", "run/model.safetensors": ""}, "a trained policy or image model, no data; "),
        ({"run": "", "run.onnx": ""}, ""),
    ],
)
def test_inspect_of_a_model_names_the_command_that_looks_at_it(tmp_path, made, said):
    for name, text in made.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    place = tmp_path / ("run" if said else "run.onnx")
    with pytest.raises(UserError, match=f"{said}.*`policy-accel evaluate {place}` scores it"):
        inspect(place)


def test_a_file_that_may_be_anything_is_called_no_model(tmp_path):
    (tmp_path / "demos.pkl").write_bytes(b"x")
    with pytest.raises(UserError) as error:
        inspect(tmp_path / "demos.pkl")
    assert "model of EDM" not in str(error.value)


def test_inspect_of_damaged_demonstrations_does_not_speak_of_images(tmp_path, capsys):
    reader = MemoryReader(Episodes({"action": np.ones((40, 2), np.float32)}, [20, 40]))
    write_episodes(tmp_path / "cut", reader, "robomimic")
    os.truncate(tmp_path / "cut", (tmp_path / "cut").stat().st_size // 2)
    with pytest.raises(UserError, match="the HDF5 file is damaged") as error:
        inspect(tmp_path / "cut")
    assert "image set" not in str(error.value)
    write_episodes(tmp_path / "lerobot", reader, "lerobot")
    next(tmp_path.glob("lerobot/data/**/*.parquet")).unlink()
    assert inspect(tmp_path / "lerobot") == 2
    assert "parquet: does not exist" in (told := capsys.readouterr().out)
    assert "To train on it" not in told


def trained(printed, *overrides):
    """Run the command that `data inspect` ended with, made small."""
    lines = printed.splitlines()
    words = shlex.split(lines[lines.index("To train on it:") + 1])
    assert words[:2] == ["policy-accel", "train"]
    assert words[-1].startswith("run_dir=runs/")
    return main([*words[1:], "training.steps=1", "training.batch_size=4", "training.device=cpu", *overrides])


POLICY = ["model.down_dims=[8,16]", "model.kernel_size=3", "model.step_embedding_dim=8"]


@pytest.mark.parametrize("name", ["zarr", "robomimic", "npz", "lerobot", "short", "skipped", "pictures"])
def test_inspect_ends_with_a_command_that_trains(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    arrays = {key: generator.normal(size=(60, 2)).astype(np.float32) for key in ("action", "my pos", "b,c", "reward")}
    arrays["reward"] = arrays["reward"][:, 0]
    if name == "pictures":
        arrays = {"action": arrays["action"], "cam": generator.integers(0, 256, (60, 96, 96, 3)).astype(np.uint8)}
    if name == "skipped":
        arrays["action"][3] = np.nan
    ends = np.arange(5, 61, 5) if name == "short" else [20, 40, 60]
    path = tmp_path / "it's (my) set"
    written = {"zarr": "zarr", "robomimic": "robomimic", "lerobot": "lerobot"}.get(name, "npz")
    if name == "skipped":
        path = path.with_suffix(".npz")
        np.savez(path, episode_ends=ends, **arrays)
    else:
        write_episodes(path, MemoryReader(Episodes(arrays, ends)), written)
    assert inspect(path) == (2 if name == "skipped" else 0)
    assert (name == "pictures") == ("recipe=small_image" in (printed := capsys.readouterr().out))
    small = ["encoder.resnet.width=8", "encoder.resnet.group_channels=4"] if name == "pictures" else []
    assert trained(printed, *POLICY, *small, "run_dir=run") == 0
    heading = capsys.readouterr().err
    if name == "skipped":
        assert "2 episodes, 40 steps" in heading or "2 train" in heading
    elif name == "pictures":
        assert "sees      2 steps of cam (96 x 96 px" in heading
    else:
        assert any(f"sees      2 steps of {fields} (4 numbers)" in heading for fields in ("my pos, b,c", "b,c, my pos"))
    assert (tmp_path / "run/checkpoints/last").exists()


@pytest.mark.parametrize("form", ["labelled", "oblong", "folder"])
def test_inspect_of_images_ends_with_a_command_that_trains(tmp_path, capsys, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (80, 16, 16, 3)).astype(np.uint8)
    if form == "folder":
        for place, image in enumerate(images):
            (tmp_path / f"set/{place % 2}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / f"set/{place % 2}/{place}.png")
        (tmp_path / "set/1/bad.png").write_bytes(b"no picture")
    elif form == "oblong":
        np.savez(tmp_path / "set", images=images[:, :, :8])
    else:
        np.savez(tmp_path / "set", images=images, labels=np.arange(80) % 4)
    path = "set" if form == "folder" else "set.npz"
    assert inspect(path, 8 if form == "oblong" else None) == (2 if form == "folder" else 0)
    net = ["model.channels=8", "model.multipliers=[1,2]", "model.blocks=1", "model.heads=1"]
    small = ["model.attention_resolutions=[]", "evaluation.grid=4", "evaluation.video=false", "sampling.steps=1"]
    assert trained(capsys.readouterr().out, *net, *small, "run_dir=run") == 0
    assert (tmp_path / "run/evaluation.json").is_file()


def test_a_set_without_actions_says_how_to_name_them(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", pose=np.random.default_rng(0).normal(size=(40, 3)), episode_ends=[20, 40])
    assert inspect(tmp_path / "x.npz") == 0
    assert "task.action=KEY run_dir=runs/x\n  no key is called action: put" in capsys.readouterr().out


def test_the_sheet_is_drawn_where_it_is_asked_for(tmp_path, capsys):
    write_zarr(tmp_path / "x.zarr", Episodes({"action": np.ones((40, 2), np.float32)}, [20, 40]))
    inspect(tmp_path / "x.zarr", sheet=tmp_path / "sheet.png")
    assert f"Some episodes: {tmp_path}/sheet.png" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="is an image set, and --sheet draws demonstrations"):
        inspect(tmp_path / "x.npz", sheet=tmp_path / "other.png")


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
        (folder / name).touch()
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
