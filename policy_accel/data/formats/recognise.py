"""The formats of demonstrations: how each is told by its content, and what reads and writes it; imports are light."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from policy_accel.data.formats.lerobot.layout import is_lerobot
from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.files import explained

GROUP_MARK = "::"
MAIN_FILE, FACTS_FILE = "main_data.hdf5", "metadata.json"  # of Minari
LENGTHS, ENDS = "traj_lengths", "episode_ends"  # of an NPZ
FLAGS = ("terminals", "timeouts", "dones", "terminations", "truncations")  # of an NPZ: last steps of episodes
_IMAGES = ("images", "latents", "arr_0", "train_images", "x_train")  # of an NPZ that is an image set
_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # HDF5 File Format Specification 3.0, II.A


def split_group(path: Path | str) -> tuple[Path, str]:
    """ "file.hdf5::lift" -> (file.hdf5, "lift"); without a mark the group is ""."""
    file, mark, group = str(path).rpartition(GROUP_MARK)
    return (Path(file), group.strip("/")) if mark and not Path(path).exists() else (Path(path), "")


def minari_file(path: Path) -> Path | None:
    """The main file of a data set given by its folder, its data folder or the main file itself, or None."""
    for file in [path] if path.name == MAIN_FILE else [path / MAIN_FILE, path / "data" / MAIN_FILE]:
        facts = file.with_name(FACTS_FILE)
        if file.is_file():
            return file
        if facts.is_file() and re.search(r'"data_format":\s*"arrow"', facts.read_text(errors="replace")):
            raise UserError(
                f"{path}: a Minari data set in Arrow files; create it again with data_format='hdf5', which is read."
            )
    return None


def _is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does, also one that is cut short, or a folder holds such files."""
    if path.is_dir():
        return any(_is_hdf5(member) for member in path.glob("*.h*5") if member.is_file())
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return file.read(len(_SIGNATURE)) == _SIGNATURE
    return False


def _is_npz(path: Path) -> bool:
    """Whether a file is a zip of arrays, unless they are an image set without actions and ends of episodes."""
    with suppress(zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError):
        if path.is_file():
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
            names = {name.removesuffix(".npy") for name in members if name.endswith(".npy")}
            told = not names.isdisjoint({LENGTHS, ENDS, *FLAGS, "actions", "action"})
            arrays = all(name.endswith(".npy") or "/" not in name for name in members)
            return told or (bool(names) and arrays and names.isdisjoint(_IMAGES))
    return False


class Format(NamedTuple):
    """Whether a path is of a format, and "module:function" of what reads and what writes it."""

    recognises: Callable[[Path], bool]
    reader: str
    writer: str = ""


FORMATS = {
    "minari": Format(lambda path: minari_file(path) is not None, "hdf5_layout:open_minari"),
    "robomimic": Format(_is_hdf5, "robomimic:open_hdf5_demonstrations", "robomimic:write_robomimic"),
    "npz": Format(_is_npz, "npz:NpzReader", "npz:write_npz"),
    "lerobot": Format(is_lerobot, "lerobot.reader:LeRobotReader", "lerobot.writer:write_lerobot"),
    "zarr": Format(lambda _: False, "replay_buffer:ReplayBufferReader", "replay_buffer:write_replay_buffer"),
}
"""Those that read something are asked in this order; what none of them knows is opened as a replay buffer."""


def recognised_format(path: Path | str) -> str | None:
    """The format that a path is of by its beginning, however damaged the rest; None for the replay buffer and others.
    UserError without permission to look, or for a kind of Minari data set that is not read."""
    file, _ = split_group(path)
    with explained(file, "read"):
        return next((name for name, known in FORMATS.items() if known.recognises(file)), None)


def imported(function: str, path: Path | str) -> Any:
    """What "module:name" of a format stands for; UserError where a package is missing that it needs for the path."""
    module, _, name = function.partition(":")
    try:
        return getattr(import_module(f"policy_accel.data.formats.{module}"), name)
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        remedy = to_install("lerobot") if module.startswith("lerobot") else f"pip install {package}"
        raise UserError(f"{path}: its format needs the package {package}, which is not installed; {remedy}") from error
