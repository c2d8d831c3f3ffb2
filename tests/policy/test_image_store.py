from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from support.batches import cut_out

from policy_accel.data.episodes import Episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.errors import UserError
from policy_accel.policy.image_store import ImageStore, read_image_store

STEPS = 11


def pictures(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(STEPS, height, width, channels), dtype=np.uint8)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return {"top": pictures(12, 15, 3), "wrist": pictures(9, 9, 1, seed=1)}


def reader(arrays: dict[str, np.ndarray]) -> MemoryReader:
    return MemoryReader(Episodes({**arrays, "action": np.zeros((STEPS, 2))}, np.array([4, 5, STEPS]), source="demos"))


def places(frame: np.ndarray, crop: np.ndarray) -> list[tuple[int, int]]:
    """Every (top, left) at which `crop` stands in `frame`."""
    height, width = crop.shape[:2]
    return [
        (top, left)
        for top in range(frame.shape[0] - height + 1)
        for left in range(frame.shape[1] - width + 1)
        if np.array_equal(frame[top : top + height, left : left + width], crop)
    ]


def test_whole_frames_of_some_rows(arrays):
    store = ImageStore(arrays)
    rows = torch.tensor([[0, 3], [10, 10], [7, 2]])
    assert store.shapes == {"top": (12, 15, 3), "wrist": (9, 9, 1)}
    for found in (
        store.gather(rows),
        store.gather(rows, crop=5),
    ):
        for camera, values in arrays.items():
            assert found[camera].dtype == torch.uint8
            np.testing.assert_array_equal(found[camera].numpy(), values[rows.numpy()])


def test_every_frame_is_cropped_at_a_place_of_its_own(arrays):
    store = ImageStore(arrays)
    rows = torch.arange(STEPS).repeat(60).view(-1, 2)
    found = cut_out(store, rows, 8, torch.Generator().manual_seed(3))
    seen = {}
    for camera, values in arrays.items():
        assert found[camera].shape == (*rows.shape, 8, 8, values.shape[3])
        crops = found[camera].numpy().reshape(-1, 8, 8, values.shape[3])
        seen[camera] = [places(values[row], crop) for row, crop in zip(rows.flatten().tolist(), crops, strict=True)]
        assert all(len(place) == 1 for place in seen[camera])
    assert {place for (place,) in seen["top"]} == {(top, left) for top in range(5) for left in range(8)}
    assert {place for (place,) in seen["wrist"]} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    tops, lefts = np.array([place for (place,) in seen["top"]]).T
    assert abs(tops.mean() - 2) < 0.25
    assert abs(lefts.mean() - 3.5) < 0.4
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2
    assert abs(np.corrcoef(tops[::2], tops[1::2])[0, 1]) < 0.2


def test_the_places_follow_from_the_generator(arrays):
    store, rows = ImageStore(arrays), torch.arange(10).view(5, 2)
    first, again, other = (cut_out(store, rows, 7, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    for camera in arrays:
        assert torch.equal(first[camera], again[camera])
        assert not torch.equal(first[camera], other[camera])


@pytest.mark.parametrize("crop", [9, 1])
def test_the_largest_and_the_smallest_crop_touch_every_edge(arrays, crop):
    store, rows = ImageStore(arrays), torch.full((2000,), STEPS - 1)
    found = cut_out(store, rows, crop, torch.Generator().manual_seed(0))["wrist"].numpy()
    expected = {
        arrays["wrist"][-1, i : i + crop, j : j + crop].tobytes() for i in range(10 - crop) for j in range(10 - crop)
    }
    assert {window.tobytes() for window in found} == expected


def test_a_crop_larger_than_a_camera_is_one_sentence(arrays):
    with pytest.raises(UserError, match=r"crop of 10 px is larger than the frames of wrist, which are 9 x 9 px"):
        cut_out(ImageStore(arrays), torch.zeros(1, 1, dtype=torch.int64), 10, torch.Generator())


@pytest.mark.parametrize("row", [-1, STEPS])
@pytest.mark.parametrize("crop", [None, 8])
def test_a_row_outside_raises(arrays, row, crop):
    with pytest.raises((IndexError, RuntimeError)):
        cut_out(ImageStore(arrays), torch.tensor([row]), crop, torch.Generator())


def test_frames_that_are_no_frames_raise(arrays):
    with pytest.raises(ValueError, match="float32"):
        ImageStore({"top": arrays["top"].astype(np.float32)})
    with pytest.raises(ValueError, match="differ"):
        ImageStore({"top": arrays["top"], "wrist": arrays["wrist"][:-1]})


@pytest.mark.parametrize("share", [1.0, 0.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_reading_into_memory_and_onto_the_disk(arrays, tmp_path, monkeypatch, share, dtype):
    monkeypatch.setattr("policy_accel.policy.image_store._PIECE_BYTES", 2 * 12 * 15 * 3 * np.dtype(dtype).itemsize)
    given = reader({key: values.astype(dtype) for key, values in arrays.items()})
    store = read_image_store(given, ["wrist", "top"], folder=tmp_path / "frames", share=share)
    assert list(store.shapes) == ["wrist", "top"]
    for camera, values in arrays.items():
        np.testing.assert_array_equal(store.frames[camera].numpy(), values)
    assert (tmp_path / "frames").exists() == (share == 0.0)
    assert not list(tmp_path.glob("frames/*"))
    rows, generators = torch.arange(10).view(5, 2), [torch.Generator().manual_seed(0) for _ in range(2)]
    expected = ImageStore({key: arrays[key] for key in ("wrist", "top")})
    for crop in (None, 6):
        found, wanted = (cut_out(s, rows, crop, g) for s, g in zip((store, expected), generators, strict=True))
        assert all(torch.equal(found[camera], wanted[camera]) for camera in arrays)


def test_frames_on_the_disk_do_not_fill_the_memory(tmp_path):
    """A set of 177 MB is read and gathered from with far less memory of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 90


_LARGE = """
import sys, threading, pathlib
import numpy as np, torch
from policy_accel.policy.image_store import read_image_store
from policy_accel.data.formats.base import EpisodeReader, Feature

class Generated(EpisodeReader):
    format, layout, metadata = "memory", "", {}
    features = {"cam": Feature((256, 256, 3), np.dtype(np.uint8))}
    episode_ends = np.arange(300, 901, 300)
    def _read(self, episode, keys, start, stop):
        first = 300 * episode + start
        values = (np.arange(first, first + stop - start) % 251).astype(np.uint8)
        return {"cam": np.broadcast_to(values[:, None, None, None], (stop - start, 256, 256, 3))}

def own_memory():  # without mapped files, whose pages the kernel takes back as it likes
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) // 1024

before = own_memory()
peak = 0
class Watched(Generated):
    def read(self, *arguments):
        global peak
        peak = max(peak, own_memory())
        return super().read(*arguments)

store = read_image_store(Watched("generated"), ["cam"], folder=pathlib.Path(sys.argv[1]), share=0.0)
rows = torch.arange(0, 900, 7)
for piece in rows.split(16):
    found = store.gather(piece, crop=200, places=store.places(piece.shape, 200, torch.Generator()))["cam"]
    assert (found == (piece % 251).to(torch.uint8)[:, None, None, None]).all()
    peak = max(peak, own_memory())
print(peak - before)
"""


def test_a_camera_that_is_not_there_and_values_that_are_no_pixels(arrays):
    with pytest.raises(UserError, match=r"demos: there is no camera 'tpo'; did you mean 'top'\?"):
        read_image_store(reader(arrays), ["tpo"])
    with pytest.raises(UserError, match=r"demos: action holds float64 \[2\] .* cameras are: top, wrist"):
        read_image_store(reader(arrays), ["action"])
    for value in (0.5, -1.0, 256.0):
        spoiled = arrays["top"].astype(np.float32)
        spoiled[6, 2, 3, 1] = value
        with pytest.raises(UserError, match=rf"demos: top holds {value}, .* from 0 to 255"):
            read_image_store(reader({"top": spoiled}), ["top"])


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_floats_from_0_to_1_and_channels_first(arrays, tmp_path, share):
    """The first frames are black and white, so that only later ones tell what 1 means."""
    given = arrays["top"].copy()
    given[:4] = 255 * (given[:4] > 127)
    shares = {"top": np.moveaxis(given / np.float32(255), -1, 1), "wrist": arrays["wrist"]}
    with pytest.warns(UserWarning, match="demos") as told:
        store = read_image_store(reader(shares), ["top", "wrist"], folder=tmp_path, share=share)
    np.testing.assert_array_equal(store.frames["top"].numpy(), given)
    np.testing.assert_array_equal(store.frames["wrist"].numpy(), arrays["wrist"])
    assert [str(warning.message) for warning in told] == [
        "demos: top has its channels first, which are moved last.",
        "demos: top holds values from 0 to 1, which are read times 255.",
    ]


def test_the_fingerprint_tells_sets_apart(arrays):
    store = ImageStore(arrays)
    assert store.fingerprint() == ImageStore({key: values.copy() for key, values in arrays.items()}).fingerprint()
    changed = {key: values.copy() for key, values in arrays.items()}
    changed["wrist"][5, 0, 0] ^= 1
    renamed = {"side": arrays["top"], "wrist": arrays["wrist"]}
    assert len({ImageStore(other).fingerprint() for other in (arrays, changed, renamed)}) == 3


def test_frames_move_only_where_they_fit(arrays):
    """The meta device stands for an accelerator: its tensors say where they are, and hold nothing."""
    store = ImageStore(arrays)
    store.to(torch.device("cpu"), share=0.0)
    assert store.resident
    assert store.bytes == sum(values.nbytes for values in arrays.values())
    store.to(torch.device("meta"))
    assert store.resident
    found = store.gather(torch.zeros(3, 2, dtype=torch.int64, device="meta"), crop=5)
    assert found["top"].shape == (3, 2, 12, 15, 3)
    kept = ImageStore(arrays)
    kept.to(torch.device("meta"), share=0.0)
    assert not kept.resident
    assert kept.frames["top"].device.type == "cpu"
    assert kept.gather(torch.zeros(3, 2, dtype=torch.int64))["top"].device.type == "meta"
