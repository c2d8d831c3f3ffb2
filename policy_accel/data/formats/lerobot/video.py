"""Frames in mp4 files, read in order and written, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.formats.lerobot.layout import Column
from policy_accel.errors import UserError
from policy_accel.files import explain_os_error

_SKIP = 64  # frames that are decoded and dropped before a seek pays

try:
    import av
    from av.video.frame import PictureType
except ImportError:
    av = None  # type: ignore[assignment]


def require_av(doing: str) -> None:
    """Raise UserError when PyAV, which is needed for `doing`, is not installed."""
    if av is None:
        raise UserError(
            f"{doing} needs the package av, which is not installed; pip install '.[lerobot]' in our checkout."
        )


class FrameCursor:
    """Reads runs of frames of one camera; asked for in order, no frame is decoded twice and one is in memory."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._container: Any = None

    def open(self, path: Path, frames: int) -> None:
        """Open the file unless it is open.

        Args:
            path: mp4 file.
            frames: how many frames the tables say it has.

        Raises:
            UserError: PyAV is missing; the file is missing or damaged, or holds another number of frames.
        """
        if path == self._path:
            return
        require_av(f"{path}: reading a video")
        self.close()
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
            found = self._stream.frames or sum(packet.size > 0 for packet in self._container.demux(self._stream))
        except (av.error.FFmpegError, IndexError) as error:
            self.close()
            raise _explain(path, error) from error
        if found != frames:
            self.close()
            raise UserError(
                f"{path}: holds {found} frames, and the tables of the data set count {frames} steps in it; copy or "
                "download the data set again."
            )
        self._path = path
        self._rate = self._stream.average_rate
        self._next = 0
        self._frames: Iterator[Any] = self._container.decode(self._stream)

    def read(self, seconds: float, begin: int, end: int, shape: tuple[int, ...]) -> np.ndarray:
        """Frames [begin, end) counted from the one that is shown at `seconds`, uint8 [end - begin, H, W, 3].

        Raises:
            UserError: the file is damaged, its frames are of another size than `shape`, or one is missing.
        """
        first = round(seconds * float(self._rate))
        result = np.empty((end - begin, *shape), np.uint8)
        try:
            for row, number in enumerate(range(first + begin, first + end)):
                pixels = self._frame(number).to_ndarray(format="rgb24")
                if pixels.shape != shape:
                    raise UserError(
                        f"{self._path}: has frames of {pixels.shape[0]}x{pixels.shape[1]} pixels, and info.json says "
                        f"{shape[0]}x{shape[1]}; correct the shape there."
                    )
                result[row] = pixels
        except av.error.FFmpegError as error:
            raise _explain(self._path, error) from error
        return result

    def _frame(self, number: int) -> Any:
        if not self._next <= number <= self._next + _SKIP:
            time = number / self._rate / self._stream.time_base + (self._stream.start_time or 0)
            self._container.seek(int(time), stream=self._stream)
            self._frames = self._container.decode(self._stream)
        for frame in self._frames:
            found = round((frame.pts - (self._stream.start_time or 0)) * self._stream.time_base * self._rate)
            self._next = found + 1
            if found == number:
                return frame
            if found > number:
                break
        raise UserError(
            f"{self._path}: has no frame at {float(number / self._rate):.3f} s; copy or download the data set again."
        )

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
        self._container = self._path = None


def _explain(path: Path | None, error: Exception) -> UserError:
    if isinstance(error, OSError) and error.errno and isinstance(error, FileNotFoundError | PermissionError):
        return explain_os_error(error, str(path), "read")
    return UserError(f"{path}: is cut off or no video that can be decoded ({error}); copy or download it again.")


class FrameWriter:
    """An mp4 file of one camera, frame by frame.

    H.264 with a key frame every second frame, as LeRobot's own files, so that a loader finds any frame fast. Lossless
    is RGB without quantisation, else yuv420p at LeRobot's usual quality (crf 30).

    Args:
        path: the file.
        camera: its column.
        fps: frames per second.
        lossless: whether every bit comes back.

    Attributes:
        bytes: written so far.

    Raises:
        UserError: an odd height or width, which yuv420p cannot have.
    """

    def __init__(self, path: Path, camera: Column, fps: float, *, lossless: bool) -> None:
        height, width = camera.feature.shape[:2]
        if not lossless and (height % 2 or width % 2):
            raise UserError(
                f"{camera.name}: frames of {height}x{width} pixels cannot be h264 with halved colour, which "
                "needs even sizes; write them lossless or as png."
            )
        self.bytes = self._count = 0
        self._container = av.open(str(path), "w")
        options = {"qp": "0"} if lossless else {"crf": "30"}
        self._stream = self._container.add_stream(
            "libx264rgb" if lossless else "libx264",
            rate=Fraction(fps).limit_denominator(100_000),
            options={"g": "2", "bf": "0", **options},
        )
        self._stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        self._stream.height, self._stream.width = height, width

    def write(self, frames: np.ndarray, start: int) -> None:
        """Append uint8 [n, H, W, 3], of which the first is step `start` of its episode, at 0 a key frame."""
        for row, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = self._count
            frame.time_base = 1 / self._stream.codec_context.framerate
            if row == 0 and start == 0:
                frame.pict_type = PictureType.I
            self._count += 1
            self._mux(self._stream.encode(frame))

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self.bytes += packet.size
            self._container.mux(packet)

    def close(self) -> None:
        """Write what is left and the index of the file."""
        self._mux(self._stream.encode())
        self._container.close()


def video_facts(path: Path, *, version: str) -> dict[str, Any]:
    """What info.json says of a camera's file, from the file itself: `get_video_info` of LeRobot.

    Args:
        path: the first file of the camera.
        version: "v2.1" or "v3.0": the marker for depth maps moved.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
        }
        rate = int(stream.base_rate or 0)
    if version == "v2.1":
        return facts | {"video.is_depth_map": False, "video.fps": rate, "video.channels": 3, "has_audio": False}
    return facts | {"video.fps": rate, "video.channels": 3, "has_audio": False, "is_depth_map": False}
