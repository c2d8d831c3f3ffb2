"""Parquet files as the Hugging Face hub has them: a row for each image, encoded, with its label."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import PurePosixPath
from threading import Lock
from typing import Any

from policy_accel.data.formats.base import decoding
from policy_accel.data.images.listing import TRAIN_NAMES, Form, Item, Listing, class_label, label_column, split_word
from policy_accel.data.tree import Tree
from policy_accel.errors import UserError
from policy_accel.files import open_regular
from policy_accel.memory import check_fits
from policy_accel.parsing import from_json

_IMAGE_COLUMNS = ("jpeg", "jpg", "png", "images", "img", "image")  # the last that is there is used


def parquet_form(tree: Tree) -> Form | None:
    """Such files outside of archives and of LeRobot sets."""
    files = [name for name in tree.names if name.endswith(".parquet")]
    if not files or not tree.path.is_dir() or "meta/info.json" in tree.names:
        return None
    return "Parquet", lambda split: _list(tree, files)


def _list(tree: Tree, files: list[str]) -> Listing:
    """The images of all files, whose parts their names or their folders tell: train-00000-of-00002.parquet."""
    words = {name: split_word(name.removesuffix(".parquet")) or PurePosixPath(name).name for name in files}
    parted = not set(words.values()).isdisjoint(TRAIN_NAMES)
    sets = sorted({str(PurePosixPath(re.sub(rf"(^|/){word}/", r"\1", name)).parent) for name, word in words.items()})
    if len(sets) > 1:
        raise UserError(f"{tree.path}: holds several sets, {', '.join(sets)}; give the folder of one.")
    listing = Listing(str(tree.path), [], tree.read, lambda name: tree.path / name.rpartition(", row ")[0])
    image, label = "", None
    for file, word in words.items():
        with _opened(tree, file) as table:
            if not image:
                image, label = _columns(table.schema_arrow, f"{tree.path}/{file}", listing)
            labels = table.read([label]).column(label).to_pylist() if label else [None] * table.metadata.num_rows
        part = word if parted else "train"
        listing.items += [Item(f"{file}, row {row}", part, class_label(value)) for row, value in enumerate(labels)]

    @lru_cache(maxsize=2)
    def images(file: str) -> Any:
        with _opened(tree, file) as table:
            groups = [table.metadata.row_group(group) for group in range(table.num_row_groups)]
            check_fits(sum(group.total_byte_size for group in groups), f"{tree.path}/{file}")
            return table.read([image]).column(image)

    lock = Lock()

    def read(name: str) -> bytes:
        file, _, row = name.rpartition(", row ")
        with lock, decoding(f"{tree.path}/{name}", "the image"):
            cell = images(file)[int(row)].as_py()
            if isinstance(cell, dict):
                beside = PurePosixPath(file).with_name(str(cell["path"]))
                cell = tree.read(str(beside)) if cell["bytes"] is None else cell["bytes"]
        if not isinstance(cell, bytes):
            raise UserError(f"{tree.path}/{name}: holds no image; replace it.")
        return cell

    listing.read = read
    return listing


@contextmanager
def _opened(tree: Tree, name: str) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{tree.path}: Parquet needs pyarrow, which is not installed; pip install pyarrow.") from None
    with decoding(f"{tree.path}/{name}", "the Parquet file"), open_regular(tree.path / name) as file:
        yield parquet.ParquetFile(file)


def _columns(schema: Any, where: str, listing: Listing) -> tuple[str, str | None]:
    """Names of the columns of images and of labels; the listing gets the classes that the metadata name."""
    features = from_json((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    images = [name for name, kind in kinds.items() if "binary" in kind and not kind.startswith("list")]
    images.sort(key=lambda name: -_IMAGE_COLUMNS.index(name) if name in _IMAGE_COLUMNS else 1)
    if not images:
        raise UserError(f"{where}: has no column of encoded images but {', '.join(kinds)}; give an image set.")
    if len(images) > 1:
        listing.remarks.append(f"the images are those of the column {images[0]}, not {', '.join(images[1:])}.")
    label = label_column([name for name in kinds if name not in images], "the table", listing.remarks)
    listing.classes = tuple(map(str, features.get(label, {}).get("names") or ()))
    return images[0], label
