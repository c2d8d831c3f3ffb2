import io
import json

import numpy as np
import pytest

from policy_accel.data.images import image_form, read_images
from policy_accel.errors import UserError


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.fixture
def latents():
    return np.random.default_rng(0).normal(size=(5, 4, 8, 8)).astype(np.float16)


def test_one_array_is_mapped(latents, tmp_path):
    np.save(tmp_path / "x.npy", latents)
    found = read_images(tmp_path / "x.npy", "train")
    assert found.latents
    assert isinstance(found.images, np.memmap)
    np.testing.assert_array_equal(found.images, latents)
    assert (found.shape, found.labels) == ((4, 8, 8), None)
    assert read_images(tmp_path / "x.npy", "test") is None
    assert image_form(tmp_path / "x.npy") == "NPY"
    np.save(tmp_path / "y.npy", latents + 1)
    assert read_images(tmp_path / "y.npy", "train").fingerprint() != found.fingerprint()


@pytest.mark.parametrize("archive", [False, True])
def test_one_file_each(latents, tree, cache, archive):
    names = [f"0000{number % 2}/img{number}.npy" for number in range(5)]
    files = {name: npy(values) for name, values in zip(names, latents, strict=True)}
    files["dataset.json"] = json.dumps({"labels": [[name, number] for number, name in enumerate(names)]}).encode()
    found = read_images(tree(files, archive=archive), "train", cache_dir=cache)
    np.testing.assert_array_equal(found.images, latents[[0, 2, 4, 1, 3]])
    assert found.images.dtype == np.float16
    assert found.labels.tolist() == [0, 2, 4, 1, 3]


def test_zip_of_files_without_folders_is_no_npz(latents, tree, cache):
    files = {f"{number}.npy": npy(values) for number, values in enumerate(latents)}
    np.testing.assert_array_equal(read_images(tree(files, archive=True), "train", cache_dir=cache).images, latents)


def test_resolution_has_no_meaning(latents, tmp_path):
    np.save(tmp_path / "x.npy", latents)
    assert len(read_images(tmp_path / "x.npy", "train", resolution=8)) == 5
    with pytest.raises(UserError, match=r"holds latents of 8 x 8, which cannot be resized to task\.resolution=16"):
        read_images(tmp_path / "x.npy", "train", resolution=16)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(np.full((2, 4, 8, 8), np.inf, np.float32)), "latent 0 has a value that is not finite"),
        (npy(np.zeros((4, 8, 8), np.float32)), r"array of shape \[4, 8, 8\]; images are \[N, C, H, W\]"),
        (npy(np.zeros((2, 4, 8, 8), np.float32))[:-100], "the array is damaged"),
        (npy(np.array([{}], dtype=object)), "the array is damaged"),
    ],
)
def test_arrays_that_are_refused(tmp_path, content, words):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_images(tmp_path / "x.npy", "train")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(np.zeros((4, 8, 9), np.float16)), r"0\.npy is float16 \[4, 8, 8\] and 1\.npy is float16 \[4, 8, 9\]"),
        (npy(np.zeros((4, 8, 8))), r"1\.npy: is float64 \[4, 8, 8\]; encode latents as float16 or float32 \[C, H, W\]"),
        (npy(np.zeros((4, 8, 8), np.float16))[:-2], r"1\.npy: the latent is damaged"),
        (npy(np.array([{}], dtype=object)), r"1\.npy: the latent is damaged"),
        (npy(np.full((4, 8, 8), np.nan, np.float16)), r"latent 1 has a value that is not finite"),
    ],
)
def test_files_that_are_refused(latents, tree, cache, content, words):
    with pytest.raises(UserError, match=words):
        read_images(tree({"0.npy": npy(latents[0]), "1.npy": content}), "train", cache_dir=cache)
