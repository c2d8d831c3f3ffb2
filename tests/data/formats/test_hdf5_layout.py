"""HDF5 of other makes: ALOHA's folders, D4RL's files, and any by a layout."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from policy_accel.data import read_episodes
from policy_accel.data.readers import open_episodes
from policy_accel.errors import UserError

LENGTHS = {0: 4, 2: 5, 10: 6}
ENDS = [4, 9, 15]


def frames(number: int, camera: int = 0) -> np.ndarray:
    """Pictures of one grey each, which tells step and camera: [N, 8, 8, 3] uint8."""
    grey = (20 * np.arange(LENGTHS[number]) + number + 3 * camera).astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (LENGTHS[number], 8, 8, 3)).copy()


def files_of(pictures: np.ndarray, kind: str = "JPEG") -> list[bytes]:
    files = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, kind, **({"quality": 100} if kind == "JPEG" else {}))
        files.append(file.getvalue())
    return files


def padded(files: list[bytes]) -> np.ndarray:
    longest = max(map(len, files)) + 7
    return np.stack([np.frombuffer(file.ljust(longest, b"\0"), np.uint8) for file in files])


@pytest.fixture
def aloha(tmp_path: Path) -> Path:
    for number, steps in LENGTHS.items():
        with h5py.File(tmp_path / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"], file.attrs["compress"] = False, True
            file["action"] = np.full((steps, 14), number, np.float32)
            file["base_action"] = np.full((steps, 2), number, np.float32)
            for name in ("qpos", "qvel", "effort"):
                file[f"observations/{name}"] = np.full((steps, 14), number)
            file["observations/images/top"] = padded(files_of(frames(number)))
            file["observations/images/left"] = frames(number, 1)
            file["compress_len"] = np.zeros((2, steps))
    return tmp_path


def test_a_folder_of_aloha(aloha: Path) -> None:
    (aloha / "dataset_stats.pkl").write_bytes(b"?")
    read = read_episodes(aloha)
    assert read.episode_ends.tolist() == ENDS
    assert read.arrays["qpos"][:, 0].tolist() == [0] * 4 + [2] * 5 + [10] * 6
    assert set(read.arrays) == {"action", "base_action", "qpos", "qvel", "effort", "images.top", "images.left"}
    np.testing.assert_array_equal(read.arrays["images.top"], np.concatenate([frames(n) for n in LENGTHS]))
    np.testing.assert_array_equal(read.arrays["images.left"][4:9], frames(2, 1))
    assert read.episode_metadata[2] == {"name": "episode_10.hdf5", "sim": False}


def test_one_file_of_aloha(aloha: Path) -> None:
    read = read_episodes(aloha / "episode_2.hdf5", ["action", "images.top"])
    assert read.lengths.tolist() == [5]
    np.testing.assert_array_equal(read.arrays["images.top"], frames(2))


def test_episodes_of_different_cameras(aloha: Path) -> None:
    with h5py.File(aloha / "episode_2.hdf5", "r+") as file:
        del file["observations/images/left"]
        file["observations/images/wrist"] = frames(2)
    with pytest.warns(
        UserWarning, match=r"images/left of episode_2\.hdf5 is missing or cannot be opened, that of episode_0\.hdf5"
    ):
        assert "images.wrist" not in read_episodes(aloha, ["action", "images.top"]).arrays
    with pytest.warns(
        UserWarning, match=r"episode 1 is left out: observations/images/left of episode_2\.hdf5 is missing"
    ):
        assert len(read_episodes(aloha, ["images.left"], skip_bad_episodes=True)) == 2
    with pytest.raises(
        UserError, match=r"'images\.wrist' cannot be used: observations/images/wrist of episode_0\.hdf5 is"
    ):
        read_episodes(aloha, ["images.wrist"])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data/demo_0/actions"] = np.zeros((3, 2))


def one_damaged_picture(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["observations/images/top"][0] = 7


def one_of_another_size(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["observations/images/top"][3, :] = 0
        (small,) = files_of(np.zeros((1, 2, 2, 3), np.uint8))
        file["observations/images/top"][3, : len(small)] = np.frombuffer(small, np.uint8)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "episode_2.hdf5: the HDF5 file is damaged"),
        (empty, "episode_2.hdf5: the HDF5 file is damaged"),
        (other, "action of episode_2.hdf5 is missing or cannot be opened, that of episode_0.hdf5 is [14]"),
        (one_damaged_picture, "observations/images/top of episode_2.hdf5 is"),
        (one_of_another_size, "images/top of episode_2.hdf5 is damaged (a picture of another size, (2, 2)"),
    ],
)
def test_one_bad_file(aloha: Path, damage: Any, words: str) -> None:
    damage(aloha / "episode_2.hdf5")
    with pytest.raises(UserError) as error:
        read_episodes(aloha, ["action", "images.top"])
    assert words in str(error.value)
    with pytest.warns(UserWarning, match="episode 1 is left out"):
        assert len(read_episodes(aloha, ["action", "images.top"], skip_bad_episodes=True)) == 2


@pytest.mark.parametrize("kind", ["text", "vlen", "padded"])
def test_pictures_as_files(tmp_path: Path, kind: str) -> None:
    """Also depth, 16 bits a pixel."""
    colour = files_of(np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8), "PNG")
    depth = files_of(np.arange(4 * 30, dtype=np.uint16).reshape(4, 5, 6) * 500, "PNG")
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["action"] = np.zeros((4, 2))
        for name, files in (("colour", colour), ("depth", depth)):
            if kind == "vlen":
                array = file.create_dataset(f"observations/{name}", 4, h5py.vlen_dtype(np.uint8))
                for row, one in enumerate(files):
                    array[row] = np.frombuffer(one, np.uint8)
            else:
                file[f"observations/{name}"] = padded(files) if kind == "padded" else np.array(files)
    read = read_episodes(tmp_path / "x.hdf5")
    np.testing.assert_array_equal(read.arrays["colour"][3], np.asarray(Image.open(io.BytesIO(colour[3]))))
    assert read.arrays["depth"].dtype == np.uint16
    np.testing.assert_array_equal(read.arrays["depth"].ravel(), np.arange(120) * 500)


def test_d4rl(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "door.hdf5", "w") as file:
        file["actions"] = np.arange(15.0)[:, None]
        file["observations"] = np.arange(45.0).reshape(15, 3)
        file["infos/qpos"] = np.zeros((15, 2))
        file["rewards"] = np.ones(15, np.float32)
        file["terminals"] = np.arange(15) == 3
        file["timeouts"] = np.arange(15) == 8
        file["metadata/algorithm"] = "SAC"
    read = read_episodes(tmp_path / "door.hdf5")
    assert read.episode_ends.tolist() == ENDS
    assert set(read.arrays) == {"action", "observation", "info.qpos", "reward", "done", "truncated"}
    np.testing.assert_array_equal(read.arrays["action"][:, 0], np.arange(15))


def lab(path: Path, **more: Any) -> Path:
    """A file of another make: episodes below trials/, and all of them end to end below flat/."""
    with h5py.File(path, "w") as file:
        for number, steps in LENGTHS.items():
            file[f"trials/run{number}/command"] = np.full((steps, 2), number)
            file[f"trials/run{number}/sensors/arm/q"] = np.full((steps + 1, 3), float(number))
            file[f"trials/run{number}/note"] = "fine"
        file["flat/command"], file["flat/q"] = np.arange(30.0).reshape(15, 2), np.zeros((15, 3))
        file["index/ends"], file["index/lengths"] = np.array(ENDS), np.array(list(LENGTHS.values()))
        file["flat/last"] = np.isin(np.arange(15), [3, 8, 14]).astype(np.uint8)
        for name, values in more.items():
            file[name] = values
    return path


BELOW = "episodes: trials/run*\nkeys: {action: command, state: sensors/arm/q}\n"
FLAT = "episodes: flat\nkeys: {action: command, state: q}\n"


@pytest.mark.parametrize(
    "text", [BELOW, *(FLAT + end for end in ("ends: /index/ends", "lengths: /index/lengths", "last: [last]"))]
)
def test_layout(tmp_path: Path, text: str) -> None:
    file, layout = lab(tmp_path / "lab.h5"), tmp_path / "it.yaml"
    layout.write_text(text)
    read = read_episodes(file, layout=layout)
    assert read.episode_ends.tolist() == ENDS
    assert set(read.arrays) == {"action", "state"}
    expected = np.repeat([[0, 2, 10]], 2, 0).T.repeat([4, 5, 6], 0) if text == BELOW else np.arange(30.0).reshape(15, 2)
    np.testing.assert_array_equal(read.arrays["action"], expected)
    with open_episodes(file, layout=layout) as reader:
        np.testing.assert_array_equal(reader.read(1, ["action"], 1, 3)["action"], expected[5:7])


@pytest.mark.parametrize(
    ("text", "count"), [(BELOW + "files: 'day*.h5'", 6), (FLAT + "files: 'day*.h5'\nends: /index/ends", 6)]
)
def test_layout_of_a_folder(tmp_path: Path, text: str, count: int) -> None:
    for day in (1, 10, 2):
        lab(tmp_path / f"day{day}.h5")
    (tmp_path / "day10.h5").unlink()
    (tmp_path / "it.yaml").write_text(text)
    assert len(read_episodes(tmp_path, layout=tmp_path / "it.yaml")) == count


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 3", "it.yaml: is no layout ("),
        ("[" * 5000, "it.yaml: is no layout ("),
        (
            "episode: x",
            "it.yaml: is no layout (Key 'episode' not in 'Hdf5Layout' full_key: episode); it may set keys, ep",
        ),
        (
            "last: end",
            "it.yaml: is no layout (Invalid value assigned: AnyNode is not a ListConfig, list or tuple. full_key: last",
        ),
        ("keys: [a]", "it.yaml: is no layout ("),
        ("episodes: runs/*", "lab.h5: has no group runs/*. Say where the data lies: task.layout="),
        (BELOW.replace("sensors/arm/q", "sensors/arm"), "'state' cannot be used: sensors/arm of run0 is a group"),
        (BELOW.replace("arm/q", "arm/p"), "'state' cannot be used: sensors/arm/p is missing or cannot be opened"),
        (FLAT + "ends: index", "index is no list of numbers that tells episodes apart"),
        (FLAT + "ends: /falling", "/falling is not increasing: /falling[1] is 2 after 4"),
        (FLAT + "ends: /short", "command of flat is [2] float64 a step and has +6 rows against the steps"),
    ],
)
def test_layouts_that_do_not_fit(tmp_path: Path, text: str, words: str) -> None:
    file = lab(tmp_path / "lab.h5", falling=np.array([4, 2, 15]), short=np.array([4, 9]))
    (tmp_path / "it.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_episodes(file, ["action", "state"], layout=tmp_path / "it.yaml")
    assert words in str(error.value)


def test_an_unknown_file_says_what_it_holds_and_where_to_say_more(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        open_episodes(lab(tmp_path / "lab.h5"))
    assert "has no group data/ of demonstrations" in str(error.value)
    assert "found flat/command [15, 2], flat/last [15], flat/q [15, 3], index/ends [3], index/lengths [3] (14" in str(
        error.value
    )
    assert "task.layout=FILE.yaml, or --layout FILE.yaml of `data` and `evaluate` (docs/how_to/hdf5.md)" in str(
        error.value
    )
