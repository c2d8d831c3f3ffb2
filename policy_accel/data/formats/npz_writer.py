"""Writing DPPO's NPZ layout a piece at a time; see `formats/npz.py` for it."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import numpy as np

from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.formats.npz import COLUMNS, EPISODE_FACTS, STANDARD, Field
from policy_accel.data.formats.recognise import ENDS, LENGTHS
from policy_accel.data.formats.streaming import OnProgress, gather
from policy_accel.errors import UserError
from policy_accel.files import new_path

_NO_OBSERVATIONS = ("action", "action_abs", "reward", "done", "sim_state")
_NO_OBSERVATION_PREFIXES = ("next_obs.", "action_dict.", "extra.", "info.")
_MOST_COLUMNS = 1024  # of one key; a larger one, as a point cloud, stands alone
_TAKEN = ("states", "images", "observations", LENGTHS, ENDS, *STANDARD)


def write_npz(path: Path | str, reader: EpisodeReader, *, progress: OnProgress | None = None) -> None:
    """Write demonstrations as DPPO has them.

    `states` is all low-dimensional floating-point observations side by side, in their order; `images` all cameras of
    the first one's size with their channels stacked, compressed; every other key stands alone under its name. All of
    it is held in memory.

    Args:
        path: the file, new.
        reader: where the demonstrations come from.
        progress: called with (steps so far, all steps).

    Raises:
        UserError: `path` exists; disk full; no permission; two keys with the same place; what the reader raises.
    """
    fields = place(reader.features)
    members: dict[str, list[str]] = {}
    for key, field in fields.items():
        members.setdefault(field.member, []).append(key)
    if clash := [name for name, keys in members.items() if name not in ("states", "images") and len(keys) > 1]:
        raise UserError(f"{reader.source}: the keys {', '.join(members[clash[0]])} have the same place; rename one.")
    with new_path(Path(path)) as temporary:
        arrays = gather(reader, progress=progress).arrays
        with temporary.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
            _write_array(archive, LENGTHS, np.diff(reader.episode_ends, prepend=0).astype(np.int64))
            _write_facts(archive, reader, fields)
            for name, keys in members.items():
                _write_array(archive, name, _joined(name, [arrays[key] for key in keys]), compressed=name == "images")


def entry(name: str, *, compressed: bool) -> zipfile.ZipInfo:
    """A member of a zip with a fixed date, so that equal data give equal bytes."""
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    return info


def _write_array(archive: zipfile.ZipFile, name: str, values: np.ndarray, *, compressed: bool = False) -> None:
    with archive.open(entry(f"{name}.npy", compressed=compressed), "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)


def place(features: dict[str, Feature]) -> dict[str, Field]:
    """Where every key goes."""
    fields: dict[str, Field] = {}
    column = channel = 0
    size: tuple[int, ...] | None = None
    own_names = {own: name for name, own in STANDARD.items()}
    for key, feature in features.items():
        observation = key not in _NO_OBSERVATIONS and not key.startswith(_NO_OBSERVATION_PREFIXES)
        width = int(np.prod(feature.shape, dtype=np.int64))
        if observation and feature.dtype.kind == "f" and width <= _MOST_COLUMNS and feature.dtype.itemsize <= 8:
            fields[key] = Field("states", columns=(column, column + width))
            column += width
        elif observation and feature.is_image and size in (None, feature.shape[:2]):
            size = feature.shape[:2]
            fields[key] = Field("images", channels=(channel, channel + feature.shape[2]))
            channel += feature.shape[2]
        else:
            fields[key] = Field(own_names.get(key, f"own/{key}" if key in _TAKEN else key))
    return fields


def _joined(member: str, values: list[np.ndarray]) -> np.ndarray:
    """Rows of a member, from those of its keys."""
    if member == "states":
        return np.concatenate([part.reshape(len(part), math.prod(part.shape[1:])) for part in values], axis=1)
    if member == "images":
        return np.concatenate([part.transpose(0, 3, 1, 2) for part in values], axis=1)
    return values[0]


def _write_facts(archive: zipfile.ZipFile, reader: EpisodeReader, fields: dict[str, Field]) -> None:
    keys = {}
    for key, field in fields.items():
        feature = reader.features[key]
        keys[key] = {
            "member": field.member,
            **({"columns": field.columns} if field.columns else {}),
            **({"channels": field.channels} if field.channels else {}),
            "shape": feature.shape,
            "dtype": feature.dtype.str,
        }
    archive.writestr(
        entry(COLUMNS, compressed=False), json.dumps({"keys": keys, "metadata": reader.metadata}, indent=1)
    )
    facts = [json.dumps(reader.episode_metadata(episode)) for episode in range(len(reader.episode_ends))]
    if set(facts) != {"{}"}:
        archive.writestr(entry(EPISODE_FACTS, compressed=True), "".join(f"{line}\n" for line in facts))
