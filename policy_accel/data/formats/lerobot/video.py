"""The videos of a camera through PyAV: which frames belong to which episode, reading them in order, and writing."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.formats.base import decoding
from policy_accel.data.formats.lerobot.layout import Column
from policy_accel.data.formats.lerobot.tables import Episode
from policy_accel.errors import UserError
from policy_accel.files import open_regular

_RATE_TOLERANCE = 0.01  # between a file's rate and fps, of fps
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
        install = "needs the package av, which is not installed; pip install '.[lerobot]' in our checkout."
        raise UserError(f"{doing} {install}")


def read_timeline(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """When the frames of a video are shown: [F] int64 in the file's units, ascending, and [F] seconds after the first.

    Raises:
        UserError: the file is missing, damaged or without frames.
    """
    open_regular(path).close()
    with decoding(path, "the video"), av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        times = [packet.pts for packet in packets if packet.pts is not None and not packet.is_corrupt]
        if len(times) < len(packets) or not packets:
            raise ValueError(f"{len(packets) - len(times)} of {len(packets)} frames are damaged")
        shown = np.array(sorted(times))
        return shown, (shown - shown[0]) * float(stream.time_base or 0)


def frame_rate(seconds: np.ndarray) -> float:
    """Frames a second, without gaps; times may be rounded. NaN of a single frame."""
    steps = np.diff(seconds)
    step = steps[steps <= 1.5 * np.median(steps)].mean() if steps.size else 0
    return float(1 / step) if step > 0 else float("nan")


def _few(length: int) -> int:
    """How many frames a video may lack or have beyond an episode of so many steps."""
    return int(min(_FEW, max(1, length // 10), length - 1))


def place(
    seconds: np.ndarray, fps: float, starts: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool]:
    """The first frame of every episode [E] of a file and how many it has [E], -1 where nothing tells; whether by order.

    The clock is believed when the file, whose frames are shown at `seconds` [F], runs at `fps`, a frame is shown when
    each episode starts (`starts` [E], ascending), and none lacks more than a few of its frames (`lengths` [E]), at its
    end. Otherwise, when the file has as many frames as there are steps, they are taken in the file's order.
    """
    total = len(seconds)
    first = np.searchsorted(seconds, starts - 0.5 / fps)
    frames = np.diff(first, append=total)
    sound = (first == total) | (np.abs(seconds[np.minimum(first, total - 1)] - starts) * fps <= 0.25)
    runs_at_fps = total == 1 or abs(frame_rate(seconds) / fps - 1) <= _RATE_TOLERANCE
    agree = bool(runs_at_fps and sound.all() and np.all(frames[:-1] > 0))
    gaps = np.flatnonzero(np.diff(seconds) * fps > 1.5)
    holes = np.searchsorted(gaps, first + np.minimum(frames, lengths) - 1) > np.searchsorted(gaps, first)
    allowed = np.array([_few(length) for length in lengths])
    if agree and not holes.any() and np.all(frames >= lengths - allowed):
        return first, frames, False
    alone = len(lengths) == 1 and starts[0] == 0 and abs(total - lengths[0]) <= allowed[0]
    if total == lengths.sum() or (alone and not runs_at_fps):
        first = np.cumsum(lengths) - lengths
        return first, np.diff(first, append=total), True
    return first, np.where(agree & ~holes, frames, -1), False


class Camera:
    """The frames of every episode as one camera saw them; asked for in order, none is decoded twice.

    Attributes:
        faults: place of an episode -> why it has no frames, or too few.
        remarks: what was assumed, one sentence each.
    """

    def __init__(self, column: Column, episodes: Sequence[Episode], info: dict[str, Any]) -> None:
        self._column, self._fps, self._one_each = column, info["fps"], info["codebase_version"] != "v3.0"
        self._episodes = episodes
        self._shown: dict[Path, np.ndarray] = {}
        self._frames: dict[int, tuple[Path, int, int]] = {}  # place -> file, first frame, frames
        self._path: Path | None = None  # of the file that is open
        self._container: Any = None
        self.faults: dict[int, str] = {}
        self._notes: dict[str, list[str]] = {}  # what was assumed -> of what
        files: dict[Path, list[tuple[float, int]]] = {}
        for number, episode in enumerate(episodes):
            if column.name in episode.videos:
                path, start = episode.videos[column.name]
                files.setdefault(path, []).append((start, number))
            else:
                self.faults[number] = f"the tables name no video of {column.name} for it; leave the episode out."
        for path, starts in files.items():
            try:
                self._place(path, sorted(starts))
            except UserError as error:
                self.faults |= {number: str(error) for _, number in starts}
        self.remarks = [
            f"{column.name}: {names[0]}{f' and {len(names) - 1} others' * (len(names) > 1)} {assumed}."
            for assumed, names in self._notes.items()
        ]

    def _place(self, path: Path, starts: list[tuple[float, int]]) -> None:
        self._shown[path], seconds = read_timeline(path)
        lengths = np.array([self._episodes[number].length for _, number in starts])
        first, found, in_order = place(seconds, self._fps, np.array([start for start, _ in starts]), lengths)
        rate = frame_rate(seconds)
        rates = f"runs at {rate:.4g} frames per second, and info.json says fps {self._fps:g}"
        if in_order:
            why = rates if abs(rate / self._fps - 1) > _RATE_TOLERANCE else "is not cut where from_timestamp says"
            self._note(f"{why}; with a frame for each step they are taken in the file's order", path.name)
        for (_, number), begin, frames in zip(starts, first.tolist(), found.tolist(), strict=True):
            length = self._episodes[number].length
            over, few = frames - length, _few(length)
            self._frames[number] = path, begin, frames
            if frames < 0 or over < -few or (self._one_each and over > few):
                has = f"has {frames if frames >= 0 else 'no certain'} frames for the {length} steps of the episode"
                of = f"it holds {len(seconds)} for {lengths.sum()} steps, {rates}"
                remedy = "encode it again with one frame for each step at that rate, or leave the episode out."
                self.faults[number] = f"{path}: {has}: {of}; {remedy}"
            elif over < 0:
                self._note(f"lacks {-over} of the frames; the last picture is shown again", f"episode {number}'s video")
            elif over > 0 and self._one_each:
                self._note(f"has {over} frames too many; the last are not used", f"episode {number}'s video")

    def _note(self, assumed: str, of: str) -> None:
        self._notes.setdefault(assumed, []).append(of)

    def read(self, episode: int, start: int, stop: int) -> np.ndarray:
        """Frames of the steps [start, stop) of an episode, uint8 [stop - start, H, W, C].

        Raises:
            UserError: the file is missing or damaged, or its frames are of another size than info.json says.
        """
        path, first, frames = self._frames[episode]
        shape = self._column.feature.shape
        result = np.empty((stop - start, *shape), np.uint8)
        with decoding(path, "the video"):
            if path != self._path:
                self.close()
                self._container = av.open(str(path))
                self._stream = self._container.streams.video[0]
                self._decoded, self._next, self._path = self._container.decode(self._stream), 0, path
            for row, step in enumerate(range(start, stop)):
                if row and step >= frames:  # steps behind the last frame have its picture
                    result[row] = result[row - 1]
                    continue
                frame = self._frame(first + min(step, frames - 1), self._shown[path])
                if (frame.height, frame.width) != shape[:2]:
                    has = f"has frames of {frame.height}x{frame.width} pixels, and info.json says {shape[0]}x{shape[1]}"
                    raise UserError(f"{path}: {has}; correct the shape there.")
                result[row] = frame.to_ndarray(format=_FORMATS[shape[2]]).reshape(shape)
        return result

    def _frame(self, number: int, shown: np.ndarray) -> Any:
        near = self._next <= number <= self._next + _SKIP
        # A seek finds a key frame that is stored before the time asked for, but with B-frames may be shown behind it.
        for begin in (None if near else number, max(0, number - _SKIP), 0):
            if begin is not None:
                self._container.seek(int(shown[begin]), stream=self._stream)
                self._decoded = self._container.decode(self._stream)
            for frame in self._decoded:
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


class FrameWriter:
    """An mp4 file of one camera, frame by frame.

    H.264 with a key frame every second frame, as LeRobot's own files, so that a loader finds any frame fast. Lossless
    is RGB without quantisation, else yuv420p at LeRobot's usual quality (crf 30).

    Raises:
        UserError: an odd height or width, which yuv420p cannot have.
    """

    def __init__(self, path: Path, camera: Column, fps: float, *, lossless: bool) -> None:
        height, width = camera.feature.shape[:2]
        if not lossless and (height % 2 or width % 2):
            why = f"frames of {height}x{width} pixels cannot be h264 with halved colour, which needs even sizes"
            raise UserError(f"{camera.name}: {why}; write them lossless or as png.")
        self._count = 0
        self._container = av.open(str(path), "w", options={"flush_packets": "1"})
        self._stream = self._container.add_stream(
            "libx264rgb" if lossless else "libx264",
            rate=Fraction(fps).limit_denominator(100_000),
            options={"g": "2", "bf": "0", **({"qp": "0"} if lossless else {"crf": "30"})},
        )
        self._stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        self._stream.height, self._stream.width = height, width

    def write(self, frames: np.ndarray, start: int) -> None:
        """Append uint8 [n, H, W, 3], of which the first is step `start` of its episode, at 0 a key frame."""
        for row, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = self._count, 1 / self._stream.codec_context.framerate
            if row + start == 0:
                frame.pict_type = av.video.frame.PictureType.I
            self._count += 1
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left and the index of the file."""
        self._container.mux(self._stream.encode())
        self._container.close()


def video_facts(path: Path) -> dict[str, Any]:
    """What info.json says of a camera's files, from the first of them: `get_video_info` of LeRobot."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = {"video.height": stream.height, "video.width": stream.width, "video.codec": stream.codec.canonical_name}
        facts |= {"video.pix_fmt": stream.pix_fmt, "video.fps": int(stream.base_rate or 0), "video.channels": 3}
        return facts | {"has_audio": False, "is_depth_map": False}
