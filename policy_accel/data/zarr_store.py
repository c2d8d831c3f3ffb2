"""Finding and reading the arrays of a zarr replay buffer: zarr v2 or v3, folder or zip, with zarr 3."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policy_accel.data.tree import Tree, folder_tree, zip_tree
from policy_accel.data.zarr_codecs import untrusted_codecs
from policy_accel.errors import UserError
from policy_accel.files import explain_os_error, explained

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store

EXPECTED = "expected a zarr folder or zip with data/<key> [steps, ...] and meta/episode_ends [episodes]"
KNOWN_FORMATS = "also known are robomimic HDF5, LeRobot folders, NPZ with traj_lengths or episode_ends, Minari folders"
_METADATA = (".zarray", ".zgroup", "zarr.json")
_FILES_OF_METADATA = (*_METADATA, ".zattrs")


@dataclass(frozen=True)
class ReplayStore:
    """An open replay buffer whose arrays are not read yet.

    Attributes:
        source: the path, for messages.
        layout: for people: "zarr v2, zip".
        arrays: name ("data/action", "meta/episode_ends") -> (path inside the store, zarr format 2 or 3).
        store: the zarr store.
        tree: its files.
    """

    source: str
    layout: str
    arrays: dict[str, tuple[str, int]]
    store: Store
    tree: Tree

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

    path = Path(path)
    with ExitStack() as stack:
        tree = _open_tree(path, stack)
        nodes: dict[str, int] = {}  # path of every zarr node -> zarr format of an array, 0 for a group
        for file in tree.names:
            node, _, name = file.rpartition("/")
            if name in _METADATA:
                nodes[node] = max(nodes.get(node, 0), _array_format(tree, file))
        roots = {root for node, fmt in nodes.items() if (root := _root(node, fmt > 0)) is not None}
        if not roots:
            raise UserError(f"{path}: not a replay buffer: found {_found(tree)}; {EXPECTED}; {KNOWN_FORMATS}.")
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
        yield ReplayStore(str(path), layout, arrays, store, tree)


def _open_tree(path: Path, stack: ExitStack) -> Tree:
    with explained(path, "read"):
        if not path.is_file():
            return folder_tree(path, hidden=True)
        with path.open("rb") as file:
            magic = file.read(4)
        if not magic.startswith(b"PK"):
            raise UserError(
                f"{path}: not a replay buffer: found a file that is not a zip (begins with {magic!r}); {EXPECTED}; "
                f"{KNOWN_FORMATS}."
            )
        try:
            return zip_tree(path, stack.enter_context(zipfile.ZipFile(path)), hidden=True)
        except (zipfile.BadZipFile, EOFError) as error:
            raise UserError(
                f"{path}: the zip is truncated or damaged after {path.stat().st_size} bytes ({_first_line(error)}); "
                "copy or download it again."
            ) from error


def _close(store: Store) -> None:
    """Close a store, also a zip store that was never used, whose `close` fails in zarr 3.1."""
    with suppress(AttributeError):
        store.close()


def read_array(replay: ReplayStore, name: str) -> np.ndarray:
    """Read one array whole, as "data/action".

    Raises:
        UserError: it is missing; its metadata or a chunk is damaged (which steps), no permission.
    """
    if name not in replay.arrays:
        raise UserError(f"{replay.source}: {name} is missing; {EXPECTED}; write it there.")
    array = open_array(replay, name)
    return _decoded(replay, name, array, ...)


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
        """Rows [begin, end), a fresh array.

        Raises:
            UserError: a chunk is damaged (which steps), no permission.
        """
        values = np.empty((end - begin, *self.array.shape[1:]), self.array.dtype)
        rows = self.array.chunks[0]
        for chunk in range(begin // rows, -(-end // rows)):
            if chunk != self._chunk:
                self._chunk, self._values = -1, np.empty(0)
                self._values = _decoded(self.replay, self.name, self.array, slice(chunk * rows, (chunk + 1) * rows))
                self._chunk = chunk
            low, high = max(begin, chunk * rows), min(end, (chunk + 1) * rows)
            values[low - begin : high - begin] = self._values[low - chunk * rows : high - chunk * rows]
        return values


def _decoded(replay: ReplayStore, name: str, array: zarr.Array[Any], rows: Any) -> np.ndarray:
    try:
        return np.asarray(array[rows])
    except MemoryError:
        raise
    except Exception as error:  # the decoders of zarr, numcodecs and zipfile raise whatever they like
        if isinstance(error, PermissionError):
            raise explain_os_error(error, replay.source, "read") from error
        raise UserError(
            f"{replay.source}: {name} has a damaged chunk{_damaged_steps(array)} ({_first_line(error)}); "
            "copy or download the file again."
        ) from error


def open_array(replay: ReplayStore, name: str) -> zarr.Array[Any]:
    """The zarr array behind a name, unread.

    Raises:
        UserError: its metadata is damaged or asks for a codec that is not installed or not trusted; no permission.
    """
    import zarr

    node, fmt = replay.arrays[name]
    try:
        metadata = replay.tree.read(f"{node}/{'zarr.json' if fmt == 3 else '.zarray'}")
        if untrusted := untrusted_codecs(json.loads(metadata), fmt):
            raise UserError(
                f"{replay.source}: {name} is stored with the codec '{untrusted[0]}', which is not one of those that "
                "are known to run no code from the file; write it with Blosc."
            )
        return zarr.open_array(replay.store, path=node, mode="r", zarr_format=3 if fmt == 3 else 2)
    except UserError:
        raise
    except PermissionError as error:
        raise explain_os_error(error, replay.source, "read") from error
    except Exception as error:
        raise UserError(
            f"{replay.source}: {name} cannot be opened ({_first_line(error)}); its metadata is damaged or names "
            "a codec that is not installed: copy the file again, or write it with Blosc."
        ) from error


def root_attributes(replay: ReplayStore) -> dict[str, Any]:
    """The attributes of the buffer's root group, {} where it has none."""
    import zarr

    name, (node, fmt) = next(iter(replay.arrays.items()))
    root = node.removesuffix(name).rstrip("/")
    try:
        return dict(zarr.open_group(replay.store, path=root, mode="r", zarr_format=3 if fmt == 3 else 2).attrs)
    except Exception:  # a store without group files; zarr raises one of several errors
        return {}


def missing_chunks(replay: ReplayStore, name: str) -> str:
    """One sentence on chunks of an array that are not stored, which zarr reads as the fill value, or nothing."""
    array = open_array(replay, name)
    total = int(
        np.prod([-(-size // chunk) for size, chunk in zip(array.shape, array.shards or array.chunks, strict=True)])
    )
    node = replay.arrays[name][0]
    files = (file for file in replay.tree.names if file.startswith(f"{node}/"))
    stored = sum(file.rpartition("/")[2] not in _FILES_OF_METADATA for file in files)
    if stored >= total:
        return ""
    return (
        f"{total - stored} of {total} chunks of {name} are not stored and read as the fill value; "
        "if that is not on purpose, copy the file again."
    )


def _damaged_steps(array: zarr.Array[Any]) -> str:
    rows = array.chunks[0] if array.ndim else 1
    for begin in range(0, array.shape[0] if array.ndim else 0, rows):
        try:
            array[begin : begin + rows]
        except Exception:
            return f" at steps {begin}..{min(begin + rows, array.shape[0]) - 1}"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _array_format(tree: Tree, file: str) -> int:
    if not file.endswith("zarr.json"):
        return 2 if file.endswith(".zarray") else 0
    try:
        return 0 if json.loads(tree.read(file)).get("node_type") == "group" else 3
    except (ValueError, AttributeError):
        return 3  # damaged: opening it says so, with its name


def _root(node: str, is_array: bool) -> str | None:
    """The folder of the replay buffer that a node belongs to, or None: "a/b.zarr/data/action" -> "a/b.zarr"."""
    parts = node.split("/")
    above = parts[:-1] if is_array else parts
    homes = [i for i, part in enumerate(above) if part in ("data", "meta")]
    if not homes or (not is_array and homes[-1] != len(parts) - 1):
        return None
    return "/".join(parts[: homes[-1]])


def _found(tree: Tree) -> str:
    names = sorted({name.partition("/")[0] for name in tree.names})
    if not names:
        return "nothing in it"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
