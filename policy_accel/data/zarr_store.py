"""Finding and reading the arrays of a zarr replay buffer: zarr v2 or v3, folder or zip, with zarr 3."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policy_accel.data.formats.base import decoding
from policy_accel.data.tree import folder_tree
from policy_accel.errors import UserError
from policy_accel.files import explained, open_regular
from policy_accel.memory import check_fits

if TYPE_CHECKING:
    import zarr

    from policy_accel.data.zarr_codecs import GuardedStore

EXPECTED = "expected a zarr folder or zip with data/<key> [steps, ...] and meta/episode_ends [episodes]"
KNOWN_FORMATS = "also known are robomimic HDF5, LeRobot folders, NPZ with traj_lengths or episode_ends, Minari folders"
_METADATA = (".zarray", ".zgroup", "zarr.json")
_PACKED = (".zip", ".npz", ".hdf5", ".h5", ".tar", ".gz")


@dataclass(frozen=True)
class ReplayStore:
    """An open replay buffer whose arrays are not read yet.

    Attributes:
        source: the path, for messages.
        layout: for people: "zarr v2, zip".
        root: path of the buffer inside the store.
        arrays: name ("data/action", "meta/episode_ends") -> (path inside the store, zarr format 2 or 3).
        store: the zarr store, which knows the sizes of its files.
        read: content of one file of it.
    """

    source: str
    layout: str
    root: str
    arrays: dict[str, tuple[str, int]]
    store: GuardedStore
    read: Callable[[str], bytes]

    @property
    def keys(self) -> list[str]:
        """The keys below data/, in alphabetical order."""
        return sorted(name.removeprefix("data/") for name in self.arrays if name.startswith("data/"))


@contextmanager
def open_replay(path: Path | str) -> Iterator[ReplayStore]:
    """Open a replay buffer for reading; it may lie in a folder inside the given folder or zip.

    Raises:
        UserError: missing path, no permission, truncated or damaged zip, not a replay buffer, several of them.
    """
    from zarr.storage import LocalStore, ZipStore

    from policy_accel.data.zarr_codecs import GuardedStore

    path = Path(path)
    with ExitStack() as stack:
        sizes, read = _files(path, stack)
        nodes: dict[str, int] = {}  # path of every zarr node -> zarr format of an array, 0 for a group
        for file in sizes:
            node, _, name = file.rpartition("/")
            if name in _METADATA:
                nodes[node] = max(nodes.get(node, 0), _array_format(file, read))
        roots = {root for node, fmt in nodes.items() if (root := _root(node, fmt > 0)) is not None}
        if not roots:
            raise UserError(f"{path}: not a replay buffer: found {_found(sizes)}; {EXPECTED}; {KNOWN_FORMATS}.")
        if len(roots) > 1:
            raise UserError(f"{path}: holds several replay buffers ({', '.join(sorted(roots))}); give the path of one.")
        root = roots.pop()
        within = f"{root}/" if root else ""
        arrays = {
            node.removeprefix(within): (node, fmt) for node, fmt in nodes.items() if fmt and node.startswith(within)
        }
        formats = " and ".join(f"zarr v{fmt}" for fmt in sorted({fmt for _, fmt in arrays.values()})) or "no array"
        layout = f"{formats}, {'zip' if path.is_file() else 'folder'}" + (f", in {root}/" if root else "")
        store = ZipStore(path, mode="r") if path.is_file() else LocalStore(path, read_only=True)
        stack.callback(_close, store)
        yield ReplayStore(str(path), layout, root, arrays, GuardedStore(store, sizes), read)


def _files(path: Path, stack: ExitStack) -> tuple[dict[str, int], Callable[[str], bytes]]:
    """Every plain file with its size, and what reads one."""
    with explained(path, "read"):
        if path.is_dir():
            names = [name for name in folder_tree(path, hidden=True).names if (path / name).is_file()]
            return {name: (path / name).stat().st_size for name in names}, lambda name: (path / name).read_bytes()
        with open_regular(path) as file:
            magic = file.read(4)
        if not magic.startswith(b"PK"):
            raise UserError(
                f"{path}: not a replay buffer: found a file that is not a zip (begins with {magic!r}); {EXPECTED}; "
                f"{KNOWN_FORMATS}."
            )
        with decoding(path, f"the zip of {path.stat().st_size} bytes"):
            archive = stack.enter_context(zipfile.ZipFile(path))
        return {entry.filename: entry.file_size for entry in archive.infolist() if not entry.is_dir()}, archive.read


def _close(store: Any) -> None:
    """Close a store, also a zip store that was never used, whose `close` fails in zarr 3.1."""
    with suppress(AttributeError):
        store.close()


def open_array(replay: ReplayStore, name: str) -> zarr.Array[Any]:
    """The zarr array behind a name, unread.

    Raises:
        UserError: there is none; its metadata is damaged, asks for a codec that is not installed or not trusted, or for
            chunks larger than the free memory; no permission.
    """
    import zarr

    from policy_accel.data.zarr_codecs import codec_names, codec_problem

    if name not in replay.arrays:
        raise UserError(f"{replay.source}: {name} is missing; {EXPECTED}; write it there.")
    node, fmt = replay.arrays[name]
    file = f"{node}/{'zarr.json' if fmt == 3 else '.zarray'}".lstrip("/")
    with decoding(replay.source, f"{file}"):
        check_fits(replay.store.sizes[file], f"{replay.source}: {file}")
        metadata = json.loads(replay.read(file))
        names = codec_names(metadata, fmt)
        if problem := codec_problem(names, fmt):
            raise UserError(f"{replay.source}: {name} is stored with {problem}")
        chunk = metadata["chunks"] if fmt == 2 else metadata["chunk_grid"]["configuration"]["chunk_shape"]
        if min(*metadata["shape"], 0) < 0 or min(*chunk, 1) < 1:
            raise ValueError(f"an array of {metadata['shape']} in chunks of {chunk}")
        array = zarr.open_array(replay.store, path=node, mode="r", zarr_format=3 if fmt == 3 else 2)
        size = math.prod(chunk) * max(1, array.dtype.itemsize)
        check_fits(size, f"{replay.source}: a chunk of {name}")
        replay.store.chunks[node] = size, names[-1].removeprefix("numcodecs.") if names else ""
        return array


def read_array(replay: ReplayStore, name: str) -> np.ndarray:
    """Read one array whole, as "data/action".

    Raises:
        UserError: it is missing; its metadata or a chunk is damaged (which steps), no permission.
    """
    array = open_array(replay, name)
    check_fits(math.prod(array.shape) * max(1, array.dtype.itemsize), f"{replay.source}: {name}")
    return _decoded(replay, name, array, 0, array.shape[0] if array.ndim else 1)


class RowReader:
    """An array behind a name, read some rows at a time; it keeps the chunk that it decoded last.

    Raises:
        UserError: as `open_array`.
    """

    def __init__(self, replay: ReplayStore, name: str) -> None:
        self.replay, self.name, self.array = replay, name, open_array(replay, name)
        self._chunk = -1
        self._values = np.empty(0)

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Rows [begin, end), a fresh array in the byte order of this machine.

        Raises:
            UserError: a chunk is damaged (which steps), no permission.
        """
        values = np.empty((end - begin, *self.array.shape[1:]), self.array.dtype.newbyteorder("="))
        size = self.array.chunks[0]
        for chunk in range(begin // size, -(-end // size)):
            first = chunk * size
            if chunk != self._chunk:
                self._chunk, self._values = -1, np.empty(0)
                last = min(first + size, self.array.shape[0])
                self._values = _decoded(self.replay, self.name, self.array, first, last)
                self._chunk = chunk
            low, high = max(begin, first), min(end, first + size)
            values[low - begin : high - begin] = self._values[low - first : high - first]
        return values


def _decoded(replay: ReplayStore, name: str, array: zarr.Array[Any], begin: int, end: int) -> np.ndarray:
    """Rows [begin, end) of an array, or all of one without rows."""
    try:
        return np.asarray(array[begin:end] if array.ndim else array[...])
    except Exception as error:  # decoders raise whatever they like
        with decoding(replay.source, f"a chunk of {name}{_damaged_steps(array, begin, end)}"):
            raise error


def chunk_counts(replay: ReplayStore, name: str, array: zarr.Array[Any]) -> tuple[int, int]:
    """How many files an array has, and how many of them are stored."""
    grid = array.shards or array.chunks
    total = math.prod(-(-size // chunk) for size, chunk in zip(array.shape, grid, strict=True))
    node = replay.arrays[name][0]
    files = (file.rpartition("/")[2] for file in replay.store.sizes if file.startswith(f"{node}/"))
    return total, min(total, sum(not file.startswith(".") and file != "zarr.json" for file in files))


def _damaged_steps(array: zarr.Array[Any], begin: int, end: int) -> str:
    if array.ndim:
        for first in range(begin, end, array.chunks[0]):
            last = min(first + array.chunks[0], end)
            try:
                array[first:last]
            except Exception:
                return f" at steps {first}..{last - 1}"
    return ""


def _array_format(file: str, read: Callable[[str], bytes]) -> int:
    if not file.endswith("zarr.json"):
        return 2 if file.endswith(".zarray") else 0
    try:
        return 0 if json.loads(read(file)).get("node_type") == "group" else 3
    except Exception:  # damaged: opening it says so, with its name
        return 3


def _root(node: str, is_array: bool) -> str | None:
    """The folder of the replay buffer that a node belongs to, or None: "a/b.zarr/data/action" -> "a/b.zarr"."""
    parts = node.split("/")
    above = parts[:-1] if is_array else parts
    homes = [i for i, part in enumerate(above) if part in ("data", "meta")]
    if not homes or (not is_array and homes[-1] != len(parts) - 1):
        return None
    return "/".join(parts[: homes[-1]])


def _found(files: dict[str, int]) -> str:
    if packed := [name for name in files if name.endswith(_PACKED)]:
        return f"{packed[0]} in it, which is to be unpacked and given by its own path"
    names = sorted({name.partition("/")[0] for name in files})
    if not names:
        return "nothing in it"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
