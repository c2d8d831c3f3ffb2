"""Frames in video files: where each episode's lie, and reading them in order, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.errors import UserError
from policy_accel.files import open_regular

_SKIP = 64  # frames that are decoded and dropped before a seek pays
_FEW = 3  # frames that an encoder which was stopped first, or last, leaves out or adds
RATE_TOLERANCE = 0.01  # between a file's rate and fps, of fps
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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A container; what is wrong with it, also while it is read, is one sentence."""
    require_av(f"{path}: reading a video")
    open_regular(path).close()
    try:
        with av.open(str(path)) as container:
            yield container
    except (av.error.FFmpegError, IndexError, UnicodeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: is cut off or no video that can be decoded ({error}); copy it again.")


@dataclass(frozen=True)
class Timeline:
    """When the frames of a file are shown, in the order in which they are: int64 [F], in units of `unit` seconds."""

    shown: np.ndarray
    unit: float

    @property
    def seconds(self) -> np.ndarray:
        """[F] float64, after the first."""
        after: np.ndarray = self.shown - self.shown[0]
        return after * self.unit

    @property
    def rate(self) -> float:
        """Frames per second."""
        step = np.median(np.diff(self.seconds)) if len(self.shown) > 1 else 0
        return float(1 / step) if step > 0 else float("nan")


def read_timeline(path: Path) -> Timeline:
    """Look at every packet of a video without decoding it.

    Raises:
        UserError: PyAV is missing; the file is missing, damaged or without frames.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        bad = [packet for packet in packets if packet.pts is None or packet.is_corrupt]
        if bad or not packets:
            raise _damaged(path, ValueError(f"{len(bad)} of {len(packets)} frames are damaged"))
        return Timeline(np.array(sorted(packet.pts for packet in packets)), float(stream.time_base))


@dataclass(frozen=True)
class Placing:
    """Where the frames of the episodes of a file lie.

    Attributes:
        first: [E] int64, the first frame.
        frames: [E] int64, how many there are, or -1 where they cannot be told.
        counted: whether they were placed by counting rows, against what the clock says.
    """

    first: np.ndarray
    frames: np.ndarray
    counted: bool


def place(timeline: Timeline, fps: float, starts: np.ndarray, lengths: np.ndarray) -> Placing:
    """Find the frames of each episode of a file.

    The clock is believed when the file runs at `fps`, a frame is shown when each episode begins, and none lacks more
    than a few frames, at its end. Otherwise, when the file has as many frames as there are steps, they are taken in the
    file's order. Episodes that neither way places have -1 frames.

    Args:
        timeline: of the file.
        fps: steps per second, by info.json.
        starts: [E] seconds, ascending: when the episodes begin, by the table of episodes.
        lengths: [E] steps.
    """
    seconds, total = timeline.seconds, len(timeline.shown)
    first = np.searchsorted(seconds, starts - 0.5 / fps)
    frames = np.diff(first, append=total)
    late = np.abs(seconds[np.minimum(first, total - 1)] - starts) * fps
    sound = (first == total) | (late <= 0.25)
    runs_at_fps = total == 1 or abs(timeline.rate / fps - 1) <= RATE_TOLERANCE
    agree = bool(runs_at_fps and sound.all() and np.all(frames[:-1] > 0))
    gaps = np.flatnonzero(np.diff(seconds) * fps > 1.5)
    holes = np.searchsorted(gaps, first + np.minimum(frames, lengths) - 1) > np.searchsorted(gaps, first)
    short = holes | (frames < lengths - np.array([few(length) for length in lengths]))
    if agree and not short.any():
        return Placing(first, frames, False)
    alone = len(lengths) == 1 and starts[0] == 0 and abs(total - lengths[0]) <= few(lengths[0])
    if total == lengths.sum() or (alone and not runs_at_fps):
        counted = np.cumsum(lengths) - lengths
        return Placing(counted, np.diff(counted, append=total), True)
    return Placing(first, np.where(agree & ~holes, frames, -1), False)


def few(length: int) -> int:
    """How many frames a video may lack or have beyond an episode of so many steps."""
    return int(min(_FEW, max(1, length // 10), length - 1))


class FrameCursor:
    """Reads runs of frames of one camera; asked for in order, no frame is decoded twice and one is in memory."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._container: Any = None

    def read(self, path: Path, timeline: Timeline, begin: int, end: int, shape: tuple[int, ...]) -> np.ndarray:
        """Frames [begin, end) of a file, uint8 [end - begin, *shape].

        Raises:
            UserError: the file is missing or damaged, or its frames are of another size than `shape`.
        """
        result = np.empty((end - begin, *shape), np.uint8)
        try:
            if path != self._path:
                self._open(path)
            for row, number in enumerate(range(begin, end)):
                frame = self._frame(number, timeline.shown)
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

    def _open(self, path: Path) -> None:
        self.close()
        self._container = av.open(str(path))
        self._stream = self._container.streams.video[0]
        self._frames, self._next, self._path = self._container.decode(self._stream), 0, path

    def _frame(self, number: int, shown: np.ndarray) -> Any:
        if not self._next <= number <= self._next + _SKIP:
            self._container.seek(int(shown[number]), stream=self._stream)
            self._frames = self._container.decode(self._stream)
        for frame in self._frames:
            if frame.pts == shown[number]:
                self._next = number + 1
                return frame
            if frame.pts is None or frame.pts > shown[number]:
                break
        raise ValueError(f"frame {number} cannot be decoded")

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
        self._container = self._path = None
