"""One function that reads image sets, whatever their form, which is recognised by content."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from policy_accel.data.images.arrays import cifar_form, mnist_form, npy_form, npz_form
from policy_accel.data.images.cache import default_cache, read_cached
from policy_accel.data.images.decode import fitted
from policy_accel.data.images.files import files_form
from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.images.listing import Form, Listing, part_of, split_word
from policy_accel.data.images.parquet import parquet_form
from policy_accel.data.shipped import shipped_path
from policy_accel.data.tree import Tree, open_tree
from policy_accel.errors import UserError

KNOWN_FORMS = (
    "known are folders of images, by class or with metadata.jsonl, metadata.csv or dataset.json, ZIP and tar archives "
    "of such (WebDataset too), Parquet of Hugging Face, .npz and .npy arrays, CIFAR-10 and -100 and MNIST."
)
SHIPPED = "shipped:"
_FORMS = (npy_form, npz_form, cifar_form, mnist_form, parquet_form, files_form)
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
    """Read one part of an image set; None when it has no such part. Sets without parts are all "train".

    Args:
        path: file or folder of one of the KNOWN_FORMS, or a folder of archives; "shipped:NAME" is one of the package's.
        split: the part.
        resolution: cut out the middle square of every image and resize it to this height and width.
        cache_dir: where decoded image files are kept; None for policy_accel/images below $XDG_CACHE_HOME or ~/.cache.
        skip_bad: leave out images that cannot be read, and say so in `ImageSet.skipped`.
        labelled: whether images without a class among others that have one count as such; else there are no labels.

    Raises:
        UserError: one sentence for whatever is wrong with the path, its content or the resolution.
    """
    if resolution is not None and resolution < 1:
        raise UserError(f"task.resolution is {resolution}; give the height and width in pixels, or null.")
    place = image_path(path)
    with ExitStack() as stack:
        tree, form = _recognised(place, stack)
        if form is None:
            listed = f"{len(tree.names)} files such as {', '.join(tree.names[:3])}" if tree.names else "no file"
            what = f"holds {listed}" if tree.path == place else "is a file of another kind"
            raise UserError(f"{place}: is not an image set, it {what}; {KNOWN_FORMS}")
        found, source = form[1](split), f"{place} ({split})"
        if isinstance(found, Listing) and (part := part_of(found, split, labelled=labelled)):
            found = read_cached(part, source, resolution, cache_dir or default_cache(), skip_bad)
        if not isinstance(found, ImageSet):
            return None
        images = fitted(found.images, resolution, source)
        return (
            found
            if images is found.images
            else replace(found, images=images, key=found.key and f"{found.key} at {resolution}")
        )


def image_form(path: str | Path) -> str | None:
    """Name of the form in which a path holds an image set; None when it holds something else.

    Raises:
        UserError: the path does not exist, cannot be read, or is a damaged archive.
    """
    with ExitStack() as stack:
        _, form = _recognised(image_path(path), stack)
        return form and form[0]


def image_path(path: str | Path) -> Path:
    """Where the set is: "shipped:NAME" is a file of the folder datasets, ~ the home folder."""
    if str(path).startswith(SHIPPED):
        return shipped_path(str(path).removeprefix(SHIPPED))
    return Path(path).expanduser()


def _recognised(place: Path, stack: ExitStack) -> tuple[Tree, Form | None]:
    """What lies there, and its form; of a folder that has none itself, that of the archives in it."""
    tree = open_tree(place, stack)
    form = _form(tree)
    archives = [name for name in tree.names if name.lower().endswith(_ARCHIVES)] if tree.path.is_dir() else []
    if form is None and archives:
        inside = {name: open_tree(place / name, stack) for name in archives}
        tree = _joined(tree, inside) if len(inside) > 1 else inside[archives[0]]
        form = _form(tree)
    return tree, form


def _form(tree: Tree) -> Form | None:
    return next(filter(None, (form(tree) for form in _FORMS)), None)


def _joined(tree: Tree, shards: dict[str, Tree]) -> Tree:
    """The files of all shards in one tree, below folders for the parts that the names of the shards tell."""
    places = {}
    for shard, inside in shards.items():
        for name in inside.names:
            folder, _, base = name.rpartition("/")
            steps = filter(None, (split_word(shard), folder, f"{Path(shard).name.partition('.')[0]}:{base}"))
            places["/".join(steps)] = inside, name
    read, file = (lambda name: places[name][0].read(places[name][1])), (lambda name: places[name][0].path)
    return Tree(tree.path, sorted(places), read, file, tree.remarks)
