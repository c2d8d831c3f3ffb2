"""What is wrong with a file in robomimic's layout is said in a sentence, and left out where it can be."""

import os

import h5py
import numpy as np
import pytest

from policy_accel.data import Episodes, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import write_episodes
from policy_accel.errors import UserError

from .conftest import LENGTHS, arrays_of, change, delete, put, set_attribute


def only_later(handle):
    for demo in ("demo_2", "demo_10"):
        handle[f"data/{demo}/obs/force"] = np.zeros((LENGTHS[demo], 3))


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
