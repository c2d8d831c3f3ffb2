"""One function that reads image sets, whatever their form, which is recognised by content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from policy_accel.data.images.cache import read_cached
from policy_accel.data.images.cifar import find_cifar, read_cifar
from policy_accel.data.images.decode import resize
from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.images.latents import is_npy, read_npy
from policy_accel.data.images.layout import find_files, lay_out
from policy_accel.data.images.mnist import find_mnist, read_mnist
from policy_accel.data.images.npz import is_npz, read_npz
from policy_accel.data.shipped import shipped_path
from policy_accel.data.tree import KNOWN_FORMS, NoTree, Tree, open_tree
from policy_accel.errors import UserError
from policy_accel.files import explained

SHIPPED = "shipped:"
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip", ".npz")


def read_images(
    path: str | Path, split: Split, *, resolution: int | None = None, cache_dir: Path | None = None
) -> ImageSet | None:
    """Read one part of an image set.

    Known forms: CIFAR-10 and CIFAR-100 (Python or binary version, unpacked or not), MNIST (the IDX files in a folder),
    image files in class folders with or without train/ and test/ above them, image files with dataset.json (folder or
    ZIP, as StyleGAN and EDM write them), NPZ, and latents (.npy [N, C, H, W], NPZ, folder or ZIP of .npy). A folder may
    also hold one such archive and nothing else that is known.

    Args:
        path: file or folder; "shipped:NAME" is a file of the package's folder datasets.
        split: the part; sets without parts are all "train".
        resolution: cut out the middle square of every image and resize it to this height and width.
        cache_dir: where decoded image files are kept; None for policy_accel/images below $XDG_CACHE_HOME or ~/.cache.

    Returns:
        The part, or None when the set has no such part ("train" always exists).

    Raises:
        UserError: one sentence for whatever is wrong with the path, its content or the resolution.
    """
    if resolution is not None and resolution < 1:
        raise UserError(f"task.resolution is {resolution}; give the height and width in pixels, or null.")
    place = image_path(path)
    found = _read_array(place, split) if _array_form(place) else _read_tree(place, split, resolution, cache_dir)
    return None if found is None else _fitted(found, resolution)


def image_form(path: str | Path) -> str | None:
    """Name of the form in which a path holds an image set; None when it holds something else.

    Raises:
        UserError: the path does not exist, cannot be read, or is a damaged archive.
    """
    place = image_path(path)
    if form := _array_form(place):
        return form
    try:
        with open_tree(place) as tree:
            form = find_cifar(tree) or find_mnist(tree) or find_files(tree)
            inner = None if form else _only_archive(tree)
    except NoTree:
        return None
    return form if inner is None else image_form(inner)


def image_path(path: str | Path) -> Path:
    """Where the set is: "shipped:NAME" is a file of the folder datasets, ~ the home folder."""
    if str(path).startswith(SHIPPED):
        return shipped_path(str(path).removeprefix(SHIPPED))
    return Path(path).expanduser()


def _array_form(path: Path) -> str | None:
    with explained(path, "read"):
        if path.is_dir():
            return None
        return "NPY" if is_npy(path) else "NPZ" if is_npz(path) else None


def _read_array(path: Path, split: Split) -> ImageSet | None:
    return read_npy(path, split) if is_npy(path) else read_npz(path, split)


def _read_tree(path: Path, split: Split, resolution: int | None, cache_dir: Path | None) -> ImageSet | None:
    with open_tree(path) as tree:
        if find_cifar(tree):
            return read_cifar(tree, split)
        if find_mnist(tree):
            return read_mnist(tree, split)
        if find_files(tree):
            layout = lay_out(tree, split)
            if layout is None:
                return None
            source = f"{path} ({split})"
            return read_cached(tree, layout, source, resolution=resolution, cache_dir=cache_dir)
        inner = _only_archive(tree)
        if inner is None:
            raise UserError(f"{path}: is not an image set, it holds {_listing(tree)}; {KNOWN_FORMS}")
    return read_images(inner, split, resolution=resolution, cache_dir=cache_dir)


def _only_archive(tree: Tree) -> Path | None:
    """The archive that a folder holds, when it holds exactly one."""
    found = [name for name in tree.names if "/" not in name and name.lower().endswith(_ARCHIVES)]
    return tree.path / found[0] if len(found) == 1 and tree.path.is_dir() else None


def _listing(tree: Tree) -> str:
    if not tree.names:
        return "no file"
    return f"{len(tree.names)} files such as {', '.join(tree.names[:3])}"


def _fitted(found: ImageSet, resolution: int | None) -> ImageSet:
    """The set at the resolution; square images are wanted in any case."""
    _, height, width = found.shape
    if found.latents:
        if resolution is not None and (height, width) != (resolution, resolution):
            raise UserError(
                f"{found.source}: holds latents of {height} x {width}, which cannot be resized to "
                f"task.resolution={resolution}; set it to null or encode images of another size."
            )
        return found
    if resolution is None and height != width:
        raise UserError(
            f"{found.source}: the images are {width} x {height} pixels, not square; give task.resolution=SIZE to cut "
            "out the middle square and resize it."
        )
    if resolution is None or (height, width) == (resolution, resolution):
        return found
    key = None if found.key is None else f"{found.key} at {resolution}"
    return replace(found, images=resize(found.images, resolution), key=key)
