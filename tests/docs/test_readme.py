"""The commands and the code of README are run, with tiny networks, few updates and few demonstrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.data import write_zarr
from support.following import IMAGES, ROBOTS, few_shapes, follow, run_line, write_pusht

from policy_accel.data import Episodes
from policy_accel.images.sets import load_split

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
NOT_RUN = [  # they set up the machine, need a network or a device, never end, or run in the tests of other pages
    "make demo",
    "make test",
    "policy-accel data fetch cifar10",
    "policy-accel train task=cifar10 recipe=edm_cifar10",
    "torchrun --standalone --nproc_per_node=gpu -m policy_accel train run_dir=runs/mine",
    "policy-accel serve runs/demo",
    "policy-accel sweep method=baseline,kl seed=1,2,3 training.steps=2000",
    "policy-accel compare runs/sweeps/pusht_keypoints-method-seed",
    "policy-accel benchmark time-to-score plan.yaml",
]
NET = "model.down_dims=[8,16]"
TRAIN = [*(word for word in ROBOTS["train"] if not word.startswith("training.batch")), "training.batch_size=8", NET]
SMALL = {
    "train": [*TRAIN, "evaluation.videos=0", "task.max_steps=8", "task.val_ratio=0.4", "run_dir=runs/COMMAND"],
    "train task=custom_images": [*IMAGES["train"], "run_dir=runs/pictures"],
    "demo": [*TRAIN, "evaluation.videos=0", "task.max_steps=8"],
    "demo images": IMAGES["train"],
    "evaluate": [*ROBOTS["evaluate"], "--videos", "0"],
    "evaluate runs/mine --data": [],
    "evaluate runs/demo-images": IMAGES["evaluate"],
    "sample": ["--count", "2"],
}
MY_ROBOT = """
import gymnasium
import numpy as np


class MyRobot(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(0, 512, (5,))})
    action_space = gymnasium.spaces.Box(0, 512, (2,))

    def reset(self, *, seed=None, options=None):
        return {"state": np.zeros(5, np.float32)}, {}

    def step(self, action):
        return {"state": np.zeros(5, np.float32)}, 0.5, False, False, {}


gymnasium.register("MyRobot-v0", MyRobot)
"""


def test_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("policy_accel.images.track.load_split", few_shapes(load_split))
    write_pusht(Path("my_demonstrations.zarr.zip"))
    rng = np.random.default_rng(1)
    arrays = {"state": rng.uniform(0, 512, (60, 5)).astype("f4"), "action": rng.uniform(0, 512, (60, 2)).astype("f4")}
    write_zarr(Path("new.zarr.zip"), Episodes(arrays, np.array([30, 60])))
    Path("my_robot.py").write_text(MY_ROBOT)
    for number in range(80):
        folder = Path("my_pictures", "cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
    run_line("policy-accel demo", SMALL)  # of `make demo`
    known = {"observation": np.zeros(20)}
    run = follow(README, SMALL, indented=True, not_run=NOT_RUN, known=known)
    assert len(run) == 10
