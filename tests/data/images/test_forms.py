"""Where images and their labels may lie, and what happens to those that cannot be used."""

import io
import json
import os
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from policy_accel.data.images import image_form, read_images
from policy_accel.errors import UserError


@pytest.fixture
def content(png):
    """A small image for each number."""
    return lambda number: png(np.full((1, 4, 4), number, np.uint8))


@pytest.fixture
def read(cache):
    """What is in a part: the number of each image with the name of its class, and the set."""

    def read(path, split="train", **options):
        found = read_images(path, split, cache_dir=cache, **options)
        if found is None:
            return None, None
        numbers = found.images[:, 0, 0, 0].tolist()
        names = [None] * len(numbers) if found.labels is None else [found.classes[label] for label in found.labels]
        return list(zip(numbers, names, strict=True)), found

    return read


def test_classes_in_natural_order(tree, content, read):
    names = ["class10", "class2", "class1", "apple, red"]
    _, found = read(tree({f"{name}/0.png": content(number) for number, name in enumerate(names)}))
    assert found.classes == ("apple, red", "class1", "class2", "class10")


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("training", "testing"), ("Train", "Val"), ("train", "valid"), ("training", "validation")],
)
@pytest.mark.parametrize("form", ["{part}/{label}/{n}.png", "set/{part}/{label}/x/{n}.png", "{label}/{part}/{n}.png"])
def test_names_of_parts(tree, content, read, train, test, form):
    places = [(train, "a"), (train, "b"), (test, "a"), (test, "b")]
    files = {form.format(part=part, label=label, n=n): content(n) for n, (part, label) in enumerate(places)}
    path = tree(files)
    assert sorted(read(path)[0]) == [(0, "a"), (1, "b")]
    assert sorted(read(path, "test")[0]) == [(2, "a"), (3, "b")]


def test_one_class_and_folders_in_folders(tree, content, read):
    assert read(tree({"cat/0.png": content(0), "cat/1.png": content(1)}))[0] == [(0, "cat"), (1, "cat")]
    deep = {"all/animals/cat/x/0.png": content(0), "all/animals/dog/y/z/1.png": content(1)}
    assert read(tree(deep, "deep"))[0] == [(0, "cat"), (1, "dog")]


METADATA = [
    ("metadata.jsonl", '{"file_name": "a.png", "label": "dog"}\n{"file_name": "sub/b.png", "label": "cat"}\n'),
    ("metadata.csv", "file_name,label\na.png,dog\nsub/b.png,cat\n"),
    ("metadata.csv", "\ufefffile_name,text,class\r\na.png,x,dog\r\nsub/b.png,y,cat\r\n"),
    ("dataset.json", '{"labels": [["a.png", "dog"], ["sub/b.png", "cat"]]}'),
    ("dataset.json", '{"labels": {"a.png": "dog", "sub/b.png": "cat"}}'),
    ("dataset.json", '{"a.png": "dog", "sub/b.png": "cat"}'),
    ("dataset.json", '[{"file_name": "a.png", "label": "dog"}, {"file_name": "sub/b.png", "label": "cat"}]'),
]


@pytest.mark.parametrize(("name", "text"), METADATA)
@pytest.mark.parametrize("archive", [False, True])
def test_labels_beside_the_images(tree, content, read, name, text, archive):
    path = tree({"a.png": content(0), "sub/b.png": content(1), name: text.encode()}, archive=archive)
    assert read(path)[0] == [(0, "dog"), (1, "cat")]
    assert read(path)[1].classes == ("cat", "dog")
    assert image_form(path) == f"images with {name}"


@pytest.mark.parametrize("labels", ["1,0", "1.0,0.0", '"1","0"', "[0, 1],[1, 0]", "[0.0, 1.0],[1.0, 0.0]", "[1],[0]"])
def test_kinds_of_class_numbers(tree, content, read, labels):
    one, two = json.loads(f"[{labels}]")
    text = json.dumps({"labels": [["a.png", one], ["b.png", two]]})
    path = tree({"a.png": content(0), "b.png": content(1), "dataset.json": text.encode()})
    assert read(path)[0] == [(0, "1"), (1, "0")]


def test_metadata_of_each_part(tree, content, read):
    files = {f"{part}/{n}.png": content(n) for n, part in enumerate(("train", "train", "test"))}
    files["train/metadata.csv"] = b"file_name,label\n0.png,bee\n1.png,ant\n"
    files["test/metadata.csv"] = b"file_name,label\n2.png,bee\n"
    path = tree(files)
    assert read(path)[0] == [(0, "bee"), (1, "ant")]
    assert read(path, "test")[0] == [(2, "bee")]


def test_metadata_without_labels_says_what_it_has(tree, content, read):
    path = tree({"a/0.png": content(0), "metadata.jsonl": b'{"file_name": "a/0.png", "text": "x", "score": 1}'})
    numbers, found = read(path)
    assert numbers == [(0, None)]
    assert found.remarks == (
        "metadata.jsonl has no column of labels (label, labels, fine_label, ...) but text, score.",
    )
    path = tree({"0.png": content(0), "dataset.json": b'{"labels": [["0.png", [0.5, 0.1]]]}'}, "vectors")
    numbers, found = read(path)
    assert numbers == [(0, None)]
    assert found.remarks == ("the labels in dataset.json are no classes, such as [0.5, 0.1]; they are not used.",)


def test_a_class_is_wanted_of_each_image_only_where_labels_are(tree, content, read):
    files = {"train/a/0.png": content(0), "train/1.png": content(1), "test/b/2.png": content(2)}
    path = tree(files)
    with pytest.raises(UserError, match=r"train/1\.png: has no class, as others have"):
        read(path)
    with pytest.raises(UserError, match=r"test/b/2\.png: its class b is none of those known"):
        read(path, "test")
    numbers, found = read(path, labelled=False)
    assert numbers == [(1, None), (0, None)]
    assert found.remarks[0].startswith("labels are not used: train/1.png: has no class")
    assert read(path, skip_bad=True)[0] == [(0, "a")]


def pack(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, value in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(value)
            archive.addfile(entry, io.BytesIO(value))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("label", ["cls", "name", "json"])
def test_webdataset(tmp_path, content, read, mode, label):
    files = {}
    for n, name in enumerate(("bee", "ant", "bee")):
        files[f"{n:03}.seg.png"] = content(n)
        text = {"cls": str(n), "name": name, "json": json.dumps({"label": name, "width": 4})}[label]
        files[f"{n:03}.{'json' if label == 'json' else 'cls'}"] = text.encode()
    found, whole = read(pack(tmp_path / "set.tar", files, mode))
    assert found == ([(0, "0"), (1, "1"), (2, "2")] if label == "cls" else [(0, "bee"), (1, "ant"), (2, "bee")])
    assert not whole.remarks


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_several_archives(tmp_path, content, read, kind):
    (tmp_path / "set").mkdir()
    for n, shard in enumerate(("train-0000", "train-0001", "test-0000")):
        files, path = {"000.png": content(n), "000.cls": str(n % 2).encode()}, tmp_path / f"set/{shard}.{kind}"
        if kind == "tar":
            pack(path, files)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for name, value in files.items():
                    archive.writestr(name, value)
    assert read(tmp_path / "set")[0] == [(0, "0"), (1, "1")]
    assert read(tmp_path / "set", "test")[0] == [(2, "0")]
    assert image_form(tmp_path / "set") == "WebDataset of images"


def test_changed_archive_is_decoded_again(tmp_path, content, read):
    assert read(pack(tmp_path / "set.tar", {"0.png": content(1)}))[0] == [(1, None)]
    pack(tmp_path / "set.tar", {"0.png": content(2)})
    os.utime(tmp_path / "set.tar", ns=(1, 1))
    assert read(tmp_path / "set.tar")[0] == [(2, None)]


@pytest.fixture
def parquet(tmp_path, content):
    """Write rows as Hugging Face does, three to a group: parquet(NAME, numbers, label=[...], names=[...])."""

    def parquet(name, numbers, image="image", names=None, raw=False, **columns):
        cells = [content(n) if raw else {"bytes": content(n), "path": f"{n}.png"} for n in numbers]
        table = pa.table({image: cells, **columns})
        features = {image: {"_type": "Image"}, **{key: {"_type": "ClassLabel", "names": names} for key in columns}}
        if names:
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path = tmp_path / "hub" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=3)
        return tmp_path / "hub"

    return parquet


def test_parquet_of_the_hub(parquet, read):
    parquet("data/train-00000-of-00002.parquet", range(7), label=[0, 1, 1, 0, 1, 0, 0], names=["cat", "dog, big"])
    parquet("data/train-00001-of-00002.parquet", range(7, 9), label=[1, 0], names=["cat", "dog, big"])
    path = parquet("data/test-00000-of-00001.parquet", [20], label=[1], names=["cat", "dog, big"])
    (path / "README.md").write_text("a card")
    numbers, found = read(path)
    assert [n for n, _ in numbers] == list(range(9))
    assert found.labels.tolist() == [0, 1, 1, 0, 1, 0, 0, 1, 0]
    assert found.classes == ("cat", "dog, big")
    assert read(path, "test")[0] == [(20, "dog, big")]
    assert image_form(path) == "Parquet"
    assert read(path / "data/train-00000-of-00002.parquet")[0][2] == (2, "dog, big")
    again = read(path)[1]
    assert again.fingerprint() == found.fingerprint()


def test_parquet_of_other_shapes(parquet, read, tmp_path):
    path = parquet("default/train/0000.parquet", [1, 2], "img", fine_label=[5, 3], coarse_label=[1, 0], raw=True)
    parquet("default/test/0000.parquet", [3], "img", fine_label=[-1], coarse_label=[0], raw=True)
    assert read(path)[0] == [(1, "5"), (2, "3")]
    parquet("default/validation/0000.parquet", [4], "img", fine_label=[3], coarse_label=[0], raw=True)
    assert read(path, "test")[0] == [(4, "3")]  # the test part has no labels
    remark = "test: belongs to no part that is used and is left out; the parts are train and validation."
    assert remark in read(path)[1].remarks
    path = parquet("other/train/0000.parquet", [1], label=["cat"])
    with pytest.raises(UserError, match=r"hub: holds several sets, default, other; give the folder of one"):
        read(path)
    assert read(path / "other")[0] == [(1, "cat")]


def test_parquet_without_images_or_damaged(parquet, read, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), path)
    with pytest.raises(UserError, match=r"table\.parquet: has no column of encoded images but text, label"):
        read(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"table\.parquet: the Parquet file is damaged"):
        read(path)


def test_a_damaged_row_group_loses_its_own_images(parquet, read):
    path = parquet("train.parquet", range(7), label=[0, 1, 0, 1, 0, 1, 0])
    file = path / "train.parquet"
    column = pq.ParquetFile(file).metadata.row_group(1).column(0)
    whole, begin = bytearray(file.read_bytes()), column.dictionary_page_offset or column.data_page_offset
    whole[begin : begin + column.total_compressed_size] = bytes(column.total_compressed_size)
    file.write_bytes(whole)
    with pytest.raises(UserError, match=r"train\.parquet, row 3: the file is damaged .*skip_bad_images=true"):
        read(path)
    numbers, found = read(path, skip_bad=True)
    assert numbers == [(0, "0"), (1, "1"), (2, "0"), (6, "0")]
    assert [sentence.split(": ")[0].rpartition(", ")[2] for sentence in found.skipped] == ["row 3", "row 4", "row 5"]


def test_labels_past_the_names_of_the_classes(parquet, read):
    path = parquet("train.parquet", [1, 2], label=[5, 5], names=["cat"])
    with pytest.raises(UserError, match=r"row 0: its class 5 is none of those known \(1 in the training part\)"):
        read(path)


def test_a_listed_file_that_is_missing_is_skipped_as_a_bad_one(tree, content, read):
    listed = b"file_name,label\na/0.png,x\ngone.png,y\na/1.png,y\n"
    numbers, found = read(tree({"a/0.png": content(0), "a/1.png": content(1), "metadata.csv": listed}), skip_bad=True)
    assert numbers == [(0, "x"), (1, "y")]
    assert "gone.png: is not there; add it" in found.skipped[0]


def test_parquet_without_pyarrow(parquet, read, monkeypatch):
    path = parquet("train.parquet", [1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"hub: Parquet needs pyarrow, which is not installed; pip install"):
        read(path)


def test_bad_images_are_refused_or_skipped_and_listed(tree, content, read):
    files = {f"{name}/{n}.png": content(n) for n, name in enumerate(("a", "b", "a", "b"))}
    path = tree(files | {"a/x.png": content(9)[:-30], "b/y.png": b"text"})
    with pytest.raises(
        UserError, match=r"x\.png: the image is damaged .*, or skip such images with task\.skip_bad_images=true\.$"
    ):
        read(path)
    for _ in range(2):  # decoded, and from the cache
        numbers, found = read(path, skip_bad=True)
        assert numbers == [(0, "a"), (2, "a"), (1, "b"), (3, "b")]
        assert [sentence.split(": ")[0].rpartition("/")[2] for sentence in found.skipped] == ["x.png", "y.png"]
    with pytest.raises(UserError, match=r"x\.png: the image is damaged"):
        read(path)
    with pytest.raises(UserError, match=r"none of its 1 images can be read, the first of them: .*y\.png: is no"):
        read(tree({"y.png": b"text"}, "only"), skip_bad=True)


def test_colour_after_many_grey_ones(tree, png, read):
    files = {f"{n:03}.png": png(np.full((1, 4, 4), n, np.uint8)) for n in range(30)}
    files["999.png"] = png(np.full((3, 4, 4), 77, np.uint8))
    numbers, found = read(tree(files))
    assert found.images.shape == (31, 3, 4, 4)
    assert [n for n, _ in numbers] == [*range(30), 77]


def test_links_never_double_images(tree, content, read, tmp_path):
    path = tree({f"{part}/{n % 2}/{n}.png": content(n) for n, part in enumerate(["train"] * 4 + ["test"] * 2)})
    (path / "test/0/again").symlink_to(path / "train")  # sorts before train/
    (path / "train/up").symlink_to(path)
    (path / "train/1/parent").symlink_to(tmp_path)
    (path / "test/1/train").symlink_to("../../test")
    numbers, found = read(path)
    assert sorted(n for n, _ in numbers) == [0, 1, 2, 3]
    assert [n for n, _ in read(path, "test")[0]] == [4, 5]
    assert any("train/up is a link to a folder that is in the set already" in remark for remark in found.remarks)


def test_pipes_do_not_block(tree, content, read, tmp_path):
    path = tree({"0.png": content(0)})
    os.mkfifo(path / "1.png")
    os.mkfifo(tmp_path / "whole.npz")
    for place in (path, tmp_path / "whole.npz"):
        errors = []

        def reading(place=place, errors=errors):
            try:
                read_images(place, "train", cache_dir=tmp_path / "cache")
            except UserError as error:
                errors.append(str(error))

        thread = threading.Thread(target=reading, daemon=True)
        thread.start()
        thread.join(20)
        assert len(errors) == 1
        assert "is no regular file but a pipe, a socket or a device" in errors[0]
    assert read(path, skip_bad=True)[0] == [(0, None)]


def test_names_of_all_kinds(tree, content, read, tmp_path):
    names = ["my demos (final)", "lr=0.1,seed=3", "Schränke", "{v1}", "a[1]", "it's", "10%", "a\nb"]
    files = {f"{name}/{name}.png": content(n) for n, name in enumerate(names)}
    path = tree(files, "it's {v1}=[1], ü")
    os.makedirs(os.fsencode(path) + b"/b\xff")
    with open(os.fsencode(path) + b"/b\xff/1.png", "wb") as file:
        file.write(content(100))
    numbers, found = read(path)
    assert sorted(numbers) == [*enumerate(names), (100, "b\\udcff")]
    "".join(found.classes).encode()
    assert read(tree(files, "names", archive=True))[0] == [pair for pair in numbers if pair[0] < 100]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2"])
def test_archive_that_unpacks_to_gigabytes(tmp_path, read, mode):
    class Zeros(io.RawIOBase):
        def read(self, size=-1):
            return bytes(size)

    path = tmp_path / "set.tar.gz"
    with tarfile.open(path, mode, compresslevel=1) as archive:
        entry = tarfile.TarInfo("0.png")
        entry.size = 2**28
        archive.addfile(entry, Zeros())
    with pytest.raises(UserError, match=r"unpacks to .*, more than a hundred times as many; it is damaged or a trap"):
        read(path)


def test_image_of_huge_size(tmp_path, read):
    (tmp_path / "set").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "set/0.png")
    whole = bytearray((tmp_path / "set/0.png").read_bytes())
    whole[16:24] = (60_000).to_bytes(4, "big") * 2
    (tmp_path / "set/0.png").write_bytes(whole)
    with pytest.raises(UserError, match=r"0\.png: (the image is damaged|is not an image)"):
        read(tmp_path / "set")
