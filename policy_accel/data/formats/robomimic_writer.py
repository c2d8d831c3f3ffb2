"""Writing robomimic's HDF5 layout, so that robomimic's own tools read it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.formats.hdf5 import explain_write
from policy_accel.data.formats.robomimic import OWN_ATTRIBUTE, memory_name, native_facts, stored_name
from policy_accel.data.formats.streaming import OnProgress, pieces
from policy_accel.errors import UserError
from policy_accel.files import new_path

_SCALARS = (str, bool, int, float)
_NO_ENVIRONMENT = {"env_name": "none", "type": 2, "env_kwargs": {}}  # a gymnasium environment that nobody registers
_KEPT = ("name", "filters", "num_samples", OWN_ATTRIBUTE)  # not as attributes of a demonstration


def write_robomimic(path: Path | str, reader: EpisodeReader, *, progress: OnProgress | None = None) -> None:
    """Write demonstrations as robomimic v1.5 files have them (the layout is described in `formats/robomimic.py`).

    Episodes keep their name where it is demo_<number> in ascending order, else they are numbered. Images are
    compressed (gzip) and chunked frame by frame; the rest is stored plainly. Other tools want `env_args`, rewards,
    dones and a `next_obs` of each observation. Where there is none, env_args says that there is no environment, rewards
    are 0, the last step is done, and next_obs is a view of the next row, the last repeated. What was added, and facts
    that the layout has no place for, go as JSON into an attribute `policy_accel`, by which our reader gives back what
    there was.

    Args:
        path: the file, new.
        reader: where the demonstrations come from; it needs the key `action`.
        progress: called with (steps so far, all steps).

    Raises:
        UserError: there is no `action`; two keys with the same place in a demonstration; `path` exists; disk full; no
            permission; what the reader raises.
    """
    if "action" not in reader.features:
        raise UserError(f"{reader.source}: has no key 'action', which robomimic needs; choose it or another format.")
    for key in reader.features:
        if memory_name(stored_name(key)) != key:
            raise UserError(f"{reader.source}: the key '{key}' has no place in robomimic's layout; rename it.")
    with new_path(Path(path)) as temporary:
        try:
            with h5py.File(temporary, "w") as file:
                _write(file, reader, progress)
        except (OSError, RuntimeError) as error:
            raise explain_write(error) from error


def _write(file: h5py.File, reader: EpisodeReader, progress: OnProgress | None) -> None:
    steps = int(reader.episode_ends[-1])
    data = file.create_group("data")
    data.attrs["total"] = steps
    paths = [stored_name(key) for key in reader.features]
    made = [f"next_{path}" for path in paths if path.startswith("obs/")] + ["rewards", "dones"]
    made = [path for path in made if path not in paths]
    _write_facts(data, reader.metadata, _set_attributes(reader.metadata), {}, made)
    filters: dict[str, list[str]] = {}
    number = -1
    lengths = np.diff(reader.episode_ends, prepend=0)
    done = 0
    for episode, length in enumerate(lengths):
        facts = reader.episode_metadata(episode)
        number = _number(facts.get("name"), number)
        name = f"demo_{number}"
        demo = data.create_group(name)
        demo.attrs["num_samples"] = int(length)
        attributes = {key: value for key, value in facts.items() if key not in _KEPT and type(value) in _SCALARS}
        names = sorted({key for key in facts.get("filters", ()) if key and "/" not in key})
        for key in names:
            filters.setdefault(key, []).append(name)
        _write_facts(demo, facts, attributes, native_facts(name, int(length), names))
        stored = {
            key: demo.create_dataset(
                stored_name(key), (int(length), *feature.shape), feature.dtype, **_storage(feature)
            )
            for key, feature in reader.features.items()
        }
        for _, start, rows, values in pieces(reader, list(reader.features), [episode]):
            for key, part in values.items():
                stored[key][start : start + rows] = part
            done += rows
            if progress is not None:
                progress(done, steps)
        for path in made:
            if path.startswith("next_"):
                _write_next(demo, path)
            else:
                demo[path] = np.int64(np.arange(length) == length - 1) if path == "dones" else np.zeros(length)
    for key, members in sorted(filters.items()):
        file.create_dataset(f"mask/{key}", data=np.array([member.encode() for member in members]))


def _number(name: Any, last: int) -> int:
    """The number of the next demonstration: that of its name when it goes on from the last."""
    found = re.fullmatch(r"demo_(0|[1-9]\d*)", name) if isinstance(name, str) else None
    return int(found.group(1)) if found and int(found.group(1)) > last else last + 1


def _set_attributes(metadata: dict[str, Any]) -> dict[str, Any]:
    """The facts about a set that robomimic or robosuite keep as attributes themselves."""
    kept = {
        key: value
        for key, value in metadata.items()
        if type(value) in _SCALARS and key not in ("total", OWN_ATTRIBUTE, "env_args", "env_info")
    }
    described = {key: metadata[key] for key in ("env_args", "env_info") if isinstance(metadata.get(key), dict)}
    return kept | {"env_args": _NO_ENVIRONMENT} | described


def _write_next(demo: h5py.Group, path: str) -> None:
    """The observation `path` without "next_", a row on, without storing it again."""
    array = demo[path.removeprefix("next_")]
    rows = h5py.VirtualLayout(array.shape, array.dtype)
    source = h5py.VirtualSource(array)
    if len(array) > 1:
        rows[:-1] = source[1:]
    rows[-1:] = source[-1:]
    demo.create_virtual_dataset(path, rows)


def _write_facts(
    group: h5py.Group,
    facts: dict[str, Any],
    attributes: dict[str, Any],
    implied: dict[str, Any],
    made: Sequence[str] = (),
) -> None:
    """Write `attributes`, and how `facts` differ from what will be read back: the attributes and what is `implied`.

    Args:
        made: the arrays that nobody gave.
    """
    for key, value in attributes.items():
        group.attrs[key] = json.dumps(value, indent=4) if isinstance(value, dict) else value
    read = attributes | implied
    differing = {key: value for key, value in facts.items() if key not in read or not _same(read[key], value)}
    absent = [key for key in read if key not in facts]
    if differing or absent or made:
        group.attrs[OWN_ATTRIBUTE] = json.dumps({"set": differing, "unset": absent, "made": list(made)})


def _same(first: Any, second: Any) -> bool:
    return json.dumps(first) == json.dumps(second)


def _storage(feature: Feature) -> dict[str, Any]:
    if not feature.is_image:
        return {}
    return {"chunks": (1, *feature.shape), "compression": "gzip", "compression_opts": 1}
