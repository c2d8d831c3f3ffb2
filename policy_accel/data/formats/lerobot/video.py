"""The videos of a camera through PyAV: which frames belong to which episode, reading them in order, and writing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from policy_accel.data.formats.base import decoding
from policy_accel.data.formats.lerobot.layout import Column, Episode, check_size
from policy_accel.errors import UserError
from policy_accel.files import open_regular

_SKIP = 64  # frames that are decoded and dropped before a seek pays
_FORMATS = {1: "gray", 3: "rgb24", 4: "rgba"}


def read_timeline(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """When the frames are shown: [F] int64 in the video's units, ascending, and [F] seconds after the first."""
    open_regular(path).close()
    with decoding(path, "the video"), av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        times = [packet.pts for packet in packets if packet.pts is not None and not packet.is_corrupt]
        if len(times) < len(packets) or not packets:
            raise ValueError(f"{len(packets) - len(times)} of {len(packets)} frames are damaged")
        shown = np.array(sorted(times))
        return shown, (shown - shown[0]) * float(stream.time_base or 0)


def frame_rate(seconds: np.ndarray, fps: float) -> float:
    """Frames a second of a video that shows them at `seconds`, without gaps and rounding; of a single one, `fps`."""
    steps = np.diff(seconds)
    step = steps[steps <= 1.5 * np.median(steps)].mean() if steps.size else 1 / fps
    return float(1 / step) if step > 0 else float("nan")


def _few(length: int) -> int:
    """How many frames an encoder which was stopped first, or last, leaves out of an episode, or adds to it."""
    return min(3, max(1, length // 10), length - 1)


class Camera:
    """The frames of every episode as one camera saw them; asked for in order, none is decoded twice."""

    def __init__(self, column: Column, episodes: Sequence[Episode], info: dict[str, Any]) -> None:
        self._key, self._shape = f"videos/{column.name}", column.feature.shape
        self._episodes, self._info = episodes, info
        self._shown: dict[Path, np.ndarray] = {}
        self._frames: dict[int, np.ndarray] = {}  # of the file of the episode at that place, one for each step
        self._path, self._open = Path(), ExitStack()  # of the file that is open
        self.faults: dict[int, str] = {}  # place of an episode -> why it has no frames, or too few
        self.remarks: list[str] = []
        notes = defaultdict[str, list[str]](list)  # what was assumed -> of what
        files = defaultdict[Path, list[tuple[float, int]]](list)
        for number, episode in enumerate(episodes):
            if self._key in episode.videos:
                path, start = episode.videos[self._key]
                files[path].append((start, number))
            else:
                self.faults[number] = f"the tables name no video of {column.name} for it; leave the episode out."
        for path, starts in files.items():
            try:
                self._place(path, sorted(starts), notes)
            except UserError as error:
                self.faults |= {number: str(error) for _, number in starts}
        for assumed, of in notes.items():
            others = f" and {len(of) - 1} others" if len(of) > 1 else ""
            self.remarks.append(f"{column.name}: {of[0]}{others} {assumed}.")

    def _place(self, path: Path, starts: list[tuple[float, int]], notes: dict[str, list[str]]) -> None:
        """Find the frames of the episodes that start in a file at these seconds.

        The clock is believed when the file runs at `fps` and each episode has a frame for every step but for a few at
        its end. Otherwise, when there are as many frames as steps, they are taken in the file's order.
        """
        self._shown[path], seconds = read_timeline(path)
        fps, lengths = self._info["fps"], [self._episodes[number].length for _, number in starts]
        rate, total, ends = frame_rate(seconds, fps), len(seconds), np.cumsum(lengths)
        rates = f"runs at {rate:.4g} frames per second, and info.json says fps {fps:g}"
        same = abs(rate / fps - 1) <= 0.01
        wanted = np.concatenate([start + np.arange(self._episodes[number].length) / rate for start, number in starts])
        found = np.searchsorted(seconds, wanted - 0.5 / rate)
        shown = np.abs(seconds[np.minimum(found, total - 1)] - wanted) < 0.4 / rate
        shown &= same and not np.any((np.diff(found) <= 0) & (found[1:] < total))

        def leading(frames: np.ndarray) -> list[np.ndarray]:
            return [part[: np.argmax(np.append(part, total) >= total)] for part in np.split(frames, ends[:-1])]

        frames, few = leading(np.where(shown, found, total)), [_few(length) for length in lengths]
        alone = not same and len(starts) == 1 and starts[0][0] == 0 and abs(total - lengths[0]) <= few[0]
        if np.any(lengths - np.array([*map(len, frames)]) > few) and (alone or total == ends[-1]):
            frames = leading(np.minimum(np.arange(ends[-1]), total))
            why = "is not cut where from_timestamp says" if same else rates
            notes[f"{why}; with a frame for each step they are taken in the file's order"].append(str(path))
        for (_, number), length, own in zip(starts, lengths, frames, strict=True):
            lacking, of = length - len(own), f"episode {number}'s video"
            over = total - length if self._info["codebase_version"] != "v3.0" else 0
            if max(lacking, over) > _few(length):
                has = f"has {len(own)} certain frames for the {length} steps of the episode, {total} for {ends[-1]}"
                remedy = "encode one for each step, or leave the episode out"
                self.faults[number] = f"{path}: {has} steps in all, {rates}; {remedy}."
                continue
            self._frames[number] = np.pad(own, (0, lacking), "edge")
            if lacking:
                notes[f"lacks {lacking} of the frames; the last picture is shown again"].append(of)
            elif over > 0:
                notes[f"has {over} frames too many; the last are not used"].append(of)

    def read(self, episode: int, start: int, stop: int) -> np.ndarray:
        """Frames of the steps [start, stop) of an episode, uint8 [stop - start, H, W, C]."""
        path = self._episodes[episode].videos[self._key][0]
        numbers, rows = np.unique(self._frames[episode][start:stop], return_inverse=True)
        with decoding(path, "the video"):
            if path != self._path:
                self.close()
                self._container = self._open.enter_context(av.open(str(path)))
                self._path, self._next = path, len(self._shown[path])
            pictures = [self._picture(number, path) for number in numbers]
        return np.array(pictures, np.uint8).reshape(-1, *self._shape)[rows]

    def _picture(self, number: int, path: Path) -> np.ndarray:
        near, shown = self._next <= number <= self._next + _SKIP, self._shown[path]
        # A seek finds a key frame that is stored before the time asked for, but with B-frames may be shown behind it.
        for begin in (None if near else number, max(0, number - _SKIP), 0):
            if begin is not None:
                self._container.seek(int(shown[begin]), stream=self._container.streams.video[0])
                self._decoded = self._container.decode(video=0)
            for frame in self._decoded:
                if frame.pts == shown[number]:
                    self._next = number + 1
                    check_size(frame.height, frame.width, self._shape, f"{path}:")
                    pixels: np.ndarray = frame.to_ndarray(format=_FORMATS[self._shape[2]])
                    return pixels
                if frame.pts is None or frame.pts > shown[number]:
                    break
        raise ValueError(f"frame {number} is missing")

    def close(self) -> None:
        """Close the file."""
        self._open.close()
        self._path = Path()


class FrameWriter:
    """An mp4 file of one camera: H.264 with a key frame every second frame, as LeRobot's own, so that any is found
    fast; lossless as RGB without quantisation, else yuv420p at LeRobot's quality (crf 30), of even sizes alone."""

    def __init__(self, path: Path, camera: Column, fps: float, *, lossless: bool) -> None:
        height, width = camera.feature.shape[:2]
        if not lossless and (height % 2 or width % 2):
            why = f"frames of {height}x{width} pixels cannot be h264 with halved colour, which needs even sizes"
            raise UserError(f"{camera.name}: {why}; write them lossless or as png.")
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
            if row + start == 0:
                frame.pict_type = av.video.frame.PictureType.I
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left and the index of the file."""
        self._container.mux(self._stream.encode())
        self._container.close()
