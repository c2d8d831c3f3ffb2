"""Parquet files as the Hugging Face hub has them: a row for each image, encoded, with its label."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import PurePosixPath
from threading import Lock
from typing import Any

from policy_accel.data.images.listing import (
    TRAIN_NAMES,
    Listing,
    class_label,
    label_column,
    split_word,
)
from policy_accel.data.tree import Tree
from policy_accel.errors import UserError, one_line
from policy_accel.memory import check_fits

SUFFIX = ".parquet"
_IMAGE_NAMES = ("image", "img", "images", "png", "jpg", "jpeg")
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError)


def find_parquet(tree: Tree) -> str | None:
    """ "Parquet" when there are such files, outside of archives and of LeRobot sets, or None."""
    found = any(name.endswith(SUFFIX) for name in tree.names) and tree.path.is_dir()
    return "Parquet" if found and "meta/info.json" not in tree.names else None


def list_parquet(tree: Tree) -> Listing:
    """List the images of all files, whose parts their names or their folders tell: train-00000-of-00002.parquet.

    Raises:
        UserError: pyarrow is missing; a damaged file, no column of images, several sets in one folder.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(
            f"{tree.path}: Parquet needs the package pyarrow, which is not installed; pip install pyarrow."
        ) from error
    remarks = list(tree.remarks)
    files = [name for name in tree.names if name.endswith(SUFFIX)]
    words = {name: split_word(name.removesuffix(SUFFIX)) or PurePosixPath(name).name for name in files}
    parted = bool(set(words.values()) & set(TRAIN_NAMES))
    sets = sorted({str(PurePosixPath(re.sub(rf"(^|/){word}/", r"\1", name)).parent) for name, word in words.items()})
    if len(sets) > 1:
        raise UserError(f"{tree.path}: holds several sets, {', '.join(sets)}; give the folder of one.")
    listing = Listing(str(tree.path), [], [], [], tree.read, tree.stamp, remarks=remarks)
    image = ""
    for file, word in words.items():
        where = f"{tree.path}/{file}"
        try:
            with parquet.ParquetFile(tree.path / file) as table:
                if not image:
                    image, label, listing.classes = _columns(table.schema_arrow, where, remarks)
                sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
                labels = table.read([label]).column(label).to_pylist() if label else [None] * sum(sizes)
        except (ArrowException, *_DAMAGED) as error:
            raise UserError(
                f"{where}: cannot be read as Parquet ({one_line(error)}); copy or download it again."
            ) from error
        listing.names += [
            f"{file}, group {group}, row {row}" for group, size in enumerate(sizes) for row in range(size)
        ]
        listing.parts += [word if parted else "train"] * len(labels)
        listing.labels += map(class_label, labels)
    listing.read = _reader(tree, image)
    listing.stamp = lambda name: name + tree.stamp(name.rsplit(", ", 2)[0])
    return listing


def _columns(schema: Any, where: str, remarks: list[str]) -> tuple[str, str | None, tuple[str, ...]]:
    """Names of the columns of images and of labels, and the classes that the metadata name."""
    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    images = [name for name, kind in kinds.items() if "binary" in kind and not kind.startswith("list")]
    images.sort(key=lambda name: _IMAGE_NAMES.index(name) if name in _IMAGE_NAMES else len(_IMAGE_NAMES))
    if not images:
        raise UserError(f"{where}: has no column of encoded images but {', '.join(kinds)}; give an image set.")
    if len(images) > 1:
        remarks.append(f"the images are those of the column {images[0]}, not {', '.join(images[1:])}.")
    label = label_column([name for name in kinds if name not in images], "the table", remarks)
    return images[0], label, tuple(map(str, features.get(label, {}).get("names") or ()))


def _reader(tree: Tree, column: str) -> Callable[[str], bytes]:
    """A function that returns the content of an image by its name; two groups of rows stay in memory."""
    from pyarrow import ArrowException, parquet

    lock = Lock()

    @lru_cache(maxsize=2)
    def rows(file: str, group: int) -> Any:
        with parquet.ParquetFile(tree.path / file) as table:
            check_fits(
                table.metadata.row_group(group).total_byte_size, f"{tree.path}/{file}: group {group} of its rows"
            )
            return table.read_row_group(group, [column]).column(column)

    def read(name: str) -> bytes:
        file, group, row = name.rsplit(", ", 2)
        try:
            with lock:
                cell = rows(file, int(group.split()[1]))[int(row.split()[1])].as_py()
            if isinstance(cell, dict):
                beside = str(PurePosixPath(file).parent / str(cell["path"]))
                cell = cell["bytes"] if cell["bytes"] is not None else tree.read(beside)
        except (ArrowException, *_DAMAGED) as error:
            raise UserError(
                f"{tree.path}/{name}: cannot be read ({one_line(error)}); download the file again"
            ) from error
        if not isinstance(cell, bytes):
            raise UserError(f"{tree.path}/{name}: holds no image; replace it")
        return cell

    return read
