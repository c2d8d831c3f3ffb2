"""Frames in video files: where each episode's lie, and reading them in order, through PyAV."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from policy_accel.errors import UserError
from policy_accel.files import open_regular

RATE_TOLERANCE = 0.01  # between a file's rate and fps, of fps
_SKIP = 64  # frames that are decoded and dropped before a seek pays
_FEW = 3  # frames that an encoder which was stopped first, or last, leaves out or adds
_FORMATS = {1: "gray", 3: "rgb24", 4: "rgba"}

try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]


def require_av(doing: str) -> None:
    """Raise UserError when PyAV, which is needed for `doing`, is not installed."""
    if av is None:
        raise UserError(
            f"{doing} needs the package av, which is not installed; pip install '.[lerobot]' in our checkout."
        )


def _damaged(path: Path, why: object) -> UserError:
    return UserError(f"{path}: is cut off or no video that can be decoded ({why}); copy it again.")


class Timeline(NamedTuple):
    """When the frames of a file are shown, in that order: [F] int64 in the file's units, and [F] seconds after the
    first; and how many a second.
    """

    shown: np.ndarray
    seconds: np.ndarray
    rate: float


def read_timeline(path: Path) -> Timeline:
    """Look at every packet of a video without decoding it.

    Raises:
        UserError: the file is missing, damaged or without frames.
    """
    open_regular(path).close()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
            times = [packet.pts for packet in packets if packet.pts is not None and not packet.is_corrupt]
            if len(times) < len(packets) or not packets:
                raise _damaged(path, f"{len(packets) - len(times)} of {len(packets)} frames are damaged")
            shown = np.array(sorted(times))
            seconds = (shown - shown[0]) * float(stream.time_base or 0)
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise _damaged(path, error) from error
    steps = np.diff(seconds)
    step = steps[steps <= 1.5 * np.median(steps)].mean() if steps.size else 0  # without gaps; times may be rounded
    return Timeline(shown, seconds, float(1 / step) if step > 0 else float("nan"))


def few(length: int) -> int:
    """How many frames a video may lack or have beyond an episode of so many steps."""
    return int(min(_FEW, max(1, length // 10), length - 1))


def place(
    timeline: Timeline, fps: float, starts: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Find the frames of each episode of a file.

    The clock is believed when the file runs at `fps`, a frame is shown when each episode begins, and none lacks more
    than a few frames, at its end. Otherwise, when the file has as many frames as there are steps, they are taken in the
    file's order.

    Args:
        timeline: of the file.
        fps: steps per second, by info.json.
        starts: [E] seconds, ascending: when the episodes begin, by the table of episodes.
        lengths: [E] steps.

    Returns:
        The first frame of every episode [E] and how many it has [E], -1 where neither way tells; whether they were
        placed by the order.
    """
    seconds, total = timeline.seconds, len(timeline.shown)
    first = np.searchsorted(seconds, starts - 0.5 / fps)
    frames = np.diff(first, append=total)
    sound = (first == total) | (np.abs(seconds[np.minimum(first, total - 1)] - starts) * fps <= 0.25)
    runs_at_fps = total == 1 or abs(timeline.rate / fps - 1) <= RATE_TOLERANCE
    agree = bool(runs_at_fps and sound.all() and np.all(frames[:-1] > 0))
    gaps = np.flatnonzero(np.diff(seconds) * fps > 1.5)
    holes = np.searchsorted(gaps, first + np.minimum(frames, lengths) - 1) > np.searchsorted(gaps, first)
    allowed = np.array([few(length) for length in lengths])
    if agree and not holes.any() and np.all(frames >= lengths - allowed):
        return first, frames, False
    alone = len(lengths) == 1 and starts[0] == 0 and abs(total - lengths[0]) <= allowed[0]
    if total == lengths.sum() or (alone and not runs_at_fps):
        first = np.cumsum(lengths) - lengths
        return first, np.diff(first, append=total), True
    return first, np.where(agree & ~holes, frames, -1), False


class FrameCursor:
    """Reads runs of frames of one camera; asked for in order, no frame is decoded twice and one is in memory."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._container: Any = None

    def read(self, path: Path, shown: np.ndarray, begin: int, end: int, shape: tuple[int, ...]) -> np.ndarray:
        """Frames [begin, end) of a file, which are shown at the times `shown` of its timeline: uint8 [n, *shape].

        Raises:
            UserError: the file is missing or damaged, or its frames are of another size than `shape`.
        """
        result = np.empty((end - begin, *shape), np.uint8)
        try:
            if path != self._path:
                self.close()
                self._container = av.open(str(path))
                self._stream = self._container.streams.video[0]
                self._frames, self._next, self._path = self._container.decode(self._stream), 0, path
            for row, number in enumerate(range(begin, end)):
                frame = self._frame(number, shown)
                if (frame.height, frame.width) != shape[:2]:
                    raise UserError(
                        f"{path}: has frames of {frame.height}x{frame.width} pixels, and info.json says "
                        f"{shape[0]}x{shape[1]}; correct the shape there."
                    )
                result[row] = frame.to_ndarray(format=_FORMATS[shape[2]]).reshape(shape)
        except (av.error.FFmpegError, IndexError, ValueError) as error:
            self.close()
            raise _damaged(path, error) from error
        return result

    def _frame(self, number: int, shown: np.ndarray) -> Any:
        near = self._next <= number <= self._next + _SKIP
        # A seek finds a key frame that is stored before the time asked for, but with B-frames may be shown behind it.
        for begin in (None if near else number, max(0, number - _SKIP), 0):
            if begin is not None:
                self._container.seek(int(shown[begin]), stream=self._stream)
                self._frames = self._container.decode(self._stream)
            for frame in self._frames:
                if frame.pts == shown[number]:
                    self._next = number + 1
                    return frame
                if frame.pts is None or frame.pts > shown[number]:
                    break
        raise ValueError(f"frame {number} is missing")

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
        self._container = self._path = None
