"""Image sets of encoded images: files in folders and archives, with their labels where they may be, and Parquet files
as the Hugging Face hub has them, a row for each image."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import PurePosixPath
from threading import Lock
from typing import Any

from policy_accel.data.formats.base import decoding
from policy_accel.data.images.decode import LATENT, SUFFIXES, is_image
from policy_accel.data.images.encoding import EDM2, EDM2_NAME, ENCODING, Encoding, encoding_of
from policy_accel.data.images.image_set import (
    TEST_NAMES,
    TRAIN_NAMES,
    Form,
    Item,
    Label,
    Listing,
    Split,
    class_label,
    label_column,
    split_word,
)
from policy_accel.data.tree import Tree
from policy_accel.errors import UserError, one_line
from policy_accel.files import open_regular
from policy_accel.memory import check_fits
from policy_accel.parsing import from_json

_FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_LABEL_FILES = ("dataset.json", "metadata.jsonl", "metadata.csv")
_IMAGE_COLUMNS = ("jpeg", "jpg", "png", "images", "img", "image")  # the last that is there is used


def files_form(tree: Tree) -> Form | None:
    """Image files or latents, whose folders train/ and test/ (or TEST_NAMES, of any case), above the folders of classes
    or directly below them, are parts; without them all files train. Labels are those of dataset.json (as StyleGAN and
    EDM write it), metadata.jsonl or metadata.csv (Hugging Face), else those of KEY.cls or KEY.json beside KEY.png
    (WebDataset), else the first folders, but for one folder around the whole set."""
    suffixes = {name: PurePosixPath(name).suffix.lower() for name in tree.names}
    names = [name for name, suffix in suffixes.items() if suffix in (*SUFFIXES, LATENT)]
    bare = [name for name, suffix in suffixes.items() if not names and not suffix]
    if bare and is_image(tree.read(bare[0])):
        names = [name for name in bare if is_image(tree.read(name))]
    if not names:
        return None
    kinds = {"latents" if suffixes[name] == LATENT else "images": name for name in names}
    files = [name for name in tree.names if PurePosixPath(name).name in _LABEL_FILES]
    title = f"{'WebDataset' if '.cls' in suffixes.values() else 'files'} of {min(kinds)}"

    def load(split: Split) -> Listing:
        if len(kinds) > 1:
            both = f"latents ({kinds['latents']}) beside images ({kinds['images']})"
            raise UserError(f"{tree.path}: holds {both}; keep them apart.")
        told = dict(pair for file in files for pair in _told(tree, file))
        placed = dict(zip(names, _placed(names), strict=True))
        placed |= {name: ("train", [name]) for name in sorted(told.keys() - suffixes.keys())}  # reading finds them gone
        labels = [told.get(name) for name in placed] if files else _beside(tree, names)
        labels = labels or [steps[0] if len(steps) > 1 else None for _, steps in placed.values()]
        items = [(name, part, label) for (name, (part, _)), label in zip(placed.items(), labels, strict=True)]
        return Listing(tree, items, encoding=_encoding(tree, names))

    return f"{min(kinds)} with {PurePosixPath(files[0]).name}" if files else title, load


def _encoding(tree: Tree, names: list[str]) -> Encoding | None:
    """How latents were made, as a file tells, or as names say that EDM2's tool gives."""
    told = next((name for name in tree.names if PurePosixPath(name).name == ENCODING), None)
    if told is not None:
        return encoding_of(tree.read(told), f"{tree.path}/{told}")
    return EDM2 if all(EDM2_NAME in PurePosixPath(name).name for name in names) else None


def _placed(names: list[str]) -> list[tuple[str, list[str]]]:
    """The part of each name and the other steps of its path, below the folder that is around all: it is no class."""
    paths = [name.split("/") for name in names]
    while len({path[0] for path in paths}) == 1 and min(map(len, paths)) > 2 and paths[0][0].lower() not in TRAIN_NAMES:
        paths = [path[1:] for path in paths]
    for level in (0, 1):  # above the classes, or below them
        tops = {path[level].lower() if len(path) > level + 1 else "" for path in paths}
        train, test = tops.intersection(TRAIN_NAMES), tops.intersection(TEST_NAMES)
        if train and (test or tops == train) and (level == 0 or tops == train | test):
            return [(path[level].lower(), path[:level] + path[level + 1 :]) for path in paths]
    return [("train", path) for path in paths]


def _told(tree: Tree, file: str) -> list[tuple[str, Label]]:
    """Names and labels that a file lists; nothing where it tells no classes."""
    listed, where = _parsed(tree, file), f"{tree.path}/{file}"
    listed = listed.get("labels", listed) if isinstance(listed, dict) else listed
    rows: Any = list(listed.items()) if isinstance(listed, dict) else listed or []
    if rows and isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        columns = list(dict.fromkeys(str(column) for row in rows for column in row))
        name = next((name for name in _FILE_COLUMNS if name in columns), None)
        if name is None:
            raise UserError(f"{where}: has no column file_name but {', '.join(columns[:8])}; name it so.")
        label = label_column([column for column in columns if column != name], file, tree.remarks)
        rows = [(row.get(name), row.get(label)) for row in rows] if label else []
    if not isinstance(rows, list) or not all(isinstance(row, list | tuple) and len(row) == 2 for row in rows):
        raise UserError(f'{where}: "labels" is no list of ["path", label]; make the set again.')
    labels = [class_label(label) for _, label in rows]
    if rows and set(labels) == {None}:
        tree.remarks.append(f"the labels in {file} are no classes, such as {rows[0][1]}; they are not used.")
        return []
    names = [str(PurePosixPath(file).parent / str(name).replace("\\", "/")) for name, _ in rows]
    return list(zip(names, labels, strict=True))


def _beside(tree: Tree, names: list[str]) -> list[Label]:
    """Labels that lie beside the images under the same key, which ends at the first dot; nothing without."""

    def label(name: str, suffix: str) -> Label:
        beside = re.sub(r"(\.[^/]*)?$", suffix, name, count=1)
        value = _parsed(tree, beside) if beside in tree.places else None
        return class_label(value.get(label_column(value, beside, [])) if isinstance(value, dict) else value)

    suffix = next((suffix for suffix in (".cls", ".json") if label(names[0], suffix) is not None), None)
    return [label(name, suffix) for name in names] if suffix else []


def _parsed(tree: Tree, name: str) -> Any:
    """What a file of text holds: rows, a value, or the text."""
    try:
        text = tree.read(name).decode("utf-8-sig")
        if name.endswith(".csv"):
            return list(csv.DictReader(io.StringIO(text)))
        if name.endswith(".jsonl"):
            return [from_json(line) for line in text.splitlines() if line.strip()]
        return from_json(text) if name.endswith(".json") else text.strip()
    except (ValueError, csv.Error) as error:
        raise UserError(f"{tree.path}/{name}: cannot be read ({one_line(error)}); correct it.") from error


def parquet_form(tree: Tree) -> Form | None:
    """Such files outside of archives and of LeRobot sets."""
    files = [name for name in tree.names if name.endswith(".parquet")]
    if not files or not tree.path.is_dir() or "meta/info.json" in tree.names:
        return None
    return "Parquet", lambda split: _rows(tree, files)


def _rows(tree: Tree, files: list[str]) -> Listing:
    """The images of all files, whose parts their names or their folders tell: train-00000-of-00002.parquet."""
    words = {name: split_word(name.removesuffix(".parquet")) or PurePosixPath(name).name for name in files}
    parted = not set(words.values()).isdisjoint(TRAIN_NAMES)
    sets = sorted({str(PurePosixPath(re.sub(rf"(^|/){word}/", r"\1", name)).parent) for name, word in words.items()})
    if len(sets) > 1:
        raise UserError(f"{tree.path}: holds several sets, {', '.join(sets)}; give the folder of one.")
    items: list[Item] = []
    places: dict[str, Any] = {}
    lock = Lock()
    with decoding(f"{tree.path}/{files[0]}", "the Parquet file"), _opened(tree, files[0]) as table:
        image, label, classes = _columns(table.schema_arrow, f"{tree.path}/{files[0]}", tree.remarks)
    for file, word in words.items():
        with decoding(f"{tree.path}/{file}", "the Parquet file"), _opened(tree, file) as table:
            cells = table.read([label])[label].to_pylist() if label else [None] * table.metadata.num_rows
            sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        names, part = [f"{file}, row {row}" for row in range(len(cells))], word if parted else "train"
        spots = ((file, group, row) for group, size in enumerate(sizes) for row in range(size))
        places |= zip(names, spots, strict=True)
        items += [(name, part, class_label(cell)) for name, cell in zip(names, cells, strict=True)]

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

    return Listing(Tree(tree.path, places, fetch, lambda place: tree.path / place[0], tree.remarks), items, classes)


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
