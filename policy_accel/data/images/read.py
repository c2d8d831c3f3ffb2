"""One function that reads image sets, whatever their form, which is recognised by content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from policy_accel.data.images.arrays import array_form, read_npy, read_npz
from policy_accel.data.images.cache import check_square, read_cached
from policy_accel.data.images.cifar import find_cifar, read_cifar
from policy_accel.data.images.decode import resize
from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.images.layout import find_files, list_files
from policy_accel.data.images.listing import part_of, split_word
from policy_accel.data.images.mnist import find_mnist, read_mnist
from policy_accel.data.images.parquet import find_parquet, list_parquet
from policy_accel.data.shipped import shipped_path
from policy_accel.data.tree import KNOWN_FORMS, NoTree, Tree, open_tree
from policy_accel.errors import UserError

SHIPPED = "shipped:"
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip", ".npz")


def read_images(
    path: str | Path,
    split: Split,
    *,
    resolution: int | None = None,
    cache_dir: Path | None = None,
    skip_bad: bool = False,
    labelled: bool = True,
) -> ImageSet | None:
    """Read one part of an image set.

    Known forms: image files as `list_files` finds them, in a folder, ZIP or tar archive, or in several tar archives in
    one folder; Parquet as `list_parquet` reads it; NPZ and NPY arrays; CIFAR-10 and CIFAR-100 (Python or binary
    version, unpacked or not); MNIST (the IDX files in a folder). A folder may also hold one archive and nothing else
    that is known.

    Args:
        path: file or folder; "shipped:NAME" is a file of the package's folder datasets.
        split: the part; sets without parts are all "train".
        resolution: cut out the middle square of every image and resize it to this height and width.
        cache_dir: where decoded image files are kept; None for policy_accel/images below $XDG_CACHE_HOME or ~/.cache.
        skip_bad: leave out images that cannot be read, and say so in `ImageSet.skipped`.
        labelled: whether images without a class among others that have one count as such; else there are no labels.

    Returns:
        The part, or None when the set has no such part ("train" always exists).

    Raises:
        UserError: one sentence for whatever is wrong with the path, its content or the resolution.
    """
    if resolution is not None and resolution < 1:
        raise UserError(f"task.resolution is {resolution}; give the height and width in pixels, or null.")
    place = image_path(path)
    if form := array_form(place):
        found = (read_npy if form == "NPY" else read_npz)(place, split)
        return None if found is None else _fitted(found, resolution)
    with _opened(place) as tree:
        for find, read in ((find_cifar, read_cifar), (find_mnist, read_mnist)):
            if find(tree):
                found = read(tree, split)
                return None if found is None else _fitted(found, resolution)
        for find, enlist in ((find_parquet, list_parquet), (find_files, list_files)):
            if find(tree):
                listing = enlist(tree)
                part, source = part_of(listing, split, labelled=labelled), f"{place} ({split})"
                if part is None:
                    return None
                found = read_cached(
                    listing, part, source, resolution=resolution, cache_dir=cache_dir, skip_bad=skip_bad
                )
                return _fitted(found, resolution)
        if inner := _only_archive(tree):
            return read_images(
                inner, split, resolution=resolution, cache_dir=cache_dir, skip_bad=skip_bad, labelled=labelled
            )
        listed = f"{len(tree.names)} files such as {', '.join(tree.names[:3])}" if tree.names else "no file"
        raise UserError(f"{place}: is not an image set, it holds {listed}; {KNOWN_FORMS}")


def image_form(path: str | Path) -> str | None:
    """Name of the form in which a path holds an image set; None when it holds something else.

    Raises:
        UserError: the path does not exist, cannot be read, or is a damaged archive.
    """
    place = image_path(path)
    if form := array_form(place):
        return form
    try:
        with _opened(place) as tree:
            form = find_cifar(tree) or find_mnist(tree) or find_parquet(tree) or find_files(tree)
            inner = None if form else _only_archive(tree)
    except NoTree:
        return None
    return form if inner is None else image_form(inner)


def image_path(path: str | Path) -> Path:
    """Where the set is: "shipped:NAME" is a file of the folder datasets, ~ the home folder."""
    if str(path).startswith(SHIPPED):
        return shipped_path(str(path).removeprefix(SHIPPED))
    return Path(path).expanduser()


@contextmanager
def _opened(path: Path) -> Iterator[Tree]:
    """The files of a folder or archive; those of several tar archives in a folder (WebDataset) together."""
    with ExitStack() as stack:
        tree = stack.enter_context(open_tree(path))
        shards = [name for name in tree.names if name.endswith((".tar", ".tar.gz", ".tgz"))]
        if path.is_dir() and len(shards) > 1 and not find_files(tree):
            tree = _joined(tree, {shard: stack.enter_context(open_tree(path / shard)) for shard in shards})
        yield tree


def _joined(tree: Tree, shards: dict[str, Tree]) -> Tree:
    """The files of all shards in one tree, below folders for the parts that the names of the shards tell."""
    places = {}
    for shard, inside in shards.items():
        word = split_word(shard)
        for name in inside.names:
            folder, _, base = name.rpartition("/")
            places["/".join([*filter(None, (word, folder)), f"{Path(shard).name.partition('.')[0]}:{base}"])] = (
                inside,
                name,
            )

    def read(name: str) -> bytes:
        inside, own = places[name]
        return inside.read(own)

    def stamp(name: str) -> str:
        inside, own = places[name]
        return f"{name} {inside.stamp(own)}"

    return Tree(tree.path, tuple(sorted(places)), read, stamp, tree.remarks)


def _only_archive(tree: Tree) -> Path | None:
    """The archive that a folder holds, when it holds exactly one."""
    found = [name for name in tree.names if "/" not in name and name.lower().endswith(_ARCHIVES)]
    return tree.path / found[0] if len(found) == 1 and tree.path.is_dir() else None


def _fitted(found: ImageSet, resolution: int | None) -> ImageSet:
    """The set at the resolution; square images are wanted in any case."""
    _, height, width = found.shape
    if resolution is None:
        check_square(found.source, found.images)
    elif found.latents and (height, width) != (resolution, resolution):
        raise UserError(
            f"{found.source}: holds latents of {height} x {width}, which cannot be resized to "
            f"task.resolution={resolution}; set it to null or encode images of another size."
        )
    if resolution is None or (height, width) == (resolution, resolution):
        return found
    key = None if found.key is None else f"{found.key} at {resolution}"
    return replace(found, images=resize(found.images, resolution), key=key)
