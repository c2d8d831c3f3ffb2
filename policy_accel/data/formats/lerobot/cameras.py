"""The videos of one camera: which frames belong to which episode, and reading them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from policy_accel.data.formats.lerobot.catalogue import EpisodeRow
from policy_accel.data.formats.lerobot.layout import Column
from policy_accel.data.formats.lerobot.video import RATE_TOLERANCE, FrameCursor, Timeline, few, place, read_timeline
from policy_accel.errors import UserError


class Camera:
    """The frames of every episode as one camera saw them.

    Args:
        root: folder of the data set.
        column: the camera.
        episodes: of the set.
        fps: steps per second, by info.json.
        one_each: whether every episode has a file of its own, as in v2.x.

    Attributes:
        faults: place of an episode -> why it has no frames, or too few.
        remarks: what was assumed, one sentence each.
    """

    def __init__(
        self, root: Path, column: Column, episodes: Sequence[EpisodeRow], fps: float, *, one_each: bool
    ) -> None:
        self._root, self._column, self._fps, self._one_each = root, column, fps, one_each
        self._lengths = [episode.length for episode in episodes]
        self._places = [episode.videos.get(column.name, (None, 0.0)) for episode in episodes]
        self._cursor = FrameCursor()
        self._timelines: dict[Path, Timeline] = {}
        self._frames: dict[int, tuple[Path, int, int]] = {}  # place -> file, first frame, frames
        self.faults: dict[int, str] = {}
        self._notes: dict[str, list[str]] = {}  # what was assumed -> of what
        files: dict[Path | None, list[int]] = {}
        for number in sorted(range(len(episodes)), key=lambda number: self._places[number][1]):
            files.setdefault(self._places[number][0], []).append(number)
        for path, numbers in files.items():
            try:
                if path is None:
                    raise UserError(f"the table of episodes names no video of {column.name}; leave the episode out.")
                self._timelines[path] = read_timeline(path)
                self._place(path, numbers)
            except UserError as error:
                self.faults |= dict.fromkeys(numbers, str(error))
        self.remarks = [f"{column.name}: {_listed(names)} {assumed}." for assumed, names in self._notes.items()]

    def _place(self, path: Path, numbers: list[int]) -> None:
        starts = np.array([self._places[number][1] for number in numbers])
        lengths = np.array([self._lengths[number] for number in numbers])
        timeline, name = self._timelines[path], str(path.relative_to(self._root))
        first, found, in_order = place(timeline, self._fps, starts, lengths)
        rates = f"runs at {timeline.rate:.4g} frames per second, and info.json says fps {self._fps:g}"
        if in_order:
            wrong_rate = abs(timeline.rate / self._fps - 1) > RATE_TOLERANCE
            why = rates if wrong_rate else "is not cut where from_timestamp says"
            self._note(f"{why}; with a frame for each step they are taken in the file's order", name)
        for number, begin, frames in zip(numbers, first.tolist(), found.tolist(), strict=True):
            length, over = self._lengths[number], frames - self._lengths[number]
            self._frames[number] = path, begin, frames
            if frames < 0 or over < -few(length) or (self._one_each and over > few(length)):
                self.faults[number] = (
                    f"{name}: has {frames if frames >= 0 else 'no certain'} frames for the {length} steps of the "
                    f"episode: it holds {len(timeline.shown)} for {lengths.sum()} steps, {rates}; encode it again with "
                    "one frame for each step at that rate, or leave the episode out."
                )
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
        end = min(stop, frames)
        begin = min(start, end - 1)
        shown, shape = self._timelines[path].shown, self._column.feature.shape
        values = self._cursor.read(path, shown, first + begin, first + end, shape)
        # Steps behind the last frame have its picture.
        return values if end == stop else values[np.minimum(np.arange(start, stop), end - 1) - begin]

    def close(self) -> None:
        """Close the file."""
        self._cursor.close()


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} others: {', '.join(names[1:9])})"
