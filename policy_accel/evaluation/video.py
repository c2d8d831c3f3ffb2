"""Frames to mp4."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import numpy as np

from policy_accel.errors import UserError
from policy_accel.files import temporary_sibling


class VideoWriter:
    """Streams frames into an H.264 mp4 (yuv420p) that appears under its name only when it is complete.

    Args:
        path: the file; its folder exists. Until `finish` the frames go to a hidden neighbour, see `remove_partial`.
        fps: frames a second.

    Raises:
        UserError: from every method, when the file cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = fps
        self._partial = temporary_sibling(path)
        self._encoder: subprocess.Popen[bytes] | None = None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame [H, W, 3] uint8, all of one size; an odd size is widened by repeating the last line."""
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._encoder is None:
            self._encoder = self._start(frame.shape[1], frame.shape[0])
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(frame.tobytes())
        except OSError:
            self._fail()

    def finish(self) -> None:
        """Complete the file and put it in place of an older one."""
        if self._encoder is None:
            raise UserError(f"cannot write the video {self.path}: it has no frames")
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.close()
        except OSError:
            self._fail()
        if self._encoder.wait() != 0:
            self._fail()
        self._release()
        os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Leave no file behind."""
        if self._encoder is not None:
            self._encoder.kill()
            self._encoder.wait()
            self._release()
        self._partial.unlink(missing_ok=True)

    def _start(self, width: int, height: int) -> subprocess.Popen[bytes]:
        import imageio_ffmpeg

        frames_in = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{self.fps:g}", "-i", "-"]
        output = [
            "-an",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-pix_fmt",
            "yuv420p",
            "-threads",
            "1",
            "-f",
            "mp4",
        ]
        # ffmpeg takes "-x.mp4" for an option and "exp:1/x.mp4" for a protocol, and an absolute path for a file
        return subprocess.Popen(
            [
                imageio_ffmpeg.get_ffmpeg_exe(),
                "-y",
                "-loglevel",
                "error",
                *frames_in,
                *output,
                str(self._partial.absolute()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for us to handle
        )

    def _fail(self) -> None:
        assert self._encoder is not None
        assert self._encoder.stderr is not None
        messages = self._encoder.stderr.read().decode(errors="replace").strip().splitlines()
        self.discard()
        reason = messages[0].rpartition("] ")[2] if messages else "the encoder stopped"
        raise UserError(f"cannot write the video {self.path}: {reason}; make room, or go without videos")

    def _release(self) -> None:
        assert self._encoder is not None
        for stream in (self._encoder.stdin, self._encoder.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._encoder = None


def remove_partial(path: Path) -> None:
    """Remove what a writer that was killed left of this file."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink(missing_ok=True)
