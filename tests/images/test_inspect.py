import numpy as np
import pytest

from policy_accel.data.images import ImageSet
from policy_accel.errors import UserError
from policy_accel.images.inspect import inspect_images
from policy_accel.images.shapes import write_images_npz


def test_what_is_in_it(tmp_path, pictures):
    train, test = pictures(2500), pictures(3, seed=1)
    path = tmp_path / "x.npz"
    labels = np.arange(2500) % 2
    parts = [ImageSet(train, labels, ("a", "b"), "train"), ImageSet(test, labels[:3], ("a", "b"), "test")]
    write_images_npz(path, *parts)
    found = inspect_images(path)
    lines = found.text.splitlines()
    assert lines[0] == f"{path}: NPZ"
    assert lines[1] == "train: 2500 images of 3 x 8 x 8 (uint8)"
    scaled = train.astype(np.float64) / 255
    mean, deviation = scaled.mean(axis=(0, 2, 3)), scaled.std(axis=(0, 2, 3))
    expected = [" ".join(f"{value:.4f}" for value in values) for values in (mean, deviation)]
    assert lines[2].startswith(f"  mean [{expected[0]}], standard deviation [{expected[1]}]")
    assert lines[3] == "  2 classes: a 1250, b 1250"
    assert lines[4] == "test: 3 images of 3 x 8 x 8 (uint8)"
    assert lines[6] == "  2 classes: a 2, b 1"
    assert lines[-1] == "no problem found"
    assert (found.problems, found.remarks) == ((), ())


def test_doubtful(tmp_path, pictures):
    train = np.repeat(pictures(6, channels=1), 3, axis=1)
    train[4] = train[1]
    path = tmp_path / "x.npz"
    classes = ("a", "b", "c")
    write_images_npz(
        path,
        ImageSet(train, np.array([0, 2, 2, 0, 0, 0]), classes, "train"),
        ImageSet(train[:2], np.array([0, 2]), classes, "test"),
    )
    remarks = inspect_images(path).remarks
    assert "train: 1 images occur again, for example 4 equals 1; keep one of them." in remarks
    assert "train: 1 classes have no image (b); nothing can be learned of them." in remarks
    assert any("train: the three channels are equal in every image" in remark for remark in remarks)
    assert "2 images of the test part are in the training part too; leave them out of one." in remarks


def test_without_labels_and_with_latents(tmp_path):
    latents = np.random.default_rng(0).normal(size=(4, 4, 2, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", latents)
    lines = inspect_images(tmp_path / "x.npy").text.splitlines()
    assert lines[1] == "train: 4 latents of 4 x 2 x 2 (float32)"
    assert lines[2].split()[1] == f"[{latents[:, 0].mean():.4f}"
    assert "range" not in lines[2]
    assert lines[3:5] == ["  no labels", "test: none"]


def test_problem_of_one_part_does_not_hide_the_other(tmp_path, pictures):
    np.savez(tmp_path / "x.npz", images=pictures(3), labels=[0, 1, 2], test_images=pictures(2), test_labels=[0])
    found = inspect_images(tmp_path / "x.npz")
    assert len(found.problems) == 1
    assert "has labels int64 [1] for 2 images" in found.problems[0]
    assert "train: 3 images" in found.text
    assert f"problem: {found.problems[0]}" in found.text


def test_nothing_to_look_at(tmp_path):
    (tmp_path / "text").write_text("x")
    with pytest.raises(UserError, match="text: holds no image set that is known"):
        inspect_images(tmp_path / "text")
