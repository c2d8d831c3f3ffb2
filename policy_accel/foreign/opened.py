"""Files of other libraries, opened."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from policy_accel.foreign.kinds import READERS, library_of
from policy_accel.foreign.stored import Foreign, understood
from policy_accel.run_sampling import AS_CHOSEN, AskedSampling


def read_foreign(path: Path) -> Foreign[Any, Any]:
    """What a file for which `is_foreign` holds says of its model.

    Raises:
        UserError: it cannot be read, or is of another kind than ours.
    """
    library = library_of(path)
    assert library is not None
    changed = path.stat()
    return _read(library, path, changed.st_mtime_ns, changed.st_size)


@lru_cache(maxsize=1)  # one command asks several times
def _read(library: str, path: Path, *_: int) -> Foreign[Any, Any]:
    with understood(path):
        found: Foreign[Any, Any] = resolve_name(READERS[library])(path)
        return found


def foreign_config(path: Path) -> dict[str, Any]:
    """Our configuration of such a file, as plain values."""
    foreign = read_foreign(path)
    return foreign.track.record(foreign.config())


def load_foreign(
    path: Path,
    settings: Mapping[str, Any] | None = None,
    device: Any = "cpu",
    asked: AskedSampling = AS_CHOSEN,
) -> Any:
    """The model of such a file, see `Foreign.config` and `Foreign.load`."""
    foreign = read_foreign(path)
    loaded = foreign.load(foreign.config(settings), device, asked)
    _read.cache_clear()  # some have the whole file in memory
    return loaded
