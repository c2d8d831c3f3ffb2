"""Minari data sets made by Minari itself."""

import json

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from policy_accel.data import inspect, read_episodes
from policy_accel.data.readers import open_episodes
from policy_accel.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*env.* None:UserWarning")
STEPS = 6


def box(*shape, dtype=np.float64):
    return spaces.Box(0, 255 if dtype == np.uint8 else np.inf, shape, dtype)


def counted(space, steps):
    """Observations that tell the step that they belong to, one more than steps."""
    if isinstance(space, spaces.Dict):
        return {key: counted(inner, steps) for key, inner in space.items()}
    return np.stack([np.full(space.shape, step, space.dtype) for step in range(steps + 1)])


@pytest.fixture
def make(tmp_path, monkeypatch):
    def make(observation_space, **options):
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        import minari
        from minari.data_collector import EpisodeBuffer

        buffers = []
        for episode in range(11):
            steps = STEPS if episode else 2
            count = np.arange(steps + 1)
            buffers.append(
                EpisodeBuffer(
                    id=episode,
                    seed=episode,
                    observations=counted(observation_space, steps),
                    actions=np.repeat(count[:-1, None] / 10, 2, 1).astype(np.float32),
                    rewards=[float(step) for step in count[1:]],
                    terminations=[step == STEPS for step in count[1:]],
                    truncations=[step == 2 == steps for step in count[1:]],
                    infos={"success": [step > 3 for step in count], "deep": {"twice": [2.0 * step for step in count]}},
                )
            )
        minari.create_dataset_from_buffers(
            "counting/test-v0",
            buffers,
            observation_space=observation_space,
            action_space=spaces.Box(-1, 1, (2,), np.float32),
            algorithm_name="count",
            author="a",
            author_email="a@b.c",
            code_permalink="http://x",
            description="counts",
            **options,
        )
        return tmp_path / "counting/test-v0"

    return make


def test_plain_observations(make):
    path = make(box(3))
    for place in (path, path / "data", path / "data/main_data.hdf5"):
        read = read_episodes(place)
        assert read.lengths.tolist() == [2] + [STEPS] * 10
    assert set(read.arrays) == {
        "observation",
        "action",
        "reward",
        "done",
        "truncated",
        "info.success",
        "info.deep.twice",
    }
    own_step = np.concatenate([np.arange(length) for length in read.lengths])
    np.testing.assert_array_equal(read.arrays["observation"], np.repeat(own_step[:, None], 3, 1))
    np.testing.assert_allclose(read.arrays["action"][:, 0], own_step / 10, rtol=1e-6)
    np.testing.assert_array_equal(read.arrays["reward"], own_step + 1)
    np.testing.assert_array_equal(read.arrays["info.deep.twice"], 2 * own_step)
    assert np.flatnonzero(read.arrays["done"]).tolist() == (read.episode_ends[1:] - 1).tolist()
    assert np.flatnonzero(read.arrays["truncated"]).tolist() == [1]
    assert read.metadata["minari"]["dataset_id"] == "counting/test-v0"
    assert [facts["seed"] for facts in read.episode_metadata] == list(range(11))


def test_dictionaries_have_dots(make):
    space = spaces.Dict({"observation": box(4), "achieved_goal": spaces.Dict({"kettle": box(7), "light": box(2)})})
    read = read_episodes(make(space))
    assert read.arrays["observation"].shape == (62, 4)
    assert read.arrays["achieved_goal.kettle"].shape == (62, 7)
    assert read.arrays["achieved_goal.light"][5].tolist() == [3, 3]


def test_images_are_jpeg(make):
    read = read_episodes(make(spaces.Dict({"image": box(32, 32, 3, dtype=np.uint8), "state": box(2)})))
    assert read.arrays["image"].dtype == np.uint8
    assert read.arrays["image"].shape == (62, 32, 32, 3)
    assert read.arrays["image"][[0, 1, 2, 7], 0, 0, 0].tolist() == [0, 1, 0, 5]


def test_pieces(make):
    with open_episodes(make(box(3))) as reader:
        assert reader.format == "minari"
        assert "the observation after the last step left out" in reader.layout
        read = reader.read(10, ["observation", "reward"], 4)
        assert read["observation"][:, 0].tolist() == [4, 5]
        assert read["reward"].tolist() == [5, 6]


def test_arrow_is_refused(make):
    path = make(box(3), data_format="arrow")
    with pytest.raises(UserError, match=r"test-v0: a Minari data set in Arrow files; create it again with data_format"):
        read_episodes(path)


def test_faults(make):
    path = make(box(3))
    main = path / "data/main_data.hdf5"
    with h5py.File(main, "r+") as file:
        del file["episode_4/actions"]
        del file["episode_6"]
        file["episode_6"] = np.zeros(3)
        del file["episode_7/rewards"], file["episode_7/actions"], file["episode_7/terminations"]
        file["episode_7/rewards"] = 1.0
        del file["episode_8"]
        file["episode_9/infos/force"] = np.zeros((STEPS + 1, 3))
    with open_episodes(path, skip_bad_episodes=True) as reader:
        assert reader.episode_ends.tolist() == [2, 8, 14, 20, 26, 32, 38]
        text = " ".join(reader.remarks)
    assert "metadata.json counts 11 episodes and main_data.hdf5 holds 10" in text
    assert "episode 4 is left out: actions of episode_4 is missing or cannot be opened, that of episode_0 is" in text
    assert "episode 6 is left out: episode_6 is no group of arrays" in text
    assert "episode 7 is left out: " in text
    assert "'info.force', since infos/force of episode_0 is missing or cannot be opened, that of episode_9" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist, cannot read it"),
        (b"\xff\xfe{", "the file is damaged ("),
        (b"[" * 100_000, "the file is damaged ("),
        (b"3", "the file is damaged ("),
    ],
)
def test_facts_that_are_none(make, content, words):
    path = make(box(3))
    facts = path / "data/metadata.json"
    facts.unlink()
    if content is not None:
        facts.write_bytes(content)
    with pytest.raises(UserError, match=r"metadata\.json: ") as error:
        read_episodes(path)
    assert words in str(error.value)


def test_observations_whose_names_are_taken(make):
    """Beside the real actions, rewards and ends, none is overwritten; nor are infos by a nested observation."""
    names = ("action", "reward", "done", "truncated")
    inner = spaces.Dict({"success": box(2)})
    space = spaces.Dict({**{name: box(4) for name in names}, "info": inner, "state": box(2)})
    read = read_episodes(make(space))
    own_step = np.concatenate([np.arange(length) for length in read.lengths])
    np.testing.assert_allclose(read.arrays["action"][:, 0], own_step / 10, rtol=1e-6)
    np.testing.assert_array_equal(read.arrays["reward"], own_step + 1)
    assert read.arrays["done"].sum() == 10
    assert read.arrays["truncated"].sum() == 1
    for name in names:
        np.testing.assert_array_equal(read.arrays[f"obs.{name}"], np.repeat(own_step[:, None], 4, 1))
    np.testing.assert_array_equal(read.arrays["info.success"], own_step > 3)
    np.testing.assert_array_equal(read.arrays["obs.info.success"], np.repeat(own_step[:, None], 2, 1))
    assert "state" in read.arrays


def test_two_arrays_with_one_name(make):
    path = make(spaces.Dict({"goal": spaces.Dict({"door": box(1)})}))
    with h5py.File(path / "data/main_data.hdf5", "r+") as file:
        file["episode_0/observations/goal.door"] = np.zeros((3, 1))
    with pytest.raises(UserError, match=r"'goal\.door' cannot be used: .* would both be called 'goal\.door'; rename"):
        open_episodes(path, ["goal.door"])


def test_report(make):
    path = make(box(3))
    found = inspect(path)
    assert found.problems == ()
    assert "episodes: 11, steps: 62" in found.text
    version = json.loads((path / "data/metadata.json").read_text())["minari_version"]
    assert f"Minari HDF5, {version}" in found.text
