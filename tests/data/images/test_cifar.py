import gzip
import io
import os
import pickle
import tarfile
import tracemalloc

import numpy as np
import pytest

from policy_accel.data.images import image_form, read_images
from policy_accel.errors import UserError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def python2_pickle(batch):
    """Protocol 2 as Python 2 writes it: byte strings for text and for the array's bytes."""

    def text(value):
        return b"U" + bytes([len(value)]) + value.encode()

    def encode(value):
        if isinstance(value, np.ndarray):
            rows, columns = value.shape
            content = value.tobytes()
            kind = b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xff"
            kind += b"J\xff\xff\xff\xffK\x00tb"
            start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
            shape = b"J" + rows.to_bytes(4, "little") + b"J" + columns.to_bytes(4, "little") + b"\x86"
            bulk = b"T" + len(content).to_bytes(4, "little") + content
            return start + b"(K\x01" + shape + kind + b"\x89" + bulk + b"tb"
        if isinstance(value, list):
            return b"](" + b"".join(encode(item) for item in value) + b"e"
        if isinstance(value, int):
            return b"K" + bytes([value])
        return text(value)

    return b"\x80\x02}(" + b"".join(text(key) + encode(value) for key, value in batch.items()) + b"u."


@pytest.fixture
def cifar10(pictures):
    """Files of CIFAR-10, Python version, with four images a batch; and what they hold."""
    files = {"cifar-10-batches-py/batches.meta": python2_pickle({"label_names": NAMES, "num_vis": 3})}
    images = pictures(24, size=(32, 32))
    labels = np.arange(24) * 7 % 10
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows = slice(4 * number, 4 * number + 4)
        batch = {"batch_label": name, "labels": labels[rows].tolist(), "data": images[rows].reshape(4, -1)}
        files[f"cifar-10-batches-py/{name}"] = python2_pickle(batch)
    return files, images, labels


def pack(files, path, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def check(path, images, labels):
    train, test = read_images(path, "train"), read_images(path, "test")
    np.testing.assert_array_equal(train.images, images[:20])
    np.testing.assert_array_equal(train.labels, labels[:20])
    np.testing.assert_array_equal(test.images, images[20:])
    np.testing.assert_array_equal(test.labels, labels[20:])
    assert train.classes == test.classes == tuple(NAMES)
    assert train.labels.dtype == np.int64


def test_python2_pickles_are_what_numpy_would_load(cifar10):
    files, images, _ = cifar10
    loaded = pickle.loads(files["cifar-10-batches-py/data_batch_1"], encoding="bytes")
    np.testing.assert_array_equal(loaded[b"data"], images[:4].reshape(4, -1))


def test_python_version_in_every_place(cifar10, tree, tmp_path):
    files, images, labels = cifar10
    folder = tree(files)
    check(folder, images, labels)
    check(folder / "cifar-10-batches-py", images, labels)
    (tmp_path / "download").mkdir()
    archive = pack(files, tmp_path / "download/cifar-10-python.tar.gz")
    check(archive, images, labels)
    check(archive.parent, images, labels)
    check(archive.rename(tmp_path / "no_suffix"), images, labels)
    check(pack(files, tmp_path / "plain.tar", "w"), images, labels)
    assert image_form(folder) == "CIFAR-10 (Python version)"


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_pickles_of_python3(cifar10, tree, protocol):
    """Protocol 2 of Python 3 writes bytes through _codecs.encode, protocol 5 as an array of bytes."""
    files, images, labels = cifar10
    again = {name: pickle.dumps(pickle.loads(old, encoding="latin1"), protocol) for name, old in files.items()}
    check(tree(again), images, labels)


def test_without_test_batch(cifar10, tree):
    files, *_ = cifar10
    del files["cifar-10-batches-py/test_batch"]
    assert read_images(tree(files), "test") is None


def test_binary_version(pictures, tree, tmp_path):
    images, labels = pictures(24, size=(32, 32)), np.arange(24) % 10
    records = [bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True)]
    files = {"cifar-10-batches-bin/batches.meta.txt": ("\n".join(NAMES) + "\n\n").encode()}
    for number, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        files[f"cifar-10-batches-bin/{name}"] = b"".join(records[4 * number : 4 * number + 4])
    check(tree(files), images, labels)
    check(pack(files, tmp_path / "cifar-10-binary.tar.gz"), images, labels)
    files["cifar-10-batches-bin/test_batch.bin"] += b"x"
    with pytest.raises(UserError, match=r"test_batch\.bin: the CIFAR batch is damaged .*12293 into shape \(3073\)"):
        read_images(tree(files, "cut"), "test")


def test_cifar100_takes_the_fine_labels(pictures, tree):
    images, fine = pictures(6, size=(32, 32)), [5, 99, 0, 7, 7, 50]
    names = [f"class {number:02d}" for number in range(100)]
    python = {"meta": python2_pickle({"fine_label_names": names, "coarse_label_names": ["x"]})}
    binary = {"fine_label_names.txt": "\n".join(names).encode()}
    for part, rows in (("train", slice(0, 4)), ("test", slice(4, 6))):
        batch = {"fine_labels": fine[rows], "coarse_labels": [0] * 4, "data": images[rows].reshape(-1, 3072)}
        python[part] = python2_pickle(batch)
        binary[f"{part}.bin"] = b"".join(
            bytes([19, label]) + image.tobytes() for label, image in zip(fine[rows], images[rows], strict=True)
        )
    for name, files in (("python", python), ("binary", binary)):
        found = read_images(tree(files, name), "train")
        np.testing.assert_array_equal(found.images, images[:4])
        assert found.labels.tolist() == fine[:4]
        assert found.classes[99] == "class 99"


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [(os.system, "touch {}"), (exec, "open({!r}, 'w')"), (gzip.open, "{}", "w")])
@pytest.mark.parametrize("place", ["data_batch_3", "batches.meta"])
def test_malicious_pickle_does_nothing(cifar10, tree, tmp_path, call, place):
    files, *_ = cifar10
    victim = tmp_path / "victim"
    function, *arguments = call
    attack = Malicious(function, *(argument.format(str(victim)) for argument in arguments))
    files[f"cifar-10-batches-py/{place}"] = pickle.dumps({"data": attack, "labels": [1]}, protocol=2)
    with pytest.raises(UserError, match=rf"{place}: (the CIFAR batch is damaged|has 0 class names)"):
        read_images(tree(files), "train")
    assert not victim.exists()


def test_place_in_the_memo_takes_no_memory(cifar10, tree):
    """A pickle may number its parts as it likes, which the ordinary loader makes room for."""
    files, images, labels = cifar10
    name = "cifar-10-batches-py/data_batch_1"
    files[name] = files[name].replace(b"}(", b"}r" + (2**32 - 1).to_bytes(4, "little") + b"(", 1)
    tracemalloc.start()
    check(tree(files), images, labels)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.pop("data_batch_4"), r"data_batch_4: is not there; add it, or download"),
        (
            lambda f: f.update(data_batch_2=f["data_batch_2"][:5000]),
            r"data_batch_2: the CIFAR batch is damaged",
        ),
        (lambda f: f.update(data_batch_2=b"<html>"), r"data_batch_2: the CIFAR batch is damaged"),
        (lambda f: f.update(data_batch_2=pickle.dumps([1], 2)), r"data_batch_2: holds an array of shape \[0, 3,"),
        (
            lambda f: f.update(data_batch_2=python2_pickle({"labels": [1]})),
            r"data_batch_2: the CIFAR batch is damaged",
        ),
        (
            lambda f: f.update(data_batch_2=python2_pickle({"data": np.zeros((2, 3072), np.uint8)})),
            r"data_batch_2: has labels int64 \[0\] for 2 images",
        ),
        (
            lambda f: f.update(data_batch_2=python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [1]})),
            r"data_batch_2: has labels int64 \[1\] for 2 images",
        ),
        (
            lambda f: f.update(data_batch_2=python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": [10]})),
            r"data_batch_2: label 10 of image 0 is outside 0\.\.9",
        ),
        (
            lambda f: f.update({"batches.meta": python2_pickle({"label_names": ["a"]})}),
            r"has 1 class names instead of 10",
        ),
    ],
)
def test_damage_is_named(cifar10, tree, change, words):
    files = {name.partition("/")[2]: content for name, content in cifar10[0].items()}
    change(files)
    with pytest.raises(UserError, match=words):
        read_images(tree(files), "train")


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_cut_off_archive(cifar10, tmp_path, keep):
    path = pack(cifar10[0], tmp_path / "cifar-10-python.tar.gz")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz: the archive is damaged \(.*download"):
        read_images(path, "train")
