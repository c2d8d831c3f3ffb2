"""What is tried in a process of its own: `python -P -m policy_accel.doctor.probes NAME [WORD ...]`.

It writes a JSON object a line, a `Finding`, as soon as it is found: what comes after it may crash or hang.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from policy_accel.doctor.findings import BROKEN, MISSING, OK, Finding
from policy_accel.doctor.task import of_task
from policy_accel.doctor.torch_build import torch_build
from policy_accel.errors import UserError, one_line

SIMULATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "pusht": ("PushT", {"observation": "state"}),
    "robosuite": ("Robosuite", {"task": "lift", "actions": "relative"}),
    "planning": ("PointMaze", {"maze": "umaze"}),
}
"""Extra -> an environment of ours and its options, in which a step is taken."""
DECODED = ("h264", "hevc", "av1")
"""Codecs of the videos of LeRobot data sets."""


def simulator(extra: str) -> Iterator[Finding]:
    """Make an environment, and take a step."""
    import gymnasium

    import policy_accel.envs  # noqa: F401 (registers them)

    name, options = SIMULATORS[extra]
    environment = gymnasium.make(f"policy_accel/{name}-v0", disable_env_checker=True, **options)
    environment.reset(seed=0)
    environment.step(environment.action_space.sample())
    environment.close()
    yield Finding("Simulators", extra, OK, f"a step of {name} taken")


def rendering(backend: str) -> Iterator[Finding]:
    """Draw a picture off screen; the process was started with MUJOCO_GL set to `backend`."""
    import mujoco

    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><light pos='0 0 3'/><geom size='1' rgba='1 0 0 1'/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 32, 32) as renderer:
        renderer.update_scene(data)
        picture = renderer.render()
    if not picture.any():
        raise RuntimeError("the picture is black")
    yield Finding("Rendering", backend, OK, "a picture drawn")


def ffmpeg() -> Iterator[Finding]:
    """Write a film as evaluations do."""
    import tempfile
    from pathlib import Path

    import numpy as np

    from policy_accel.evaluation.video import VideoWriter

    with tempfile.TemporaryDirectory() as folder:
        film = VideoWriter(Path(folder) / "film.mp4", 10)
        for _ in range(2):
            film.add(np.zeros((32, 32, 3), np.uint8))
        film.finish()
        yield Finding("Codecs", "mp4", OK, f"a film written ({(Path(folder) / 'film.mp4').stat().st_size} bytes)")


def jpeg() -> Iterator[Finding]:
    """Encode and decode a picture."""
    from io import BytesIO

    from PIL import Image

    kept = BytesIO()
    Image.new("RGB", (16, 16)).save(kept, "JPEG")
    Image.open(kept).load()
    yield Finding("Codecs", "jpeg", OK, "a picture written and read")


def lerobot() -> Iterator[Finding]:
    """The decoders of LeRobot's videos, and Parquet."""
    import av
    import pyarrow.parquet  # noqa: F401

    missing = [name for name in DECODED if name not in av.codecs_available]
    if missing:
        raise RuntimeError(f"av {av.__version__} decodes no {', '.join(missing)}")
    yield Finding("Codecs", "lerobot", OK, f"Parquet, and videos of {', '.join(DECODED)}")


PROBES: dict[str, Callable[..., Iterator[Finding]]] = {
    "torch": torch_build,
    "simulator": simulator,
    "rendering": rendering,
    "ffmpeg": ffmpeg,
    "jpeg": jpeg,
    "lerobot": lerobot,
    "task": of_task,
}


def main(words: list[str]) -> int:
    """Run a probe; an error of it is a finding too."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not for whoever reads us
    name, *arguments = words
    try:
        for finding in PROBES[name](*arguments):
            print(json.dumps(asdict(finding)), file=channel)
    except UserError as error:
        print(json.dumps({"state": MISSING, "said": str(error)}), file=channel)
    except BaseException as error:
        print(json.dumps({"state": BROKEN, "said": f"{type(error).__name__}: {one_line(error)}"}), file=channel)
    channel.flush()
    os._exit(0)  # the end of a broken library may crash or hang


if __name__ == "__main__":
    main(sys.argv[1:])
