import numpy as np
import pytest

from policy_accel.data.formats.recognise import recognised_format
from policy_accel.data.images import ImageSet, image_form, read_images
from policy_accel.errors import UserError
from policy_accel.images.shapes import make_shapes, write_images_npz


def test_written_and_read_again(tmp_path):
    train, test = make_shapes(20, seed=0), make_shapes(5, seed=0, stream=1)
    path = tmp_path / "made.npz"
    write_images_npz(path, train, test)
    for split, part in (("train", train), ("test", test)):
        found = read_images(path, split)
        np.testing.assert_array_equal(found.images, part.images)
        np.testing.assert_array_equal(found.labels, part.labels)
        assert found.classes == part.classes
    again = tmp_path / "again.npz"
    write_images_npz(again, train, test)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match=r"made\.npz: exists already and is not overwritten"):
        write_images_npz(path, train, None)


def test_without_test_part_and_labels(tmp_path, pictures):
    part = ImageSet(pictures(4, channels=1), None, (), "made")
    write_images_npz(tmp_path / "x.npz", part, None)
    assert read_images(tmp_path / "x.npz", "test") is None
    found = read_images(tmp_path / "x.npz", "train")
    assert (found.labels, found.classes, found.shape) == (None, (), (1, 8, 8))


def test_parts_that_differ(tmp_path, pictures):
    with pytest.raises(UserError, match="has other images or classes than one"):
        write_images_npz(
            tmp_path / "x.npz",
            ImageSet(pictures(2), None, (), "one"),
            ImageSet(pictures(2, channels=1), None, (), "two"),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
@pytest.mark.parametrize("channels", [1, 3])
def test_names_of_guided_diffusion_in_both_orders(tmp_path, pictures, order, channels):
    images = pictures(6, channels=channels, size=(5, 5))
    stored = images.transpose(0, 2, 3, 1) if order == "NHWC" else images
    np.savez(tmp_path / "x.npz", arr_0=stored, arr_1=np.array([0, 4, 1, 1, 2, 0], np.int32))
    found = read_images(tmp_path / "x.npz", "train")
    np.testing.assert_array_equal(found.images, images)
    assert found.labels.tolist() == [0, 4, 1, 1, 2, 0]
    assert found.labels.dtype == np.int64
    assert found.classes == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize(
    "names",
    [("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test")],
    ids=["MedMNIST", "Keras"],
)
def test_names_of_other_collections(tmp_path, pictures, names):
    images, labels = pictures(6), np.array([[0], [2], [1], [1], [2], [0]], np.uint8)
    np.savez(tmp_path / "x.npz", **dict(zip(names, (images[:4], labels[:4], images[4:], labels[4:]), strict=True)))
    for split, rows in (("train", slice(4)), ("test", slice(4, 6))):
        found = read_images(tmp_path / "x.npz", split)
        np.testing.assert_array_equal(found.images, images[rows])
        assert found.labels.tolist() == labels[rows, 0].tolist()
    assert found.classes == ("0", "1", "2")
    assert recognised_format(tmp_path / "x.npz") is None


def test_grey_without_channel_axis(tmp_path, pictures):
    images = pictures(3, channels=1)
    np.savez_compressed(tmp_path / "x.npz", images=images[:, 0])
    np.testing.assert_array_equal(read_images(tmp_path / "x.npz", "train").images, images)


def test_test_part_has_the_classes_of_the_training_part(tmp_path, pictures):
    images = pictures(4)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1, 2, 3], test_images=images[:2], test_labels=[0, 1])
    assert read_images(tmp_path / "x.npz", "test").classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_latents(tmp_path, kind):
    values = np.random.default_rng(0).normal(size=(5, 4, 8, 6)).astype(kind)
    np.savez(tmp_path / "x.npz", latents=values, labels=np.arange(5))
    found = read_images(tmp_path / "x.npz", "train")
    assert found.latents
    assert found.images.dtype == kind
    np.testing.assert_array_equal(found.images, values)


def test_resolution(tmp_path):
    """A plane of one value keeps it; halves of a picture stay where they are."""
    images = np.zeros((1, 3, 8, 12), np.uint8)
    images[:, 0] = 200
    images[:, 1, :, 6:] = 100
    images[:, 2, :, :2] = images[:, 2, :, -2:] = 255  # outside the middle square
    np.savez(tmp_path / "x.npz", images=images)
    with pytest.raises(UserError, match=r"the images are 12 x 8 pixels, not square; give task\.resolution=SIZE"):
        read_images(tmp_path / "x.npz", "train")
    found = read_images(tmp_path / "x.npz", "train", resolution=4).images
    assert found.shape == (1, 3, 4, 4)
    assert (found[0, 0] == 200).all()
    assert found[0, 1, :, 0].max() < 10
    assert found[0, 1, :, 3].min() > 90
    assert found[0, 2].max() == 0


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"other": np.zeros(2)}, "holds the arrays other; an image set has 'images', 'latents' or 'arr_0'"),
        ({"images": np.zeros((2, 8, 8, 3))}, "'images' holds float64 values; 'images' are uint8"),
        ({"latents": np.zeros((2, 4, 8, 8), np.uint8)}, "'latents' holds uint8 values"),
        ({"latents": np.zeros((2, 4, 8, 8))}, "holds float64 values; images are uint8, latents float16 or float32"),
        ({"latents": np.full((2, 4, 8, 8), np.nan, np.float32)}, "latent 0 has a value that is not finite"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, r"holds an array of shape \[0, 3, 8, 8\]"),
        ({"images": np.zeros((2, 8, 8, 4), np.uint8)}, "has images of 8 channels; known are 1 .grey. and 3"),
        ({"images": np.zeros((2, 8), np.uint8)}, r"holds an array of shape \[2, 8\]"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [1]}, r"has labels int64 \[1\] for 2 images"),
        (
            {"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0.5, 1]},
            r"has labels float64 \[2\] for 2 images",
        ),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": ["a", "b"]}, r"has labels <U1 \[2\] for 2"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0, -1]}, r"label -1 of image 1 is outside 0\.\.0"),
        (
            {"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0, 2], "classes": ["a", "b"]},
            r"label 2 of image 1 is outside 0\.\.1",
        ),
        ({"images": np.array([{}], dtype=object)}, "the NPZ is damaged .*allow_pickle=False"),
    ],
)
def test_what_is_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=rf"x\.npz.*: .*{words}"):
        read_images(tmp_path / "x.npz", "train")


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_cut_off(tmp_path, keep):
    path = tmp_path / "x.npz"
    write_images_npz(path, make_shapes(50, seed=0), None)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(UserError, match=r"x\.npz: the archive is damaged"):
        read_images(path, "train")


def test_one_wrong_byte(tmp_path):
    path = tmp_path / "x.npz"
    write_images_npz(path, make_shapes(50, seed=0), None)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npz: the NPZ is damaged"):
        read_images(path, "train")


def test_missing_and_foreign(tmp_path):
    with pytest.raises(UserError, match=r"nope\.npz: does not exist"):
        read_images(tmp_path / "nope.npz", "train")
    (tmp_path / "text").write_text("hello there")
    with pytest.raises(UserError, match=r"text: is not an image set, it is a file of another kind; known are folders"):
        read_images(tmp_path / "text", "train")
    assert image_form(tmp_path / "text") is None
    with pytest.raises(UserError, match=r"datasets/nope\.npz is missing from this installation"):
        read_images("shipped:nope.npz", "train")
    with pytest.raises(UserError, match=r"task\.resolution is 0"):
        read_images("shipped:shapes.npz", "train", resolution=0)


def test_a_label_that_is_no_class_number_names_the_file(tmp_path):
    path = tmp_path / "huge.npz"
    np.savez(path, images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([0, 10**9]))
    with pytest.raises(UserError, match=r"huge\.npz \(train\): label 1000000000 of image 1 is outside 0"):
        read_images(path, "train")
