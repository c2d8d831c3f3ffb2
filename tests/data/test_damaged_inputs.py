"""Every form damaged in 40 seeded ways: a right value, or one that a remark tells of, or one sentence.

Never another exception, a wait without an end, more than 2 GB, or a file that has changed. What flips bits of values
may change them where a format has no checksum. The bytes of LeRobot's tables and of image files have tests of their own
(formats/lerobot/test_damage.py, images/test_damage.py); here their files are missing, swapped, pipes and loops.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image
from support.damage import damage

from policy_accel.data import Episodes, MemoryReader, inspect, read_episodes, write_episodes
from policy_accel.data.images import read_images
from policy_accel.errors import UserError
from policy_accel.policy.track import ROBOT
from policy_accel.run_files import read_metrics
from policy_accel.training.checkpoint import best_checkpoint

WAYS = 40
SECONDS = 10
ARRAYS = {
    "action": np.arange(80, dtype=np.float32).reshape(40, 2),
    "state": np.linspace(0, 1, 120).reshape(40, 3),
    "reward": np.arange(40.0),
}
ENDS = [12, 25, 40]


def demonstrations(path: Path, form: str, **options: Any) -> Path:
    facts = tuple({"filters": ["some"] if episode else []} for episode in range(3))
    write_episodes(path, MemoryReader(Episodes(ARRAYS, ENDS, episode_metadata=facts)), form, **options)
    return path


def make_plain_zarr(root: Path) -> Path:
    group = zarr.open_group(root / "set", mode="w", zarr_format=2)
    for key, values in ARRAYS.items():
        group.create_array(f"data/{key}", data=values, chunks=(10, *values.shape[1:]))
    group.create_array("meta/episode_ends", data=np.array(ENDS))
    return root / "set"


def make_plain_npz(root: Path) -> Path:
    np.savez(root / "set.npz", episode_ends=ENDS, **ARRAYS)
    return root / "set.npz"


def make_aloha(root: Path) -> Path:
    (root / "set").mkdir()
    for episode, rows in enumerate(np.split(np.arange(40), ENDS[:-1])):
        with h5py.File(root / f"set/episode_{episode}.hdf5", "w") as file:
            file["action"], file["observations/qpos"] = ARRAYS["action"][rows], ARRAYS["state"][rows]
            file["observations/images/top"] = np.zeros((len(rows), 8, 8, 3), np.uint8)
    return root / "set"


def make_minari(root: Path) -> Path:
    (root / "set/data").mkdir(parents=True)
    facts = {"total_episodes": 3, "total_steps": 40, "dataset_id": "a/b-v0", "minari_version": "0.5"}
    box = {"type": "Box", "dtype": "float64", "shape": [3], "low": [-1, -1, -1], "high": [1, 1, 1]}
    spaces = {"observation_space": json.dumps(box), "action_space": json.dumps(box | {"shape": [2]})}
    (root / "set/data/metadata.json").write_text(json.dumps(facts | spaces | {"data_format": "hdf5"}))
    with h5py.File(root / "set/data/main_data.hdf5", "w") as file:
        file.attrs.update(total_episodes=3, total_steps=40)
        for episode, rows in enumerate(np.split(np.arange(40), ENDS[:-1])):
            group = file.create_group(f"episode_{episode}")
            group.attrs.update(id=episode, total_steps=len(rows))
            group["actions"], group["rewards"] = ARRAYS["action"][rows], ARRAYS["reward"][rows]
            group["observations"] = ARRAYS["state"][[*rows, rows[-1]]]
            for name in ("terminations", "truncations"):
                group[name] = np.zeros(len(rows), bool)
    return root / "set"


def make_images(root: Path) -> Path:
    for part in ("train", "test"):
        for number in range(6):
            path = root / f"set/{part}/{number % 2}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(path)
    return root / "set"


def make_run(root: Path) -> Path:
    made = demonstrations(root.parent / "for_the_run.zarr", "zarr")
    net = ["model.down_dims=[8,16]", "model.kernel_size=3", "model.step_embedding_dim=8", "training.device=cpu"]
    task = ["task=custom", f"task.data={made}", "task.observation=[state]", "task.action=action"]
    ROBOT.train(ROBOT.config([*task, *net, "training.steps=2", "training.batch_size=8", f"run_dir={root}/set"]))
    (root / "set/checkpoints/00000002/evaluation.json").write_text('{"score": 0.5, "episodes": []}')
    return root / "set"


def read_data(path: Path) -> dict[str, np.ndarray]:
    inspect(path)
    return read_episodes(path).arrays


def read_pictures(path: Path) -> dict[str, np.ndarray]:
    found = read_images(path, "train", cache_dir=path.parent.parent / "cache")
    assert found is not None
    return {"images": found.images}


def read_run(path: Path) -> dict[str, np.ndarray]:
    read_metrics(path / "metrics.jsonl")
    best_checkpoint(path / "checkpoints")
    state = ROBOT.load(path).policy.state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}


FORMS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], dict[str, np.ndarray]]]] = {
    "zarr v2": (make_plain_zarr, read_data),
    "zarr v3": (lambda root: demonstrations(root / "set", "zarr", zarr_format=3), read_data),
    "zarr zip": (lambda root: demonstrations(root / "set.zip", "zarr", zarr_format=2), read_data),
    "npz": (make_plain_npz, read_data),
    "own npz": (lambda root: demonstrations(root / "set.npz", "npz"), read_data),
    "robomimic": (lambda root: demonstrations(root / "set.hdf5", "robomimic"), read_data),
    "minari": (make_minari, read_data),
    "aloha": (make_aloha, read_data),
    "lerobot": (lambda root: demonstrations(root / "set", "lerobot"), read_data),
    "images": (make_images, read_pictures),
    "run": (make_run, read_run),
}
LOOSE = ("aloha", "images")
"""Forms that nothing tells how many files they have."""


def contents(root: Path) -> dict[str, str]:
    """What lies below a folder: digests of files, targets of links, kinds of the rest."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            elif path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = "folder" if path.is_dir() else "pipe"
    return found


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"no answer after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("form", FORMS)
def test_damaged_inputs(form: str, tmp_path: Path) -> None:
    make, read = FORMS[form]
    (tmp_path / "whole").mkdir()
    place = make(tmp_path / "whole").name
    whole = read(tmp_path / "whole" / place)
    refused, wrong = 0, []
    for seed in range(WAYS):
        chance, root = random.Random(f"{form} {seed}"), tmp_path / "case"
        shutil.copytree(tmp_path / "whole", root, symlinks=True)
        name, may_change = damage(root, chance, loose=form in LOOSE)
        before, case = contents(root), f"{form}, seed {seed}, {name}"
        try:
            with in_time(), warnings.catch_warnings(record=True) as remarks:
                warnings.simplefilter("always")
                found = read(root / place)
        except UserError as error:
            refused += 1
            if "\n" in str(error) or len(str(error)) > 1500 or "Traceback" in str(error):
                wrong.append(f"{case}: not one sentence: {str(error)[:300]}")
        except BaseException as error:
            wrong.append(f"{case}: {type(error).__name__}: {str(error)[:300]}")
        else:
            if not remarks and not may_change:
                for key, values in found.items():
                    if not np.array_equal(values, whole[key]):
                        wrong.append(f"{case}: other values of {key} without a remark")
        if contents(root) != before:
            wrong.append(f"{case}: files have changed")
        shutil.rmtree(root)
    assert not wrong, "\n".join(wrong)
    assert refused > WAYS // 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 2**20
