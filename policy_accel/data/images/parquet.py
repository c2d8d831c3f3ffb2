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
    items: list[Item] = []
    places: dict[str, Any] = {}
    remarks, lock = list(tree.remarks), Lock()
    with decoding(f"{tree.path}/{files[0]}", "the Parquet file"), _opened(tree, files[0]) as table:
        image, label, classes = _columns(table.schema_arrow, f"{tree.path}/{files[0]}", remarks)
    for file, word in words.items():
        with decoding(f"{tree.path}/{file}", "the Parquet file"), _opened(tree, file) as table:
            cells = table.read([label])[label].to_pylist() if label else [None] * table.metadata.num_rows
            sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        spots = [(file, group, row) for group, size in enumerate(sizes) for row in range(size)]
        names = [f"{file}, row {row}" for row in range(len(spots))]
        places |= zip(names, spots, strict=True)
        items += [
            (name, word if parted else "train", class_label(cell)) for name, cell in zip(names, cells, strict=True)
        ]

    @lru_cache(maxsize=2)
    def images(file: str, group: int) -> Any:
        with _opened(tree, file) as table:
            check_fits(table.metadata.row_group(group).total_byte_size, f"{tree.path}/{file}")
            return table.read_row_group(group, [image])[image]

    def fetch(place: tuple[str, int, int]) -> bytes:
        with lock:
            cell = images(*place[:2])[place[2]].as_py()
        if isinstance(cell, dict):
            beside = PurePosixPath(place[0]).with_name(str(cell["path"]))
            cell = tree.read(str(beside)) if cell["bytes"] is None else cell["bytes"]
        return memoryview(cell).tobytes()

    rows = Tree(tree.path, places, fetch, lambda place: tree.path / place[0])
    return Listing(rows, items, classes, remarks, [])


@contextmanager
def _opened(tree: Tree, name: str) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{tree.path}: Parquet needs pyarrow, which is not installed; pip install pyarrow.") from None
    with open_regular(tree.path / name) as stream:
        yield parquet.ParquetFile(stream)


def _columns(schema: Any, where: str, remarks: list[str]) -> tuple[str, str | None, tuple[str, ...]]:
    """Names of the columns of images and of labels, and the classes that the metadata name."""
    features = from_json((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    images = [name for name, kind in kinds.items() if "binary" in kind and not kind.startswith("list")]
    images.sort(key=lambda name: -_IMAGE_COLUMNS.index(name) if name in _IMAGE_COLUMNS else 1)
    if not images:
        raise UserError(f"{where}: has no column of encoded images but {', '.join(kinds)}; give an image set.")
    if len(images) > 1:
        remarks.append(f"the images are those of the column {images[0]}, not {', '.join(images[1:])}.")
    label = label_column([name for name in kinds if name not in images], "the table", remarks)
    return images[0], label, tuple(map(str, features.get(label, {}).get("names") or ()))
