"""LeRobot data sets, versions 2.1 and 3.0: parquet tables, mp4 videos and JSON facts in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.formats.lerobot.layout import V30, read_info
from policy_accel.errors import UserError


def open_lerobot(path: Path | str) -> EpisodeReader | None:
    """Open a LeRobot data set of version 2.1 or 3.0; None when the folder is none.

    Args:
        path: the folder that holds meta/, data/ and videos/.

    Raises:
        UserError: another version (with the way to convert it), tables or columns that are missing or damaged, pyarrow
            not installed. Videos are looked at when their frames are read.
    """
    root = Path(path)
    info = read_info(root)
    if info is None:
        return None
    _require_pyarrow(root)
    from policy_accel.data.formats.lerobot.reader import LeRobotReader

    return LeRobotReader(root, info)


def write_lerobot(
    path: Path | str,
    reader: EpisodeReader,
    *,
    version: str = V30,
    fps: float | None = None,
    images: str = "lossless",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a LeRobot data set, a piece at a time, whole or not at all.

    Args:
        path: a folder, new.
        reader: the demonstrations.
        version: "v2.1" (a file for each episode) or "v3.0" (files of about 100 MB, videos of 200 MB).
        fps: steps per second; None for what the metadata say (`fps`, or the control frequency in `env_args`), else 10.
        images: RGB pictures as H.264 "lossless" or "h264" (yuv420p, crf 30), or "png" in the tables, where pictures of
            one or four channels always go, and those that a LeRobot set had there.
        progress: called with (steps so far, all steps).

    Raises:
        UserError: `path` exists, an unknown version or way to store images, what cannot be stored, a full disk,
            pyarrow (or for videos av) not installed.
    """
    _require_pyarrow(Path(path))
    from policy_accel.data.formats.lerobot.writer import write

    write(Path(path), reader, version=version, fps=fps, images=images, progress=progress)


def _require_pyarrow(path: Path) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{path}: LeRobot data sets need the package pyarrow, which is not installed; "
            "pip install '.[lerobot]' in our checkout."
        ) from error
