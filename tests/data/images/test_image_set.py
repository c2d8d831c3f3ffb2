import numpy as np
import pytest

from policy_accel.data.images import ImageSet
from policy_accel.errors import UserError


def test_properties(pictures):
    made = ImageSet(pictures(3, size=(4, 6)), np.array([0, 1, 0]), ("a", "b"), "made")
    assert (len(made), made.shape, made.latents) == (3, (3, 4, 6), False)


def test_fingerprint_is_of_the_content(pictures):
    images, labels = pictures(3), np.array([0, 1, 0])
    first = ImageSet(images, labels, ("a", "b"), "one place").fingerprint()
    assert first == ImageSet(images.copy(), labels.copy(), ("a", "b"), "another").fingerprint()
    other = images.copy()
    other[2, 2, 7, 7] ^= 1
    assert first == ImageSet(np.asfortranarray(images), labels, ("a", "b"), "x").fingerprint()
    for changed in (
        ImageSet(other, labels, ("a", "b"), "x"),
        ImageSet(images, labels[::-1] * 0, ("a", "b"), "x"),
        ImageSet(images, labels, ("a", "c"), "x"),
        ImageSet(images, None, (), "x"),
        ImageSet(images.reshape(3, 3, 4, 16), labels, ("a", "b"), "x"),
    ):
        assert changed.fingerprint() != first


def test_fingerprint_of_a_key_reads_no_image(pictures):
    class Unreadable(np.ndarray):
        def __getitem__(self, _):
            raise AssertionError

    images = pictures(3)
    made = ImageSet(images, None, (), "x", key="abc")
    object.__setattr__(made, "images", images.view(Unreadable))
    assert made.fingerprint() == ImageSet(images * 0, None, (), "y", key="abc").fingerprint()


@pytest.mark.parametrize(
    ("labels", "classes", "words"),
    [
        (None, ("a",), "has 1 class names and no labels"),
        (np.zeros(3, np.int32), ("a",), r"has labels int32 \[3\] for 3 images"),
        (np.zeros(2, np.int64), ("a",), r"has labels int64 \[2\] for 3 images"),
        (np.zeros((3, 1), np.int64), ("a",), r"has labels int64 \[3, 1\] for 3 images"),
        (np.array([0, 1, 0]), ("a",), r"label 1 of image 1 is outside 0\.\.0"),
    ],
)
def test_labels_that_do_not_fit(pictures, labels, classes, words):
    with pytest.raises(UserError, match=f"made: {words}"):
        ImageSet(pictures(3), labels, classes, "made")
