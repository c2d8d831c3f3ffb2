import re
import subprocess
import sys

import numpy as np
import pytest
import zarr
from support.data import write_zarr

from policy_accel.data import Episodes, inspect, write_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.inspect import inspect_reader
from policy_accel.errors import UserError


def buffer(path, ends=(20, 50), **arrays):
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for key, values in arrays.items():
        root.create_array(f"data/{key}", data=values, chunks=(max(1, len(values) // 2), *values.shape[1:]))
    if ends is not None:
        root.create_array("meta/episode_ends", data=np.array(ends))
    return path


def sound(steps=50):
    return np.random.default_rng(0).normal(size=(steps, 2))


def line_of(text, start):
    return next(line.split() for line in text.splitlines() if line.split()[0] == start)


def test_report_on_sound_data(tmp_path):
    action = np.column_stack([np.arange(50.0), np.linspace(-4, 4, 50)])
    image = np.random.default_rng(0).integers(0, 256, size=(50, 4, 4, 3), dtype=np.uint8)
    write_zarr(tmp_path / "x.zarr.zip", Episodes({"action": action, "img": image}, [20, 50]))
    found = inspect(tmp_path / "x.zarr.zip")
    assert found.problems == ()
    lines = found.text.splitlines()
    assert lines[0].endswith("x.zarr.zip: zarr v2, zip")
    assert lines[1] == "episodes: 2, steps: 50, steps per episode: 20 min, 25 median, 30 max"
    assert "  action: [50, 2] float64" in lines
    assert line_of(found.text, "0:") == ["0:", "min", "0", "max", "49", "mean", "24.5"]
    assert line_of(found.text, "1:")[:5] == ["1:", "min", "-4", "max", "4"]
    assert "  img: [50, 4, 4, 3] uint8" in lines
    assert line_of(found.text, "all:")[-1] == f"{image.mean():.6g}"
    assert lines[-1] == "no problem found"


def test_real_file(shared_data):
    found = inspect(shared_data / "pusht_v7_u8.zarr.zip")
    assert found.problems == ()
    assert "episodes: 206, steps: 25650, steps per episode: 49 min, 122 median, 246 max" in found.text
    assert "  img: [25650, 96, 96, 3] uint8" in found.text
    assert line_of(found.text, "4:") == ["4:", "min", "0.000215591", "max", "6.28309", "mean", "1.81949"]


def one(found, *words, kind="problem"):
    """Exactly one problem (or remark) holds all the words."""
    sentences = found.problems if kind == "problem" else found.remarks
    matches = [sentence for sentence in sentences if all(word in sentence for word in words)]
    assert len(matches) == 1, sentences
    assert f"{kind}: {matches[0]}" in found.text


def remark(found, *words):
    one(found, *words, kind="remark")


def test_everything_at_once(tmp_path):
    action, state = sound(), sound(49)
    action[30, 1] = np.nan
    path = buffer(tmp_path / "x.zarr", ends=(20, 20, 50), action=action, state=state, still=np.ones((50, 3)))
    (path / "data/broken").mkdir()
    (path / "data/broken/.zarray").write_text("{")
    found = inspect(path)
    one(found, "episode 1 has no step")
    one(found, "data/action holds NaN at step 30 (episode 2, its step 10)")
    one(found, "data/broken/.zarray is damaged")
    remark(found, "state is left out: data/state has 49 rows and the episodes have 50 steps")
    remark(found, "data/still never changes in dimension 0, 1, 2")
    remark(found, "1 of 3 episodes is shorter than a training window of 16 steps (policy.horizon)")
    assert (len(found.problems), len(found.remarks)) == (3, 3)
    assert "episodes: 3, steps: 50" in found.text


def test_actions_that_are_left_out_are_a_problem(tmp_path):
    one(inspect(buffer(tmp_path / "x.zarr", action=sound(49), state=sound())), "action is left out: data/action has 49")


def test_without_episode_ends(tmp_path):
    with pytest.raises(UserError, match="meta/episode_ends is missing"):
        inspect(buffer(tmp_path / "x.zarr", ends=None, action=sound()))


def test_ends_past_the_data(tmp_path):
    found = inspect(buffer(tmp_path / "x.zarr", ends=(20, 50, 80, 110), action=sound()))
    one(found, "goes to step 110, past the data, which has 50 steps")
    assert len(found.problems) == 1
    assert "0: min -" in found.text


def test_faults_are_listed_up_to_twenty(tmp_path):
    reader = MemoryReader(Episodes({"action": sound()}, np.arange(1, 51)))
    reader.faults = {episode: f"episode {episode} is bad." for episode in range(0, 50, 2)}
    found = inspect_reader(reader)
    assert found.problems[:2] == ("episode 0 is bad.", "episode 2 is bad.")
    assert found.problems[20:] == ("5 further faults of episodes.",)


def test_arrays_outside_of_the_observations(tmp_path):
    made = MemoryReader(Episodes({key: sound() for key in ("action", "pos", "extra.force", "extra.a/b")}, [20, 50]))
    write_episodes(tmp_path / "x.hdf5", made, "robomimic")
    one(inspect(tmp_path / "x.hdf5"), "extra.a/b, extra.force: outside of", "--layout FILE.yaml", kind="remark")


@pytest.mark.parametrize(
    ("name", "own"), [("robomimic", ["actions", "obs/pos"]), ("lerobot", ["observation.pos"]), ("zarr", [])]
)
def test_the_names_of_the_file_are_beside_ours(tmp_path, name, own):
    write_episodes(tmp_path / "set", MemoryReader(Episodes({"action": sound(), "pos": sound()}, [20, 50])), name)
    text = inspect(tmp_path / "set").text
    assert re.findall(r"in the file: (.*)\)", text) == own


def test_nan_names_the_episode(tmp_path):
    action = sound()
    action[30, 1] = np.nan
    one(inspect(buffer(tmp_path / "x.zarr", action=action)), "NaN at step 30 (episode 1, its step 10)")


def test_one_constant_dimension(tmp_path):
    action = sound()
    action[:, 1] = 7
    remark(inspect(buffer(tmp_path / "x.zarr", action=action)), "data/action never changes in dimension 1;")


def test_duplicate_and_short_episodes(tmp_path):
    action = sound(60)
    action[45:60] = action[20:35]
    found = inspect(buffer(tmp_path / "x.zarr", ends=(20, 35, 45, 60), action=action))
    remark(found, "episode 3 equals episode 1 in every key; keep one of them")
    remark(
        found,
        "3 of 4 episodes are shorter than a training window of 16 steps (policy.horizon), which leaves few windows or "
        "none: 1 (15), 2 (10), 3 (15).",
    )
    assert (len(found.problems), len(found.remarks)) == (0, 2)


def test_episodes_that_differ_in_one_key_are_no_duplicates(tmp_path):
    action = np.concatenate([sound(20), sound(20)])
    remark(inspect(buffer(tmp_path / "a.zarr", ends=(20, 40), action=action)), "episode 1 equals episode 0")
    assert inspect(buffer(tmp_path / "b.zarr", ends=(20, 40), action=action, state=sound(40))).remarks == ()


@pytest.mark.parametrize(("change", "problem"), [(0.0, True), (0.5, False), (300.0, False), (-200.0, False)])
def test_images_as_floats(tmp_path, change, problem):
    image = np.random.default_rng(0).integers(0, 256, size=(50, 4, 4, 3)).astype(np.float32)
    image[49, 3, 3, 2] += change
    found = inspect(buffer(tmp_path / "x.zarr", action=sound(), img=image))
    if problem:
        remark(found, "data/img holds 8-bit values as float32, 4 times the size; store images as uint8")
    assert len(found.remarks) == problem


def test_chunk_that_is_not_stored(tmp_path):
    path = buffer(tmp_path / "x.zarr", action=sound())
    (path / "data/action/1.0").unlink()
    remark(inspect(path), "1 of 2 chunks of data/action are not stored", "copy the file again")


def test_damaged_chunk(tmp_path):
    path = buffer(tmp_path / "x.zarr", action=sound())
    (path / "data/action/1.0").write_bytes(b"no")
    one(inspect(path), "a chunk of data/action at steps 25..49")


def test_empty_buffer(tmp_path):
    path = buffer(tmp_path / "x.zarr")
    zarr.open_group(path, mode="a", zarr_format=2).create_group("data")
    one(inspect(path), "holds no array of steps")


def test_nothing_to_look_at(tmp_path):
    with pytest.raises(UserError, match="nowhere: does not exist"):
        inspect(tmp_path / "nowhere")


def test_needs_no_torch(tmp_path):
    path = buffer(tmp_path / "x.zarr", action=sound())
    code = (
        f"import sys; from policy_accel.data import inspect; inspect({str(path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
