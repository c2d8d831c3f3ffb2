import argparse
import json
import os

import numpy as np
import pytest
from support.data import write_zarr

from policy_accel.commands.convert import run_convert
from policy_accel.commands.convert_arguments import add_convert_arguments
from policy_accel.data import Episodes, read_episodes
from policy_accel.errors import UserError


def convert(*arguments):
    parser = argparse.ArgumentParser()
    add_convert_arguments(parser)
    return run_convert(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"action": rng.normal(size=(40, 2)), "state": rng.normal(size=(40, 5)).astype(np.float32)}
    facts = ({"filters": ["train"]}, {"filters": ["valid"]})
    path = tmp_path / "in.zarr.zip"
    write_zarr(path, Episodes(arrays, [15, 40], "", {"fps": 10}, facts))
    return path


@pytest.mark.parametrize(
    ("name", "output"), [("robomimic", "x.hdf5"), ("npz", "x.npz"), ("zarr", "x.zarr"), ("lerobot", "x")]
)
def test_formats(source, tmp_path, capsys, name, output):
    assert convert(source, tmp_path / output, "--to", name) == 0
    said = capsys.readouterr()
    assert said.out == f"2 episodes, 40 steps, from zarr to {name}: {tmp_path / output}\n"
    assert "convert: 40/40 steps" in said.err
    assert f"policy-accel data inspect {tmp_path / output}" in said.err
    read, made = read_episodes(tmp_path / output), read_episodes(source)
    for key, values in made.arrays.items():
        np.testing.assert_array_equal(read.arrays[key], values)


def test_keys_and_filter(source, tmp_path):
    convert(source, tmp_path / "x.hdf5", "--to", "robomimic", "--keys", "action", "--filter", "valid")
    read = read_episodes(tmp_path / "x.hdf5")
    assert list(read.arrays) == ["action"]
    np.testing.assert_array_equal(read.arrays["action"], read_episodes(source).arrays["action"][15:])


def test_episodes_by_number_and_without_the_bad_ones(source, tmp_path, capsys):
    convert(source, tmp_path / "one.npz", "--to", "npz", "--episodes", "1")
    np.testing.assert_array_equal(
        read_episodes(tmp_path / "one.npz").arrays["state"], read_episodes(source).arrays["state"][15:]
    )
    made = read_episodes(source)
    made.arrays["action"][3] = np.nan
    np.savez(tmp_path / "bad.npz", **made.arrays, episode_ends=made.episode_ends)
    with pytest.raises(UserError, match=r"NaN at step 3 \(episode 0, its step 3\); .* \(skip_bad_episodes=true\)\."):
        convert(tmp_path / "bad.npz", tmp_path / "x.zarr", "--to", "zarr", "--episodes", "0:2")
    capsys.readouterr()
    convert(tmp_path / "bad.npz", tmp_path / "x.zarr", "--to", "zarr", "--skip-bad-episodes")
    assert "bad.npz: episode 0 is left out: data/action holds NaN at step 3" in capsys.readouterr().err
    np.testing.assert_array_equal(read_episodes(tmp_path / "x.zarr").arrays["action"], made.arrays["action"][15:])


def test_real_file(shared_data, tmp_path):
    convert(f"{shared_data / 'robosuite_panda_demos.hdf5'}::lift", tmp_path / "lift.npz", "--to", "npz")
    assert np.load(tmp_path / "lift.npz")["actions"].shape == (412, 7)


def test_options_of_lerobot(source, tmp_path):
    convert(source, tmp_path / "x", "--to", "lerobot", "--fps", "20")
    assert json.loads((tmp_path / "x/meta/info.json").read_text())["fps"] == 20
    with pytest.raises(UserError, match=r"LeRobot version v2\.1 is not written, v3\.0 alone; leave it out"):
        convert(source, tmp_path / "y", "--to", "lerobot", "--lerobot-version", "v2.1")
    with pytest.raises(UserError, match=r"--fps=20\.0 means nothing for --to npz; leave it out"):
        convert(source, tmp_path / "x.npz", "--to", "npz", "--fps", "20")


def test_nothing_is_overwritten(source, tmp_path):
    (tmp_path / "x.npz").write_text("precious")
    with pytest.raises(UserError, match=r"x\.npz: exists already and is not overwritten"):
        convert(source, tmp_path / "x.npz", "--to", "npz")
    assert (tmp_path / "x.npz").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keys", "actions"], "has no key 'actions'; did you mean 'action'"),
        (["--keys", ","], "--keys=, names no key"),
        (["--filter", "test"], "has no filter 'test'; known are: train, valid"),
    ],
)
def test_faults_leave_nothing(source, tmp_path, arguments, words):
    with pytest.raises(UserError) as error:
        convert(source, tmp_path / "x.npz", "--to", "npz", *arguments)
    assert words in str(error.value)
    assert os.listdir(tmp_path) == ["in.zarr.zip"]


@pytest.mark.parametrize("name", ["zarr", "robomimic", "npz", "lerobot"])
def test_values_that_are_not_finite_are_refused(tmp_path, name):
    import zarr

    root = zarr.open_group(tmp_path / "bad.zarr", mode="w", zarr_format=2)
    root.create_array("data/action", data=np.array([[0.0], [1.0], [np.inf]]))
    root.create_array("meta/episode_ends", data=np.array([1, 3]))
    with pytest.raises(
        UserError, match=r"bad\.zarr: data/action holds Inf at step 2 \(episode 1, its step 1\); repair"
    ):
        convert(tmp_path / "bad.zarr", tmp_path / "x", "--to", name)
    assert os.listdir(tmp_path) == ["bad.zarr"]


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: does not exist, cannot read it"):
        convert(tmp_path / "nowhere", tmp_path / "x.npz", "--to", "npz")
