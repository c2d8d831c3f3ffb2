"""robomimic's HDF5: files written by h5py alone in its layout, real recordings, and our files in robomimic's hands."""

import json
import os

import h5py
import numpy as np
import pytest

from policy_accel.data import Episodes, inspect, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import open_episodes, write_episodes
from policy_accel.errors import UserError

ENV_ARGS = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"], "control_freq": 20}}
LENGTHS = {"demo_0": 4, "demo_10": 6, "demo_2": 5}  # in the order of text
BY_NUMBER = ["demo_0", "demo_2", "demo_10"]


def arrays_of(demo):
    number, steps = int(demo[5:]), LENGTHS[demo]
    rng = np.random.default_rng(number)
    return {
        "actions": rng.uniform(-1, 1, size=(steps, 7)),
        "actions_abs": rng.uniform(-1, 1, size=(steps, 7)),
        "states": rng.normal(size=(steps, 32)),
        "rewards": np.eye(steps)[-1],
        "dones": np.eye(steps)[-1].astype(np.int64),
        "obs/object": rng.normal(size=(steps, 10)),
        "obs/robot0_eef_pos": rng.normal(size=(steps, 3)).astype(np.float32),
        "obs/agentview_image": rng.integers(0, 256, size=(steps, 8, 8, 3), dtype=np.uint8),
        "next_obs/object": rng.normal(size=(steps, 10)),
        "action_dict/abs_pos": rng.normal(size=(steps, 3)),
        "datagen_info/eef_pose": rng.normal(size=(steps, 4, 4)),
    }


IN_MEMORY = {
    "actions": "action",
    "actions_abs": "action_abs",
    "states": "sim_state",
    "rewards": "reward",
    "dones": "done",
    "obs/object": "object",
    "obs/robot0_eef_pos": "robot0_eef_pos",
    "obs/agentview_image": "agentview_image",
    "next_obs/object": "next_obs.object",
    "action_dict/abs_pos": "action_dict.abs_pos",
    "datagen_info/eef_pose": "extra.datagen_info/eef_pose",
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "low_dim.hdf5"
    with h5py.File(path, "w") as handle:
        data = handle.create_group("data")
        data.attrs["total"] = sum(LENGTHS.values())
        data.attrs["env_args"] = json.dumps(ENV_ARGS)
        for demo, steps in LENGTHS.items():
            group = data.create_group(demo)
            group.attrs["num_samples"] = steps
            group.attrs["model_file"] = f"<mujoco {demo}/>"
            for name, values in arrays_of(demo).items():
                group[name] = values
        handle["mask/train"] = np.array([b"demo_10", b"demo_0"])
        handle["mask/valid"] = np.array([b"demo_2"])
    return path


def change(path):
    return h5py.File(path, "r+")


def test_layout_of_robomimic(file):
    read = read_episodes(file)
    assert read.lengths.tolist() == [LENGTHS[demo] for demo in BY_NUMBER]
    assert set(read.arrays) == set(IN_MEMORY.values())
    for stored, key in IN_MEMORY.items():
        expected = np.concatenate([arrays_of(demo)[stored] for demo in BY_NUMBER])
        assert read.arrays[key].dtype == expected.dtype
        np.testing.assert_array_equal(read.arrays[key], expected)
    assert read.metadata == {"env_args": ENV_ARGS}
    assert [facts["name"] for facts in read.episode_metadata] == BY_NUMBER
    assert [facts["filters"] for facts in read.episode_metadata] == [["train"], ["valid"], ["train"]]
    assert read.episode_metadata[1] == {
        "name": "demo_2",
        "num_samples": 5,
        "filters": ["valid"],
        "model_file": "<mujoco demo_2/>",
    }


def test_pieces_of_an_episode(file):
    with open_episodes(file) as reader:
        assert (reader.format, reader.layout) == ("robomimic", "robomimic HDF5, Lift, env_version not given")
        read = reader.read(2, ["object", "done"], 1, 3)
        assert list(read) == ["object", "done"]
        np.testing.assert_array_equal(read["object"], arrays_of("demo_10")["obs/object"][1:3])
        np.testing.assert_array_equal(reader.read(1, ["done"])["done"], arrays_of("demo_2")["dones"])


def test_filter(file):
    read = read_episodes(file, ["object"], filter_key="train")
    assert read.lengths.tolist() == [4, 6]
    np.testing.assert_array_equal(read.arrays["object"][4:], arrays_of("demo_10")["obs/object"])
    assert [facts["name"] for facts in read.episode_metadata] == ["demo_0", "demo_10"]
    with pytest.raises(UserError, match=r"low_dim\.hdf5: has no filter 'trian'; did you mean 'train'"):
        open_episodes(file, filter_key="trian")


def test_filter_of_a_file_without(file):
    with change(file) as handle:
        del handle["mask"]
    with pytest.raises(UserError, match=r"has no filter 'train'; it has no filters at all"):
        open_episodes(file, filter_key="train")


def test_filtered_episodes_keep_their_names_on_the_way(file, tmp_path):
    with open_episodes(file, filter_key="train") as reader:
        write_episodes(tmp_path / "train.hdf5", reader, "robomimic")
    with h5py.File(tmp_path / "train.hdf5") as handle:
        assert sorted(handle["data"]) == ["demo_0", "demo_10"]
        assert handle["data"].attrs["total"] == 10
        assert handle["mask/train"][:].tolist() == [b"demo_0", b"demo_10"]


def test_names_of_observations_that_are_taken(file, tmp_path):
    with change(file) as handle:
        for demo, steps in LENGTHS.items():
            handle[f"data/{demo}/obs/action"] = np.full((steps, 2), 5.0)
    read = read_episodes(file)
    assert read.arrays["obs.action"].shape == (15, 2)
    assert read.arrays["action"].shape == (15, 7)
    write_episodes(tmp_path / "again.hdf5", MemoryReader(read), "robomimic")
    with h5py.File(tmp_path / "again.hdf5") as handle:
        assert handle["data/demo_0/obs/action"].shape == (4, 2)


def test_mask_with_a_name_that_is_not_there(file):
    with change(file) as handle:
        handle["mask/more"] = np.array([b"demo_2", b"demo_77"])
    with pytest.warns(UserWarning, match=r"mask/more names 1 demonstrations that are not there, as demo_77"):
        assert len(read_episodes(file, filter_key="more")) == 1


@pytest.mark.parametrize("members", [np.array([True, False]), np.array([[3]]), np.float32(1)])
def test_mask_of_another_kind(file, members):
    with change(file) as handle:
        handle["mask/more"] = members
    with pytest.warns(UserWarning, match=r"mask/more is left out: it is no list of names"):
        assert len(read_episodes(file, filter_key="train")) == 2


def test_attributes_of_another_kind(file):
    with change(file) as handle:
        handle["data"].attrs["env_args"] = "{Lift"
        handle["data"].attrs["where"] = handle["data/demo_0"].ref
        handle["data/demo_0"].attrs["pair"] = np.array((1, 2.5), dtype="i4,f8")
        handle["data/demo_0"].attrs["nothing"] = h5py.Empty("f4")
    with pytest.warns(UserWarning, match=r"env_args is left out: it is no JSON object but '{Lift'"):
        read = read_episodes(file)
    assert "env_args" not in read.metadata
    assert read.episode_metadata[0]["pair"] == [1, 2.5]
    json.dumps([read.metadata, read.episode_metadata])


def delete(name):
    def damage(handle):
        del handle[name]

    return damage


def put(name, values):
    def damage(handle):
        if name in handle:
            del handle[name]
        handle[name] = values

    return damage


def only_later(handle):
    for demo in ("demo_2", "demo_10"):
        handle[f"data/{demo}/obs/force"] = np.zeros((LENGTHS[demo], 3))


def set_attribute(place, name, value):
    def damage(handle):
        handle[place].attrs[name] = value

    return damage


def twice_over(handle):
    for demo, steps in LENGTHS.items():
        handle[f"data/{demo}/obs/again"] = np.zeros((2 * steps, 3))


def of_several_sizes(handle):
    for number, demo in enumerate(LENGTHS):
        del handle[f"data/{demo}/states"]
        handle[f"data/{demo}/states"] = np.zeros((LENGTHS[demo], 71 + 13 * number))


EVERYWHERE = [f"data/{demo}/obs/it" for demo in LENGTHS]


def link(target):
    def damage(handle):
        with h5py.File(f"{handle.filename.rpartition('/')[0]}/other.hdf5", "w") as other:
            other["secret"] = np.zeros((4, 3))
        for place in EVERYWHERE:
            handle[place] = target

    return damage


def in_other_files(handle):
    for place, steps in zip(EVERYWHERE, LENGTHS.values(), strict=True):
        handle.create_dataset(place, (steps, 3), "f4", external=[("/etc/passwd", 0, 12 * steps)])


def of_other_arrays(handle):
    for place, steps in zip(EVERYWHERE, LENGTHS.values(), strict=True):
        layout = h5py.VirtualLayout((steps, 10), "f8")
        layout[:] = h5py.VirtualSource(handle[place.replace("/it", "/object")])
        handle.create_virtual_dataset(place, layout)


def compound(handle):
    for place, steps in zip(EVERYWHERE, LENGTHS.values(), strict=True):
        handle[place] = np.zeros(steps, "i4,f8")


def larger_than_the_file(handle):
    for place in EVERYWHERE:
        handle.create_dataset(place, (10**12, 3), "f8", chunks=(1000, 3))


@pytest.mark.parametrize(
    ("damage", "key", "words"),
    [
        (
            delete("data/demo_2/obs/object"),
            "object",
            "obs/object of demo_2 is missing or cannot be opened, that of demo_0 is [10]",
        ),
        (
            put("data/demo_2/obs/object", np.zeros((4, 10))),
            "object",
            "obs/object of demo_2 is [10] float64 a step and has -1 rows against the steps, that of demo_0 is [10]",
        ),
        (
            put("data/demo_2/obs/object", np.zeros((5, 9))),
            "object",
            "obs/object of demo_2 is [9] float64 a step, that of demo_0 is [10] float64 a step",
        ),
        (put("data/demo_10/rewards", np.zeros(5)), "reward", "rewards of demo_10 is [] float64 a step and has -1 rows"),
        (only_later, "force", "obs/force of demo_0 is missing or cannot be opened, that of demo_2 is [3]"),
        (twice_over, "again", "obs/again of demo_0 is [3] float64 a step and has +4 rows against the steps"),
        (of_several_sizes, "sim_state", "states of demo_2 is [97] float64 a step, that of demo_0 is [71] float64 a"),
        (put("data/demo_2/language", "lift it"), "extra.language", "language of demo_2 is no series of numbers"),
        (
            put("data/demo_2/obs.object", np.zeros((5, 1))),
            "extra.obs.object",
            "obs.object of demo_0 is missing or cannot be",
        ),
        (
            link(h5py.ExternalLink("other.hdf5", "/secret")),
            "it",
            "obs/it of demo_0 lies in another file, which is not read",
        ),
        (link(h5py.SoftLink("/data/demo_0/obs/it")), "it", "obs/it is missing or cannot be opened"),
        (link(h5py.SoftLink("/data")), "it", "obs/it of demo_0 is a link to a group, which is not followed"),
        (link(h5py.SoftLink("/nowhere")), "it", "obs/it is missing or cannot be opened"),
        (in_other_files, "it", "obs/it of demo_0 keeps its values in other files, which are not read"),
        (of_other_arrays, "it", "obs/it of demo_0 keeps its values in other files, which are not read"),
        (compound, "it", "obs/it of demo_0 is no series of numbers"),
        (larger_than_the_file, "it", "obs/it of demo_0 says that it holds 24,000.0 GB, which the file does not"),
    ],
)
def test_a_key_that_cannot_be_used_is_left_out_until_it_is_asked_for(file, damage, key, words):
    with change(file) as handle:
        damage(handle)
    with pytest.warns(UserWarning, match=rf"left out: .*'{key}', since ") as warned:
        read = read_episodes(file)
    assert sum(words in str(one.message) for one in warned) == 1
    assert len(read) == 3
    assert key not in read.arrays
    with pytest.raises(UserError, match=r"low_dim\.hdf5: ") as error:
        read_episodes(file, ["action", key])
    assert words in str(error.value)
    assert "did you mean" not in str(error.value)
    read_episodes(file, ["action", "robot0_eef_pos"])


def test_what_few_lack_is_their_fault_once_it_is_asked_for(file):
    with change(file) as handle:
        del handle["data/demo_2/obs/object"]
    with pytest.warns(
        UserWarning, match=r"episode 1 is left out: obs/object of demo_2 is missing or cannot be opened, that"
    ):
        read = read_episodes(file, ["action", "object"], skip_bad_episodes=True)
    assert read.lengths.tolist() == [4, 6]
    np.testing.assert_array_equal(read.arrays["object"][:4], arrays_of("demo_0")["obs/object"])


def shifted(handle):
    for name in ("actions", "rewards"):
        put(f"data/demo_2/{name}", np.zeros((4, 7)))(handle)
    del handle["data/demo_2"].attrs["num_samples"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (delete("data/demo_2/actions"), "actions of demo_2 is missing or cannot be opened, that of demo_0 is [7]"),
        (
            put("data/demo_2/actions", np.zeros((5, 6))),
            "actions of demo_2 is [6] float64 a step, that of demo_0 is [7]",
        ),
        (put("data/demo_2/actions", [b"up"] * 5), "actions of demo_2 is no series of numbers"),
        (put("data/demo_2/actions", 5.0), "actions of demo_2 is no series of numbers"),
        (put("data/demo_2/actions", np.zeros((4, 7))), "demo_2 has 4 steps (num_samples 5, found action_dict, actions"),
        (shifted, "of demo_2 is [3] float64 a step and has +1 rows against the steps, as most of its arrays"),
        (set_attribute("data/demo_2", "num_samples", 9), "demo_2 has 5 steps (num_samples 9, "),
        (set_attribute("data/demo_2", "num_samples", "many"), "demo_2 has 5 steps (num_samples many, "),
        (put("data/demo_2/actions", np.zeros((0, 7))), "demo_2 has 0 steps (num_samples 5, "),
        (
            lambda handle: handle["data/demo_2"].clear(),
            "demo_2 has 0 steps (num_samples 5, found nothing); remove or record it again",
        ),
    ],
)
def test_one_bad_demonstration(file, damage, words):
    with change(file) as handle:
        damage(handle)
    with pytest.raises(UserError, match=r"low_dim\.hdf5: ") as error:
        read_episodes(file, ["action", "object"])
    assert words in str(error.value)
    assert "skip_bad_episodes=true (1 of 3)" in str(error.value)
    with pytest.warns(UserWarning, match=r"episode 1 is left out: "):
        assert read_episodes(file, ["action", "object"], skip_bad_episodes=True).lengths.tolist() == [4, 6]


def test_what_was_never_written_is_not_read_as_zeros(file):
    with change(file) as handle:
        for demo, steps in LENGTHS.items():
            handle.create_dataset(f"data/{demo}/obs/it", (steps, 3), "f4")
            handle.create_dataset(f"data/{demo}/obs/half", (steps, 3), "f4", chunks=(2, 3))[
                : steps if demo != "demo_2" else 2
            ] = 1
    with pytest.raises(UserError, match=r"'it' cannot be used: obs/it of demo_0 was never written"):
        read_episodes(file, ["it"])
    with pytest.warns(
        UserWarning, match=r"episode 1 is left out: obs/half of demo_2 was never written, or not all of it"
    ):
        assert len(read_episodes(file, ["half"], skip_bad_episodes=True)) == 2


def test_demonstrations_at_the_root(file):
    """And named otherwise; their observations go on after the last action."""
    with change(file) as handle:
        for demo, steps in LENGTHS.items():
            handle.move(f"data/{demo}", demo.replace("demo", "traj"))
            put(f"{demo.replace('demo', 'traj')}/obs/object", np.zeros((steps + 1, 10)))(handle)
        del handle["data"]
    read = read_episodes(file)
    assert read.lengths.tolist() == [4, 5, 6]
    assert read.arrays["object"].shape == (15, 10)
    with open_episodes(file) as reader:
        assert "the observation after the last step left out" in reader.layout


def test_one_demonstration(file):
    with change(file) as handle:
        del handle["data/demo_2"], handle["data/demo_10"]
        handle["data/demo_0/obs/camera/left/rgb"] = np.zeros((4, 2, 2, 3), np.uint8)
    with pytest.warns(UserWarning, match="mask/"):
        assert read_episodes(file).arrays["camera/left/rgb"].shape == (4, 2, 2, 3)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            put("data/demo_2/obs/object", np.full((5, 10), np.nan)),
            "data/object holds NaN at step 4 (episode 1, its",
        ),
        (
            delete("data"),
            "has no group data/ of demonstrations, as data/demo_0/actions; found mask/train [2], mask/valid [1]",
        ),
        (lambda handle: handle["data"].clear(), "has no group data/*. Say where the data lies"),
        (set_attribute("data", "policy_accel", "[" * 100_000), "policy_accel is damaged (nested too deeply)"),
        (set_attribute("data", "policy_accel", '{"set": 3}'), "policy_accel is damaged ("),
    ],
)
def test_faults(file, damage, words):
    with change(file) as handle:
        damage(handle)
    with pytest.raises(UserError) as error:
        read_episodes(file)
    assert str(error.value).startswith(f"{file}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_key(file):
    with pytest.raises(UserError, match=r"low_dim\.hdf5: has no key 'objct'; did you mean 'object'"):
        read_episodes(file, ["objct"])


@pytest.mark.parametrize("part", [0.001, 0.3, 0.99])
def test_truncated(file, part):
    os.truncate(file, int(file.stat().st_size * part))
    with pytest.raises(UserError, match=r"low_dim\.hdf5: the HDF5 file is damaged \(.+\); copy or download"):
        read_episodes(file)


def test_damaged_array(file):
    with change(file) as handle:
        del handle["data/demo_2/obs/object"]
        handle["data/demo_2"].create_dataset(
            "obs/object", data=np.random.default_rng(0).normal(size=(5, 10)), chunks=(5, 10), compression="gzip"
        )
        place = handle["data/demo_2/obs/object"].id.get_chunk_info(0).byte_offset
    with file.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 40)
    with pytest.raises(UserError, match=r"obs/object of demo_2 is damaged"):
        read_episodes(file)


def test_no_permission(unprivileged):
    path = unprivileged / "x.hdf5"
    write_episodes(path, MemoryReader(Episodes({"action": np.ones((8, 2))}, [8])), "robomimic")
    path.chmod(0)
    with pytest.raises(UserError, match=r"x\.hdf5: no permission to read it; change the permissions"):
        read_episodes(path)


class TestRawRecordings:
    """robosuite's teleoperation recordings: a group of demonstrations for each task, none called data."""

    def test_groups_are_named(self, shared_data):
        with pytest.raises(UserError, match=r"no group data/ .* found them in door, lift, .* as .*\.hdf5::door"):
            read_episodes(shared_data / "robosuite_panda_demos.hdf5")

    def test_one_group(self, shared_data):
        path = shared_data / "robosuite_panda_demos.hdf5"
        read = read_episodes(f"{path}::lift")
        assert {key: values.shape for key, values in read.arrays.items()} == {
            "action": (412, 7),
            "sim_state": (412, 32),
            "extra.joint_torques": (412, 7),
        }
        with h5py.File(path) as handle:
            np.testing.assert_array_equal(read.arrays["action"], handle["lift/demo_1/actions"][:])
        assert read.metadata["env_info"]["env_name"] == "Lift"
        assert read.episode_metadata == ({"name": "demo_1", "num_samples": 412, "model_file": "model_1.xml"},)

    def test_unknown_group(self, shared_data):
        with pytest.raises(UserError, match=r"has no group lifts/ of demonstrations, .* found them in door, lift,"):
            read_episodes(f"{shared_data / 'robosuite_panda_demos.hdf5'}::lifts")


class TestWriter:
    def test_layout(self, file, tmp_path):
        path = tmp_path / "again.hdf5"
        write_episodes(path, MemoryReader(read_episodes(file)), "robomimic")
        with h5py.File(path) as again, h5py.File(file) as first:
            names: list[str] = []
            first.visit(names.append)
            for name in names:
                if isinstance(first[name], h5py.Dataset) and not name.startswith("mask"):
                    assert again[name].dtype == first[name].dtype
                    np.testing.assert_array_equal(again[name][()], first[name][()])
                for key, value in first[name].attrs.items():
                    if key != "env_args":
                        assert again[name].attrs[key] == value
            assert json.loads(again["data"].attrs["env_args"]) == ENV_ARGS
            assert again["mask/train"][:].tolist() == [b"demo_0", b"demo_10"]
            image = again["data/demo_0/obs/agentview_image"]
            assert (image.chunks, image.compression) == ((1, 8, 8, 3), "gzip")
            assert "policy_accel" not in again["data/demo_2"].attrs

    def test_sequences_of_robomimic(self, file, tmp_path):
        """robomimic's own SequenceDataset gives the windows that its documentation promises."""
        from robomimic.utils import obs_utils
        from robomimic.utils.dataset import SequenceDataset

        path = tmp_path / "again.hdf5"
        write_episodes(path, MemoryReader(read_episodes(file)), "robomimic")
        keys = ["object", "robot0_eef_pos", "agentview_image"]
        obs_utils.initialize_obs_modality_mapping_from_dict({"low_dim": keys[:2], "rgb": keys[2:]})
        windows = SequenceDataset(
            str(path),
            obs_keys=keys,
            dataset_keys=["actions", "rewards", "dones"],
            frame_stack=2,
            seq_length=3,
            hdf5_use_swmr=False,
            hdf5_cache_mode=None,
            filter_by_attribute="train",
            load_next_obs=False,
        )
        assert len(windows) == 10
        item = windows[4 + 2]  # step 2 of demo_10
        expected = arrays_of("demo_10")
        np.testing.assert_array_equal(item["obs"]["object"], expected["obs/object"][1:5])
        np.testing.assert_array_equal(item["obs"]["agentview_image"], expected["obs/agentview_image"][1:5])
        np.testing.assert_array_equal(item["actions"], expected["actions"][1:5])

    def test_next_observations(self, tmp_path):
        """Those of numbers are kept, also of an episode in several pieces; those of pictures are a view."""
        wide, frames = np.random.default_rng(0).normal(size=(70, 20_000)), np.zeros((70, 8, 8, 3), np.uint8)
        frames[:, 0, 0, 0] = range(70)
        made = Episodes({"action": np.ones((70, 2)), "wide": wide, "frames": frames}, [1, 70])
        write_episodes(tmp_path / "x.hdf5", MemoryReader(made), "robomimic")
        with h5py.File(tmp_path / "x.hdf5") as handle:
            for demo, following in (("demo_0", [0]), ("demo_1", [*range(2, 70), 69])):
                numbers, pictures = handle[f"data/{demo}/next_obs/wide"], handle[f"data/{demo}/next_obs/frames"]
                np.testing.assert_array_equal(numbers[:], wide[following])
                np.testing.assert_array_equal(pictures[:], frames[following])
                assert (numbers.is_virtual, pictures.is_virtual) == (False, True)
        assert read_episodes(tmp_path / "x.hdf5").arrays.keys() == made.arrays.keys()

    def test_facts_that_no_attribute_can_hold(self, tmp_path):
        facts = {"note": "a\0b", "count": 10**30, "name": "x", "fine": 1}
        made = Episodes({"action": np.ones((8, 2))}, [8], "", facts, ({**facts, "num_samples": 9},))
        write_episodes(tmp_path / "x.hdf5", MemoryReader(made), "robomimic")
        read = read_episodes(tmp_path / "x.hdf5")
        assert (read.metadata, read.episode_metadata) == (made.metadata, made.episode_metadata)

    @pytest.mark.parametrize("key", ["extra.obs/x", "x/y", "."])
    def test_keys_without_a_place(self, tmp_path, key):
        arrays = {"action": np.ones((8, 2)), "x": np.ones((8, 1)), key: np.ones((8, 1))}
        with pytest.raises(UserError, match=rf"here: key '{key}' has no place in robomimic's layout; rename it"):
            write_episodes(tmp_path / "x.hdf5", MemoryReader(Episodes(arrays, [8], "here")), "robomimic")
        assert list(tmp_path.iterdir()) == []

    def test_no_action(self, tmp_path):
        reader = MemoryReader(Episodes({"state": np.ones((8, 2))}, [8], "here"))
        with pytest.raises(UserError, match=r"here: has no key 'action', which robomimic needs"):
            write_episodes(tmp_path / "x.hdf5", reader, "robomimic")
        assert list(tmp_path.iterdir()) == []

    def test_interrupted(self, tmp_path):
        def stop(done, steps):
            raise KeyboardInterrupt

        reader = MemoryReader(Episodes({"action": np.ones((8, 2))}, [8]))
        with pytest.raises(KeyboardInterrupt):
            write_episodes(tmp_path / "x.hdf5", reader, "robomimic", progress=stop)
        assert list(tmp_path.iterdir()) == []

    def test_disk_full(self, tmp_path):
        """A file that may not grow further, as on a full disk."""
        import resource
        import signal

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            reader = MemoryReader(Episodes({"action": np.ones((100_000, 2))}, [100_000]))
            with pytest.raises(UserError, match=r"x\.hdf5: cannot write it \(.*[Ff]ile too large.*\)"):
                write_episodes(tmp_path / "x.hdf5", reader, "robomimic")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert list(tmp_path.iterdir()) == []


def test_report(file):
    found = inspect(file)
    assert found.problems == ()
    assert "robomimic HDF5, Lift, env_version not given" in found.text
    assert "episodes: 3, steps: 15, steps per episode: 4 min, 5 median, 6 max" in found.text
    assert "  agentview_image: [15, 8, 8, 3] uint8" in found.text
    assert '  env_args: {"env_name": "Lift"' in found.text
    assert "  filters: train (2), valid (1) episodes" in found.text


def test_report_lists_every_value_that_is_not_finite(file):
    with change(file) as handle:
        handle["data/demo_2/obs/object"][3, 1] = np.inf
        handle["data/demo_10/actions"][0, 0] = np.nan
    found = inspect(file)
    assert [problem.split(";")[0] for problem in found.problems] == [
        "data/action holds NaN at step 9 (episode 2, its step 0)",
        "data/object holds Inf at step 7 (episode 1, its step 3)",
    ]
