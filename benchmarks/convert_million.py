"""Peak memory and speed of converting a large low-dimensional set between the formats.

    python benchmarks/convert_million.py --steps 1000000

Makes a set like robomimic's Can (object 14, eef_pos 3, eef_quat 4, gripper_qpos 2, sim_state 71 as float64; action 7,
reward, done) of random values in episodes of 50 to 350 steps, writes it as a replay buffer, and converts it from
there to every format and back, each conversion in a process of its own (Linux only: the peak is VmHWM of /proc).
Recorded for each: seconds, steps per second, bytes on the disk, peak resident memory, and the same for a process that
opens the input and reads a single step ("idle"), so that the difference is what the conversion itself needs. Then the
last replay buffer is compared with the first one, bit by bit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from results import RESULTS, write_result

from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.readers import open_episodes, write_episodes

F8 = np.dtype(np.float64)
FEATURES = {
    "action": Feature((7,), F8),
    "done": Feature((), np.dtype(np.int64)),
    "object": Feature((14,), F8),
    "reward": Feature((), F8),
    "robot0_eef_pos": Feature((3,), F8),
    "robot0_eef_quat": Feature((4,), F8),
    "robot0_gripper_qpos": Feature((2,), F8),
    "sim_state": Feature((71,), F8),
}
SUFFIXES = {"zarr": ".zarr.zip", "robomimic": ".hdf5", "npz": ".npz", "lerobot": ""}


class RandomReader(EpisodeReader):
    """Random episodes, made when they are read: episode i depends on the seed and i alone."""

    format = "random"
    layout = "made when read"

    def __init__(self, steps: int, seed: int) -> None:
        super().__init__("random")
        lengths = np.random.default_rng(seed).integers(50, 351, size=steps // 50 + 1)
        ends = np.cumsum(lengths)
        count = int(np.searchsorted(ends, steps)) + 1
        self.episode_ends = np.append(ends[: count - 1], steps).astype(np.int64)
        self.features, self.seed = FEATURES, seed
        self.metadata: dict[str, Any] = {
            "env_args": {"env_name": "PickPlaceCan", "type": 1, "env_kwargs": {}},
            "fps": 20,
        }

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        return {"filters": ["valid" if episode % 10 == 0 else "train"], "model_file": f"<mujoco model='{episode}'/>"}

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        length = int(np.diff(self.episode_ends, prepend=0)[episode])
        values = {}
        for number, (key, feature) in enumerate(self.features.items()):
            rng = np.random.default_rng([self.seed, episode, number])
            if key in keys:
                whole = rng.integers(0, 2, length) if key == "done" else rng.standard_normal((length, *feature.shape))
                values[key] = whole[start:stop]
        return values


CHILD = """
import json, re, sys, time
from policy_accel.data.readers import open_episodes, write_episodes
source, target, name = sys.argv[1:]
started = time.perf_counter()
with open_episodes(source) as reader:
    if name == "idle":
        reader.read(0, stop=1)
    else:
        write_episodes(target, reader, name)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)
print(json.dumps([time.perf_counter() - started, int(peak) / 1024]))
"""


def converted(source: Path, target: Path, name: str, steps: int) -> dict[str, Any]:
    """Figures of one conversion, in a process of its own."""

    def run(what: str) -> list[float]:
        done = subprocess.run([sys.executable, "-c", CHILD, source, target, what], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    idle = run("idle")[1]
    seconds, peak = run(name)
    files = [target] if target.is_file() else [file for file in target.rglob("*") if file.is_file()]
    figures = {
        "seconds": round(seconds, 1),
        "steps_per_second": round(steps / seconds),
        "megabytes_on_disk": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        "peak_megabytes": round(peak, 1),
        "idle_megabytes": round(idle, 1),
    }
    print(f"{source.name} -> {target.name}: {figures}", file=sys.stderr)
    return figures


def equal(first: Path, second: Path) -> bool:
    """Whether two sets hold the same keys, episodes, facts and bits."""
    with open_episodes(first) as one, open_episodes(second) as other:
        if one.features != other.features or one.metadata != other.metadata:
            return False
        if not np.array_equal(one.episode_ends, other.episode_ends):
            return False
        for episode in range(len(one.episode_ends)):
            a, b = one.read(episode), other.read(episode)
            if one.episode_metadata(episode) != other.episode_metadata(episode):
                return False
            if any(a[key].tobytes() != b[key].tobytes() for key in a):
                return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", default=list(SUFFIXES), choices=list(SUFFIXES))
    parser.add_argument("--output", type=Path, default=RESULTS / "convert_million_cpu.json")
    options = parser.parse_args()
    bytes_each = sum(int(np.prod(feature.shape)) * feature.dtype.itemsize for feature in FEATURES.values())
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder, "first.zarr.zip")
        started = time.perf_counter()
        made = RandomReader(options.steps, options.seed)
        write_episodes(first, made, "zarr")
        print(f"{first.name} made in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        figures = {}
        for name in options.formats:
            there, back = Path(folder, f"there{SUFFIXES[name]}"), Path(folder, "back.zarr.zip")
            figures[name] = {
                "from_zarr": converted(first, there, name, options.steps),
                "to_zarr": converted(there, back, "zarr", options.steps),
                "equal": equal(first, back),
            }
            back.unlink()
        result = {
            "steps": options.steps,
            "episodes": len(made.episode_ends),
            "megabytes_in_memory": round(bytes_each * options.steps / 1e6, 1),
            "seeds": [options.seed],
            "formats": figures,
        }
    write_result(options.output, result)


if __name__ == "__main__":
    main()
