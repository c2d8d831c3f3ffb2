"""The videos of a camera through PyAV: which frames belong to which episode, reading them in order, and writing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from policy_accel.data.formats.base import decoding
from policy_accel.data.formats.lerobot.layout import Column, Episode
from policy_accel.errors import UserError
from policy_accel.files import open_regular

_SKIP = 64  # frames that are decoded and dropped before a seek pays
_FORMATS = {1: "gray", 3: "rgb24", 4: "rgba"}

try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]


def _need_av(camera: Column) -> None:
    if av is None:
        package = "the package av, which is not installed; pip install '.[lerobot]' in our checkout."
        raise UserError(f"the videos of {camera.name} need {package}")


def read_timeline(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """When the frames of a video are shown: [F] int64 in the file's units, ascending, and [F] seconds after the first.

    UserError is raised for a file that is missing, damaged or without frames.
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
    """How many frames an encoder which was stopped first, or last, leaves out of an episode, or adds to it."""
    return min(3, max(1, length // 10), length - 1)


def place(
    seconds: np.ndarray, fps: float, starts: Sequence[float], lengths: Sequence[int]
) -> tuple[list[np.ndarray], bool, bool]:
    """The frames of each episode of a file; whether the file runs at `fps`; whether they were taken in its order.

    The clock is believed when the file, whose frames are shown at `seconds` [F], runs at `fps`, and each episode, which
    starts at its second, has a frame for every step but for a few at its end. Otherwise, when there are as many frames
    as steps, they are taken in the file's order.
    """
    rate, total, steps = frame_rate(seconds), len(seconds), sum(lengths)
    same = total == 1 or abs(rate / fps - 1) <= 0.01
    step = 1 / (rate if same and total > 1 else fps)
    wanted = np.concatenate([start + step * np.arange(length) for start, length in zip(starts, lengths, strict=True)])
    found = np.searchsorted(seconds, wanted - step / 2)
    shown = np.abs(seconds[np.minimum(found, total - 1)] - wanted) < 0.4 * step
    shown &= same and bool(np.all((np.diff(found) > 0) | (found[1:] == total)))
    parts = np.split(shown, np.cumsum(lengths)[:-1])
    enough = all(part[: len(part) - _few(len(part))].all() for part in parts)
    alone = not same and len(lengths) == 1 and starts[0] == 0 and abs(total - steps) <= _few(steps)
    if in_order := not enough and (alone or total == steps):
        found = np.arange(steps)
        parts = np.split(found < total, np.cumsum(lengths)[:-1])
    frames = np.split(found, np.cumsum(lengths)[:-1])
    return [of[: np.argmin([*part, False])] for of, part in zip(frames, parts, strict=True)], same, in_order


class Camera:
    """The frames of every episode as one camera saw them; asked for in order, none is decoded twice.

    Attributes:
        faults: place of an episode -> why it has no frames, or too few.
        remarks: what was assumed, one sentence each.
    """

    def __init__(self, column: Column, episodes: Sequence[Episode], info: dict[str, Any]) -> None:
        _need_av(column)
        self._column, self._episodes, self._info = column, episodes, info
        self._shown: dict[Path, np.ndarray] = {}
        self._frames: dict[int, np.ndarray] = {}  # of the file of the episode at that place
        self._path, self._container = cast(Path | None, None), cast(Any, None)  # of the file that is open
        self.faults: dict[int, str] = {}
        self._notes = defaultdict[str, list[str]](list)  # what was assumed -> of what
        files = defaultdict[Path, list[tuple[float, int]]](list)
        for number, episode in enumerate(episodes):
            if column.name in episode.videos:
                path, start = episode.videos[column.name]
                files[path].append((start, number))
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
        lengths = [self._episodes[number].length for _, number in starts]
        frames, same_rate, in_order = place(seconds, self._info["fps"], [start for start, _ in starts], lengths)
        rates = f"runs at {frame_rate(seconds):.4g} frames per second, and info.json says fps {self._info['fps']:g}"
        if in_order:
            why = "is not cut where from_timestamp says" if same_rate else rates
            self._notes[f"{why}; with a frame for each step they are taken in the file's order"].append(str(path))
        for (_, number), length, own in zip(starts, lengths, frames, strict=True):
            self._frames[number], of = own, f"episode {number}'s video"
            over = len(seconds) - length if self._info["codebase_version"] != "v3.0" else 0
            if max(length - len(own), over) > _few(length):
                has = f"has {len(own)} certain frames for the {length} steps of the episode"
                has += f", {len(seconds)} for {sum(lengths)} steps in all, {rates}"
                self.faults[number] = f"{path}: {has}; encode one for each step, or leave the episode out."
            elif len(own) < length:
                self._notes[f"lacks {length - len(own)} of the frames; the last picture is shown again"].append(of)
            elif over > 0:
                self._notes[f"has {over} frames too many; the last are not used"].append(of)

    def read(self, episode: int, start: int, stop: int) -> np.ndarray:
        """Frames of the steps [start, stop) of an episode, uint8 [stop - start, H, W, C].

        UserError is raised for a file that is damaged, or has frames of another size than info.json says.
        """
        path, shape = self._episodes[episode].videos[self._column.name][0], self._column.feature.shape
        frames = self._frames[episode]
        numbers = frames[np.minimum(np.arange(start, stop), len(frames) - 1)]  # steps behind the last have its picture
        result = np.empty((stop - start, *shape), np.uint8)
        with decoding(path, "the video"):
            if path != self._path:
                self.close()
                self._container = av.open(str(path))
                self._stream = self._container.streams.video[0]
                self._decoded, self._next, self._path = self._container.decode(self._stream), 0, path
            for row, number in enumerate(numbers):
                if row and number == numbers[row - 1]:
                    result[row] = result[row - 1]
                    continue
                frame = self._frame(number, self._shown[path])
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
    is RGB without quantisation, else yuv420p at LeRobot's usual quality (crf 30), which has even sizes alone.
    """

    def __init__(self, path: Path, camera: Column, fps: float, *, lossless: bool) -> None:
        _need_av(camera)
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
