"""Which reader takes a path, by its content."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import zarr

from policy_accel.data import Episodes, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import open_episodes, write_episodes
from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.written_formats import WRITTEN_FORMATS


def made():
    return Episodes({"action": np.arange(20.0).reshape(10, 2)}, [4, 10])


@pytest.mark.parametrize("name", WRITTEN_FORMATS)
def test_names_do_not_matter(tmp_path, name):
    write_episodes(tmp_path / "demonstrations", MemoryReader(made()), name)
    with open_episodes(tmp_path / "demonstrations") as reader:
        assert reader.format == name
        assert reader.source == str(tmp_path / "demonstrations")
    read = read_episodes(str(tmp_path / "demonstrations"))
    np.testing.assert_array_equal(read.arrays["action"], made().arrays["action"])
    assert read.episode_ends.tolist() == [4, 10]


@pytest.mark.parametrize("name", WRITTEN_FORMATS)
def test_all_steps_are_counted(tmp_path, name):
    seen = []
    write_episodes(tmp_path / "x", MemoryReader(made()), name, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (10, 10)
    assert seen == sorted(seen)


def test_unknown_formats(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(UserError) as error:
            open_episodes(path)
        for known in ("zarr", "robomimic HDF5", "LeRobot", "NPZ with traj_lengths", "Minari"):
            assert known in str(error.value)
    with pytest.raises(UserError, match=r"format 'hdf5' is unknown; .*robomimic"):
        write_episodes(tmp_path / "x", MemoryReader(made()), "hdf5")


@pytest.mark.parametrize("name", ["nowhere", "nowhere.hdf5::lift"])
def test_missing(tmp_path, name):
    with pytest.raises(UserError, match=rf"{name}: does not exist, cannot read it; check the path"):
        open_episodes(tmp_path / name)


@pytest.mark.parametrize("name", WRITTEN_FORMATS)
def test_a_key_without_numbers_is_refused_by_every_format(tmp_path, name):
    np.savez(tmp_path / "in.npz", actions=np.ones((20, 2)), force=np.ones((20, 0)), traj_lengths=[8, 12])
    with open_episodes(tmp_path / "in.npz") as reader:
        with pytest.raises(
            UserError, match=r"in\.npz: data/force holds no numbers \(\[0\] a step\); leave the key out"
        ):
            write_episodes(tmp_path / "x", reader, name)
        assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]
        write_episodes(tmp_path / "x", reader, name, keys=["action"])
    assert read_episodes(tmp_path / "x").arrays.keys() == {"action"}


def with_an_empty_episode(tmp_path, form):
    data = {"action": np.arange(20.0).reshape(10, 2), "episode_ends": np.array([3, 3, 10])}
    if form == "npz":
        np.savez(tmp_path / "x", **data)
        return {"path": tmp_path / "x.npz"}
    if form == "zarr":
        root = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=2)
        root.create_array("data/action", data=data["action"])
        root.create_array("meta/episode_ends", data=data["episode_ends"])
        return {"path": tmp_path / "x.zarr"}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, values in data.items():
            file[f"all/{name}"] = values
    (tmp_path / "x.yaml").write_text("episodes: all\nkeys: {action: action}\nends: episode_ends\n")
    return {"path": tmp_path / "x.h5", "layout": tmp_path / "x.yaml"}


@pytest.mark.parametrize("form", ["npz", "zarr", "hdf5"])
def test_an_empty_episode_is_the_fault_of_that_one_alone(tmp_path, form):
    given = with_an_empty_episode(tmp_path, form)
    with pytest.raises(UserError, match=r"episode 1 has no step; take it out of the file; or leave such .* \(1 of 3\)"):
        read_episodes(**given)
    with pytest.warns(UserWarning, match="episode 1 is left out: it has no step"):
        read = read_episodes(**given, skip_bad_episodes=True)
    assert read.episode_ends.tolist() == [3, 10]
    np.testing.assert_array_equal(read.arrays["action"], np.arange(20.0).reshape(10, 2))


def test_names_of_formats_need_no_imports():
    """The command line lists them whenever it starts."""
    code = "import sys, policy_accel.written_formats; assert not {'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_readers_need_no_torch():
    code = "import sys, policy_accel.data.readers; assert not {'torch', 'h5py', 'pyarrow', 'zarr'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "package", "remedy"), [("zarr", "zarr", "pip install zarr"), ("lerobot", "pyarrow", to_install("lerobot"))]
)
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, name, package, remedy):
    for module in [known for known in sys.modules if known.startswith("policy_accel.data.formats")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as error:
        write_episodes(tmp_path / "x", MemoryReader(made()), name)
    assert str(error.value).endswith(f"x: its format needs the package {package}, which is not installed; {remedy}")
