from __future__ import annotations

import argparse
import os

import numpy as np
import pytest

from policy_accel.commands.convert import run_convert
from policy_accel.commands.convert_arguments import add_convert_arguments
from policy_accel.data import Episodes, open_episodes, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import write_episodes
from policy_accel.envs.robosuite_absolute import AbsoluteActionsReader
from policy_accel.envs.robosuite_env import Robosuite
from policy_accel.errors import UserError


def without(recorded: Episodes, *keys: str, **facts) -> Episodes:
    """The recording without some keys, and with other facts about the set."""
    arrays = {key: values for key, values in recorded.arrays.items() if key not in keys}
    return Episodes(arrays, recorded.episode_ends, "demo.hdf5", recorded.metadata | facts, recorded.episode_metadata)


@pytest.fixture(scope="module")
def relative_file(recorded, tmp_path_factory):
    """As robomimic's file of robosuite 1.5: relative actions alone."""
    path = tmp_path_factory.mktemp("robosuite") / "low_dim_v15.hdf5"
    write_episodes(path, MemoryReader(without(recorded, "action_abs")), "robomimic")
    return path


def convert(*arguments, absolute: bool = True):
    parser = argparse.ArgumentParser()
    add_convert_arguments(parser)
    options = parser.parse_args([str(argument) for argument in arguments])
    options.absolute_actions = absolute
    return run_convert(options)


def test_convert_adds_what_the_controller_steered_to(recorded, relative_file, tmp_path):
    """Which `action_abs` of the recording is: the goals while it was played."""
    path = tmp_path / "absolute.hdf5"
    convert(relative_file, path, "--to", "robomimic")
    made, given = read_episodes(path), read_episodes(relative_file)
    assert set(made.arrays) - set(given.arrays) == {"action_abs"}
    assert made.arrays["action_abs"].dtype == np.float32
    np.testing.assert_allclose(made.arrays["action_abs"], recorded.arrays["action_abs"], atol=1e-6)
    for key, values in given.arrays.items():
        np.testing.assert_array_equal(made.arrays[key], values)
    assert made.metadata["env_args"] == recorded.metadata["env_args"]
    np.testing.assert_array_equal(made.episode_ends, given.episode_ends)
    with pytest.raises(UserError, match=r"absolute\.hdf5: has absolute actions already \(action_abs\); convert it w"):
        convert(path, tmp_path / "again.npz", "--to", "npz")


def test_the_absolute_actions_replay_to_success(relative_file):
    environment = None
    with AbsoluteActionsReader(open_episodes(relative_file)) as reader:
        environment = Robosuite(env_args=reader.metadata["env_args"], actions="absolute")
        for episode in range(2):
            start = reader.read(episode, ["sim_state"], 0, 1)["sim_state"][0]
            model = reader.episode_metadata(episode)["model_file"]
            environment.reset(seed=0, options={"state": start, "model": model})
            success = [environment.step(action)[2] for action in reader.read(episode, ["action_abs"])["action_abs"]]
            assert success[-1]
            assert not any(success[:-1])
    environment.close()


def test_pieces_keys_and_filters(relative_file, tmp_path):
    with AbsoluteActionsReader(open_episodes(relative_file)) as reader:
        whole = reader.read(1, ["action_abs"])["action_abs"]
        pieces = [reader.read(1, ["action_abs"], start, start + 7)["action_abs"] for start in range(0, len(whole), 7)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
        assert list(reader.read(0, None, 0, 1)) == list(reader.features)
        with pytest.raises(UserError, match="has no key 'action_bas'; did you mean 'action_abs'"):
            reader.read(0, ["action_bas"])
    convert(relative_file, tmp_path / "x.npz", "--to", "npz", "--keys", "action,object", "--filter", "valid")
    made = read_episodes(tmp_path / "x.npz")
    assert set(made.arrays) == {"action", "object", "action_abs"}
    np.testing.assert_array_equal(made.arrays["action_abs"], whole)


def test_without_the_option_nothing_is_added(relative_file, tmp_path):
    convert(relative_file, tmp_path / "x.npz", "--to", "npz", absolute=False)
    assert "action_abs" not in read_episodes(tmp_path / "x.npz").arrays


def env_args_with(recorded, **changes):
    return {"env_args": recorded.metadata["env_args"] | changes}


def test_sets_that_cannot_be_replayed_are_refused_in_one_sentence(recorded):
    absolute = Robosuite("lift", actions="absolute")
    two_arms = without(recorded, "action_abs")
    two_arms.arrays["action"] = np.tile(two_arms.arrays["action"], 2)
    stateless = without(recorded, "action_abs")
    stateless.arrays["sim_state"] = stateless.arrays["sim_state"][:, :-1]
    for episodes, words in (
        (recorded, "has absolute actions already"),
        (without(recorded, "action_abs", env_args=None), "has no env_args, so that the environment of its actions"),
        (without(recorded, "action_abs", "sim_state"), "has no key 'sim_state', which absolute actions"),
        (
            without(recorded, "action_abs", **env_args_with(recorded, env_version="1.4.1")),
            "recorded with robosuite 1.4.1, and robosuite 1.5",
        ),
        (without(recorded, "action_abs", **env_args_with(recorded, type=3)), "env_args describes no robosuite env"),
        (
            without(recorded, "action_abs", env_args=absolute.env_args),
            "its env_args say that its actions are absolute already",
        ),
        (two_arms, r"action is \[14\] a step, but \[7\] in robosuite's Lift"),
        (stateless, r"sim_state is \[31\] a step, but \[32\] in robosuite's Lift"),
    ):
        closed = []

        class Reader(MemoryReader):
            def close(self, closed=closed):
                closed.append(True)

        with pytest.raises(UserError, match=words) as error:
            AbsoluteActionsReader(Reader(episodes))
        assert str(error.value).startswith(f"{episodes.source}: ")
        assert closed
    absolute.close()


def test_nothing_is_left_after_a_refusal(recorded, tmp_path):
    write_episodes(tmp_path / "in.hdf5", MemoryReader(without(recorded, "action_abs", "sim_state")), "robomimic")
    with pytest.raises(UserError, match="has no key 'sim_state'"):
        convert(tmp_path / "in.hdf5", tmp_path / "x.npz", "--to", "npz")
    assert os.listdir(tmp_path) == ["in.hdf5"]
