"""A run as TensorBoard reads it: event files in the folder `tensorboard` of the run directory."""

from __future__ import annotations

import io
import itertools
import math
import time
from pathlib import Path
from typing import Any

from policy_accel.training.trackers import Tracker, numbers

FOLDER = "tensorboard"
GIF_WIDTH, GIF_FRAMES, GIF_SECONDS = 256, 40, 6.0


class Tensorboard(Tracker):
    """Scalars of every row, grids as they are, films as GIFs, since TensorBoard shows no others.

    Every part of a run writes a file of its own. It begins with a mark that takes back what an earlier part, which was
    killed, wrote of the updates that are made again.

    Args:
        run_dir: the run directory.
        start_step: updates that the run goes on from.
    """

    def __init__(self, run_dir: Path, start_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # checked by `LoggingConfig`
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._file = EventFileWriter(str(run_dir / FOLDER))
        start = SessionLog(status=SessionLog.START)
        self._file.add_event(Event(wall_time=time.time(), step=start_step + 1, session_log=start))

    def row(self, row: dict[str, Any], newest: int) -> None:
        """See `Tracker.row`; TensorBoard takes a late row at its own step."""
        values = {name: value for name, value in numbers(row).items() if name != "step"}
        self._add(row["step"], [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def media(self, files: dict[str, Path], step: int, newest: int) -> None:
        """See `Tracker.media`."""
        for name, path in files.items():
            content = gif_of(path) if path.suffix == ".mp4" else path.read_bytes()
            width, height = _size(content)
            image = self._summary.Image(width=width, height=height, colorspace=3, encoded_image_string=content)
            self._add(step, [self._summary.Value(tag=name, image=image)])

    def keep(self, page: Path) -> None:
        """TensorBoard takes no files; the page lies in the run directory."""

    def close(self) -> None:
        """See `Tracker.close`."""
        self._file.close()

    def _add(self, step: int, values: list[Any]) -> None:
        self._file.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))


def gif_of(film: Path) -> bytes:
    """An mp4 as a GIF of at most 40 frames and 256 px, in 6 s or as long as it takes."""
    import imageio_ffmpeg
    from PIL import Image

    reader = imageio_ffmpeg.read_frames(str(film))
    facts: dict[str, Any] = next(reader)
    size = facts["size"]
    scale = min(1.0, GIF_WIDTH / size[0])
    small_size = round(size[0] * scale), round(size[1] * scale)
    every = max(1, math.ceil(round(facts["fps"] * facts["duration"]) / GIF_FRAMES))
    # One at a time: all frames of an episode take hundreds of megabytes.
    small = [
        Image.frombytes("RGB", size, frame).resize(small_size) for frame in itertools.islice(reader, None, None, every)
    ]
    milliseconds = 1000 * min(GIF_SECONDS, float(facts["duration"])) / len(small)
    buffer = io.BytesIO()
    small[0].save(buffer, "GIF", save_all=True, append_images=small[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def _size(content: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return image.size
