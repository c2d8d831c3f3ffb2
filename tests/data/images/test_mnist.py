import gzip
import struct

import numpy as np
import pytest

from policy_accel.data.images import image_form, read_images
from policy_accel.errors import UserError


def idx(values):
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def mnist(pictures):
    """The four files, uncompressed, with six and three images; and what they hold."""
    images = pictures(9, channels=1, size=(28, 28))
    labels = (np.arange(9) * 3 % 10).astype(np.uint8)
    files = {
        "train-images-idx3-ubyte": idx(images[:6, 0]),
        "train-labels-idx1-ubyte": idx(labels[:6]),
        "t10k-images-idx3-ubyte": idx(images[6:, 0]),
        "t10k-labels-idx1-ubyte": idx(labels[6:]),
    }
    return files, images, labels


@pytest.mark.parametrize("form", ["plain", "gz", "dots", "below"])
def test_names_in_use(mnist, tree, form):
    files, images, labels = mnist
    if form == "gz":
        files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    if form == "dots":
        files = {name.replace("-idx", ".idx"): content for name, content in files.items()}
    if form == "below":
        files = {f"raw/{name}": content for name, content in files.items()}
    path = tree(files)
    for split, rows in (("train", slice(0, 6)), ("test", slice(6, 9))):
        found = read_images(path, split)
        np.testing.assert_array_equal(found.images, images[rows])
        np.testing.assert_array_equal(found.labels, labels[rows])
        assert found.labels.dtype == np.int64
        assert found.classes == tuple("0123456789")
        assert found.images.flags.writeable
    assert image_form(path) == "MNIST (IDX)"


def test_without_test_part(mnist, tree):
    files = {name: content for name, content in mnist[0].items() if name.startswith("train")}
    assert read_images(tree(files), "test") is None


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("train-images-idx3-ubyte", lambda c: c[:-1], r"the IDX file is damaged .*4703 into shape \(6,28,28\)"),
        ("train-images-idx3-ubyte", lambda c: c[:10], r"train-images-idx3-ubyte: the IDX file is damaged"),
        ("train-images-idx3-ubyte", lambda c: b"<!DOCTYPE html>.", r"the IDX file is damaged \(it begins with b'<!DO'"),
        ("train-images-idx3-ubyte", lambda c: gzip.compress(c)[:-20], r"the archive is damaged"),
        ("train-labels-idx1-ubyte", lambda c: idx(np.zeros(5, np.uint8)), r"has labels int64 \[5\] for 6 images"),
        ("train-labels-idx1-ubyte", None, r"train-labels-idx1-ubyte: is not there; add it, or download"),
        ("train-images-idx3-ubyte", None, r"train-images-idx3-ubyte: is not there; add it, or download"),
    ],
)
def test_damage_is_named(mnist, tree, name, change, words):
    files = mnist[0]
    content = files.pop(name)
    if change is not None:
        files[name] = change(content)
    with pytest.raises(UserError, match=words):
        read_images(tree(files), "train")


def test_the_real_set(shared_data):
    train, test = (read_images(shared_data / "mnist", split) for split in ("train", "test"))
    assert (len(train), len(test), train.shape) == (60_000, 10_000, (1, 28, 28))
    # Published moments of the training set, and the first ten labels as its web page showed them.
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert train.images.std() / 255 == pytest.approx(0.3081, abs=5e-5)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
