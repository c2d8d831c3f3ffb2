"""Conversions of a set many times larger than the memory that they may take; an NPZ is held in memory as a whole."""

import subprocess
import sys

import pytest

ALLOWED_MEGABYTES = 80
OF_CODECS = 50  # what the encoder, the decoder and pyarrow's own pool take, however large the set
SET_MEGABYTES = 200

MAKE = """
import re, sys
import numpy as np
from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.readers import open_episodes, write_episodes

class Made(EpisodeReader):
    source = format = layout = "made"
    features = {"action": Feature((7,), np.dtype("f8")), "image": Feature((128, 128, 3), np.dtype("u1")),
                "state": Feature((93,), np.dtype("f8"))}
    episode_ends = np.cumsum(np.full(STEPS // 500, 500))
    metadata = {}
    def episode_metadata(self, episode):
        return {"model_file": str(episode) * 10_000}
    def _read(self, episode, keys, start, stop):
        return {key: np.full((stop - start, *self.features[key].shape), episode, self.features[key].dtype)
                for key in keys}

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) / 1024

import h5py, zarr, numcodecs, zarr.codecs, zarr.storage
import policy_accel.data.formats.robomimic
import policy_accel.data.formats.replay_buffer
import av, policy_accel.data.formats.lerobot.reader, policy_accel.data.formats.lerobot.writer
before = peak()
first, second, to, then = sys.argv[1:]
write_episodes(first, Made("made"), to)
with open_episodes(first) as reader:
    write_episodes(second, reader, then)
print(peak() - before)
""".replace("STEPS", str(SET_MEGABYTES * 1_000_000 // (8 * 100 + 128 * 128 * 3) // 500 * 500))


@pytest.mark.parametrize(("to", "then"), [("zarr", "robomimic"), ("robomimic", "zarr"), ("lerobot", "robomimic")])
def test_conversion_takes_little_memory(tmp_path, to, then):
    command = [sys.executable, "-c", MAKE, tmp_path / "a.zip", tmp_path / "b.zip", to, then]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < ALLOWED_MEGABYTES + (OF_CODECS if to == "lerobot" else 0)


MANY = """
import re, sys
import h5py, numpy as np
from policy_accel.data.readers import open_episodes

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) / 1024

if sys.argv[2] == "write":
    with h5py.File(sys.argv[1], "w") as file:
        for demo in range(1500):
            for key in ("actions", "obs/a", "obs/b", "obs/c", "obs/d", "obs/e", "obs/f"):
                file[f"data/demo_{demo}/{key}"] = np.ones((2, 5))
else:
    before = peak()
    with open_episodes(sys.argv[1]) as reader:
        for episode in range(len(reader.episode_ends)):
            reader.read(episode)
    print(peak() - before)
"""


def test_many_demonstrations_in_one_hdf5_file(tmp_path):
    """HDF5 keeps headers of all that it opened, unless its cache is limited: 62 MB here."""
    for what in ("write", "read"):
        command = [sys.executable, "-c", MANY, tmp_path / "x.hdf5", what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 45


LONG = """
import re, sys
import numpy as np
from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.readers import open_episodes, write_episodes

class Made(EpisodeReader):
    source = format = layout = "made"
    features = {"action": Feature((7,), np.dtype("f8"))} | {f"wide_{i}": Feature((2500,), np.dtype("f4")) for i in "ab"}
    episode_ends = np.array([STEPS])
    metadata = {}
    def episode_metadata(self, episode):
        return {}
    def _read(self, episode, keys, start, stop):
        return {key: np.zeros((stop - start, *self.features[key].shape), self.features[key].dtype) for key in keys}

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) / 1024

import policy_accel.data.formats.lerobot.writer
before = peak()
write_episodes(sys.argv[1], Made("made"), "lerobot")
print(peak() - before)
""".replace("STEPS", "8000")


def test_long_episode_of_wide_keys(tmp_path):
    """All of it is 160 MB, and as the float64 of which quantiles are made 320 MB."""
    done = subprocess.run([sys.executable, "-c", LONG, tmp_path / "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150
