"""Which format a path is of, by its content; nothing heavy is imported."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from policy_accel.data.formats.lerobot.layout import is_lerobot
from policy_accel.errors import UserError
from policy_accel.files import explained, open_regular

GROUP_MARK = "::"
MAIN_FILE, FACTS_FILE = "main_data.hdf5", "metadata.json"  # of Minari
LENGTHS, ENDS = "traj_lengths", "episode_ends"  # of an NPZ
FLAGS = ("terminals", "timeouts", "dones", "terminations", "truncations")  # of an NPZ: last steps of episodes
_IMAGES = ("images", "latents", "arr_0")  # of an NPZ that is an image set
_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # HDF5 File Format Specification 3.0, II.A


def recognised_format(path: Path | str) -> str | None:
    """The format that a path is of by its beginning, however damaged the rest; None for the replay buffer and others.

    Raises:
        UserError: no permission to look; a kind of Minari data set that is not read.
    """
    file, _ = split_group(path)
    with explained(file, "read"):
        if minari_file(file) is not None:
            return "minari"
        if is_hdf5(file) or (file.is_dir() and any(is_hdf5(member) for member in file.glob("*.h*5"))):
            return "hdf5"
        if is_npz_demonstrations(file):
            return "npz"
        return "lerobot" if is_lerobot(file) else None


def split_group(path: Path | str) -> tuple[Path, str]:
    """ "file.hdf5::lift" -> (file.hdf5, "lift"); without a mark the group is ""."""
    text = str(path)
    if GROUP_MARK in text and not Path(text).exists():
        file, _, group = text.rpartition(GROUP_MARK)
        return Path(file), group.strip("/")
    return Path(text), ""


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does; also one that is cut short."""
    if not path.is_file():
        return False
    try:
        with open_regular(path) as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except (OSError, UserError):
        return False


def minari_file(path: Path) -> Path | None:
    """The main file of a data set given by its folder, its data folder or the main file itself, or None."""
    if path.is_file():
        return path if path.name == MAIN_FILE else None
    for folder in (path, path / "data"):
        if (folder / MAIN_FILE).is_file():
            return folder / MAIN_FILE
        if (folder / FACTS_FILE).is_file() and _is_arrow(folder / FACTS_FILE):
            raise UserError(
                f"{path}: a Minari data set in Arrow files; create it again with data_format='hdf5', which is read."
            )
    return None


def _is_arrow(facts: Path) -> bool:
    return re.search(r'"data_format":\s*"arrow"', facts.read_text(errors="replace")) is not None


def is_npz_demonstrations(path: Path) -> bool:
    """Whether a file is a zip of arrays, unless they are an image set without actions and ends of episodes."""
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
            arrays = all(name.endswith(".npy") or "/" not in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError):
        return False
    told = names & {LENGTHS, ENDS, *FLAGS, "actions", "action"}
    return bool(told) or (bool(names) and arrays and names.isdisjoint(_IMAGES))
