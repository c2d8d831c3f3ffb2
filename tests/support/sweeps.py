"""Sweeps of tiny runs, one of which waits half-way where a test says so, and the examples of the page."""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from support.data import write_zarr

from policy_accel.data import Episodes
from policy_accel.policy.track import ROBOT
from policy_accel.sweep.folder import Sweep, open_folder
from policy_accel.sweep.job import START
from policy_accel.sweep.prepare import check, read_order, sweep_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how_to" / "many_runs.md").read_text()
TINY = {
    "task.data": "made.zarr.zip",
    "model.hidden_dims": "[16]",
    "model.step_embedding_dim": "8",
    "training.steps": "8",
    "training.batch_size": "8",
    "training.device": "cpu",
    "training.threads": "1",
    "training.checkpoint.every": "2",
    "training.logging.every": "2",
    "evaluation.episodes": "0",
    "plugins": "[watched]",
}
# Only in the process of a run: the one that is held waits before update 6, the one that is to fail does.
PLUGIN = """
import os, sys, time
from policy_accel.errors import UserError
from policy_accel.training import loop

advance = loop.Run.advance

def watched(self):
    name = self.run_dir.name
    if self.step == 5 and os.path.exists(f"fail-{name}"):
        raise UserError("the cable is out; put it back.")
    if self.step == 5 and os.path.exists(f"hold-{name}"):
        open(f"reached-{name}", "w").close()
        while os.path.exists(f"hold-{name}"):
            time.sleep(0.05)
    advance(self)

if sys.argv[1:2] == ["train"]:
    loop.Run.advance = watched
"""


def examples() -> list[list[str]]:
    """The sweeps of the page's examples, as arguments of `policy-accel sweep`."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [words[2:] for words in lines if words[:2] == ["policy-accel", "sweep"] and "--status" not in words]


def tiny(words: list[str], **changed: str) -> list[str]:
    """The arguments with little work in place of theirs."""
    given = TINY | changed
    return [word for word in words if word.partition("=")[0] not in given] + [f"{k}={v}" for k, v in given.items()]


def furnish(folder: Path) -> None:
    """Demonstrations, the plugin, and the files of the page."""
    generator = np.random.default_rng(0)
    arrays = {key: generator.uniform(0, 512, (90, n)).astype("f4") for key, n in (("state", 5), ("action", 2))}
    write_zarr(folder / "made.zarr.zip", Episodes(arrays, np.array([30, 60, 90])))
    (folder / "watched.py").write_text(PLUGIN)
    for name, text in re.findall(r"^`([\w.]+)`\n\n```yaml\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE):
        (folder / name).write_text(text)


def prepared(words: list[str], threads: int = 1) -> Sweep:
    """The sweep of these arguments, on the disk and not begun; `threads` if it is a new one."""
    order = read_order(words)
    configs = check(order)
    sweep, lock = open_folder(order.folder, lambda old: sweep_of(order, configs, old, threads))
    lock.close()
    return sweep


def wait_for(what: Callable[[], object], seconds: float = 120.0) -> None:
    """Until it is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def worker_of(run: str) -> int:
    """The process that looks after a run: the parent of the run's."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and (process / "cmdline").exists():
            words = (process / "cmdline").read_text().split("\0")
            if START in words and any(word.startswith("run_dir=") and word.endswith(f"/{run}'") for word in words):
                return int(words[words.index(START) + 1])
    raise AssertionError(f"nobody trains {run}")


def undisturbed(sweep: Sweep, name: str) -> dict[str, str]:
    """What the run's checkpoint holds when `train` makes it in one go in this process."""
    overrides = [word for word in sweep.runs[name].overrides if not word.startswith("plugins=")]
    run_dir = Path("undisturbed", sweep.folder.name, name)
    ROBOT.train(ROBOT.config([*overrides, f"run_dir={run_dir}"]))
    return digests(run_dir)


def digests(run_dir: Path) -> dict[str, str]:
    """SHA-256 of weights, averages and moments of the last checkpoint."""
    files = sorted((run_dir / "checkpoints" / "last").glob("*.safetensors"))
    assert len(files) == 3
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def assert_equal_to_undisturbed(sweep: Sweep, *names: str) -> None:
    """Runs of a sweep, or all of them, have the bits of runs that nobody disturbed."""
    for name in names or sweep.runs:
        assert sweep.job(name).state == "done", sweep.job(name)
        assert digests(sweep.run_dir(name)) == undisturbed(sweep, name), name
