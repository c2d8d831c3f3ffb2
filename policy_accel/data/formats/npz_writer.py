"""Writing DPPO's NPZ layout a piece at a time; see `formats/npz.py` for it."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import numpy as np

from policy_accel.data.formats.base import EpisodeReader, Feature
from policy_accel.data.formats.npz import COLUMNS, EPISODE_FACTS, STANDARD, Field
from policy_accel.data.formats.npz_members import entry, writing
from policy_accel.data.formats.recognise import ENDS, LENGTHS
from policy_accel.data.formats.streaming import OnProgress, pieces, step_size
from policy_accel.errors import UserError
from policy_accel.files import new_path

_NO_OBSERVATIONS = ("action", "action_abs", "reward", "done", "sim_state")
_NO_OBSERVATION_PREFIXES = ("next_obs.", "action_dict.", "extra.", "info.")
_MOST_COLUMNS = 1024  # of one key; a larger one, as a point cloud, stands alone
_TAKEN = ("states", "images", "observations", LENGTHS, ENDS, *STANDARD)


def write_npz(path: Path | str, reader: EpisodeReader, *, progress: OnProgress | None = None) -> None:
    """Write demonstrations as DPPO has them.

    `states` is all low-dimensional floating-point observations side by side, in their order; `images` all cameras of
    the first one's size with their channels stacked, compressed; every other key stands alone under its name. The data
    are passed once for each array, since a zip takes one after the other.

    Args:
        path: the file, new.
        reader: where the demonstrations come from.
        progress: called with (steps so far, all steps), a step being done when all arrays have it.

    Raises:
        UserError: `path` exists; disk full; no permission; two keys with the same place; what the reader raises.
    """
    fields = place(reader.features)
    members: dict[str, list[str]] = {}
    for key, field in fields.items():
        members.setdefault(field.member, []).append(key)
    if clash := [name for name, keys in members.items() if name not in ("states", "images") and len(keys) > 1]:
        raise UserError(f"{reader.source}: the keys {', '.join(members[clash[0]])} have the same place; rename one.")
    sizes = {key: max(1, step_size(feature)) for key, feature in reader.features.items()}
    steps, total = int(reader.episode_ends[-1]), sum(sizes.values()) * int(reader.episode_ends[-1])
    written = 0
    with new_path(Path(path)) as temporary, temporary.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        lengths = np.diff(reader.episode_ends, prepend=0).astype(np.int64)
        with writing(archive, LENGTHS, lengths.shape, lengths.dtype) as out:
            out.write(lengths.tobytes())
        _write_facts(archive, reader, fields)
        for name, keys in members.items():
            features = [reader.features[key] for key in keys]
            none = _joined(name, [np.empty((0, *feature.shape), feature.dtype) for feature in features])
            with writing(archive, name, (steps, *none.shape[1:]), none.dtype, compressed=name == "images") as out:
                for piece in pieces(reader, keys):
                    out.write(_joined(name, [piece.values[key] for key in keys]).tobytes())
                    written += piece.rows * sum(sizes[key] for key in keys)
                    if progress is not None:
                        progress(written * steps // total, steps)


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
    episodes = range(len(reader.episode_ends))
    if any(reader.episode_metadata(episode) for episode in episodes):
        with archive.open(entry(EPISODE_FACTS, compressed=True), "w", force_zip64=True) as out:
            for episode in episodes:
                out.write(json.dumps(reader.episode_metadata(episode)).encode() + b"\n")
