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
        self._root, self._column, self._episodes, self._fps, self._one_each = root, column, episodes, fps, one_each
        self._cursor = FrameCursor()
        self._timelines: dict[Path, Timeline] = {}
        self._frames: dict[int, tuple[int, int]] = {}  # place -> first frame, frames
        self.faults: dict[int, str] = {}
        notes: dict[str, list[str]] = {}  # what was assumed -> of which files
        files: dict[Path, list[int]] = {}
        for number, episode in enumerate(episodes):
            if column.name in episode.videos:
                files.setdefault(episode.videos[column.name][0], []).append(number)
            else:
                self.faults[number] = f"the table of episodes names no video of {column.name}; leave the episode out."
        for path, places in files.items():
            try:
                self._timelines[path] = read_timeline(path)
            except UserError as error:
                self.faults |= dict.fromkeys(places, str(error))
                continue
            self._place(path, places, notes)
        self.remarks = [f"{column.name}: {_listed(names)} {assumed}." for assumed, names in notes.items()]

    def _place(self, path: Path, places: list[int], notes: dict[str, list[str]]) -> None:
        places = sorted(places, key=lambda number: self._episodes[number].videos[self._column.name][1])
        starts = np.array([self._episodes[number].videos[self._column.name][1] for number in places])
        lengths = np.array([self._episodes[number].length for number in places])
        timeline = self._timelines[path]
        placing = place(timeline, self._fps, starts, lengths)
        name = str(path.relative_to(self._root))
        rates = f"runs at {timeline.rate:.4g} frames per second, and info.json says fps {self._fps:g}"
        wrong_rate = abs(timeline.rate / self._fps - 1) > RATE_TOLERANCE
        if placing.counted:
            why = rates if wrong_rate else "is not cut where from_timestamp says"
            assumed = f"{why}; with a frame for each step they are taken in the file's order"
            notes.setdefault(assumed, []).append(name)
        for number, first, frames in zip(places, placing.first.tolist(), placing.frames.tolist(), strict=True):
            length = self._episodes[number].length
            self._frames[number] = first, frames
            over = frames - length
            if frames < 0 or over < -few(length) or (self._one_each and over > few(length)):
                self.faults[number] = (
                    f"{name}: has {frames if frames >= 0 else 'no certain'} frames for the {length} steps of the "
                    f"episode: it holds {len(timeline.shown)} for {lengths.sum()} steps, {rates}; encode it again with "
                    "one frame for each step at that rate, or leave the episode out."
                )
            elif over < 0:
                notes.setdefault(f"lacks {-over} of the frames; the last picture is shown again", []).append(
                    f"the video of episode {number}"
                )
            elif over > 0 and self._one_each:
                notes.setdefault(f"has {over} frames too many; the last are not used", []).append(
                    f"the video of episode {number}"
                )

    def read(self, episode: int, start: int, stop: int) -> np.ndarray:
        """Frames of the steps [start, stop) of an episode, uint8 [stop - start, H, W, C].

        Raises:
            UserError: the file is missing or damaged, or its frames are of another size than info.json says.
        """
        path = self._episodes[episode].videos[self._column.name][0]
        first, frames = self._frames[episode]
        end = min(stop, frames)
        begin = min(start, end - 1)
        shape = self._column.feature.shape
        values = self._cursor.read(path, self._timelines[path], first + begin, first + end, shape)
        # Steps behind the last frame have its picture.
        return values if end == stop else values[np.minimum(np.arange(start, stop), end - 1) - begin]

    def close(self) -> None:
        """Close the file."""
        self._cursor.close()


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} others: {', '.join(names[1:9])})"
