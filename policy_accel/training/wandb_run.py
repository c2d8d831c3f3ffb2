"""A run at Weights & Biases, or in a folder of the run directory that can be sent there later."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.training.trackers import MEDIA, Tracker

MODES = ("off", "offline", "online")


class WandbRun(Tracker):
    """Rows as they are, grids and films as media; at the end these and the report as artefacts.

    Weights & Biases takes no row of an earlier step than the last one: a late row comes under the newest step there and
    has its own as "of_step".

    Args:
        run_dir: the run directory.
        mode: offline or online.
        project: name of the project there.
        run_config: shown as the run's configuration.

    Raises:
        UserError: it cannot start.
    """

    def __init__(self, run_dir: Path, mode: str, project: str, run_config: dict[str, Any]) -> None:
        self.run_dir = run_dir
        self._wandb, self._run = _start(run_dir, mode, project, run_config)

    def row(self, row: dict[str, Any], newest: int) -> None:
        """See `Tracker.row`."""
        values = {key: value for key, value in row.items() if key != "step"}
        self._run.log({**values, **_of_step(row["step"], newest)}, step=newest)

    def media(self, files: dict[str, Path], step: int, newest: int) -> None:
        """See `Tracker.media`."""
        shown = {
            name: self._wandb.Video(str(path), format="mp4") if path.suffix == ".mp4" else self._wandb.Image(str(path))
            for name, path in files.items()
        }
        self._run.log({**shown, **_of_step(step, newest)}, step=newest)

    def keep(self, page: Path) -> None:
        """See `Tracker.keep`; the pictures and films that are in the run directory go with it."""
        media = [path for pattern in MEDIA for path in sorted(self.run_dir.glob(pattern))]
        for kind, files in (("report", [page]), ("media", media)):
            if files:
                name = re.sub(r"[^\w.-]", "_", f"{self.run_dir.name}-{kind}")
                artefact = self._wandb.Artifact(name, type=kind)
                for path in files:
                    artefact.add_file(str(path), name=str(path.relative_to(self.run_dir)), policy="immutable")
                self._run.log_artifact(artefact)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._run.finish()


def _of_step(step: int, newest: int) -> dict[str, int]:
    return {"of_step": step} if step < newest else {}


def _start(run_dir: Path, mode: str, project: str, run_config: dict[str, Any]) -> tuple[Any, Any]:
    import wandb  # checked by `LoggingConfig`

    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        return wandb, wandb.init(
            project=project,
            dir=str(run_dir),
            mode="offline" if mode == "offline" else "online",
            name=run_dir.name,
            id=hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:16],
            resume="allow" if mode == "online" else None,
            config=run_config,
        )
    except wandb.errors.Error as error:
        raise UserError(
            f"Weights & Biases could not start ({str(error).splitlines()[0]}); run `wandb login`, or set "
            "training.logging.wandb=offline."
        ) from error
