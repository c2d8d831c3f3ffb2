"""What a run directory says, read as data: without torch, and without running anything of it.

An exported policy, a file, says the same of the run that it was made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.files import URL, explained
from policy_accel.foreign.kinds import is_foreign, unet2d_file
from policy_accel.parsing import from_json, is_number, read_record

CONFIG = "config.yaml"
NUMBER = re.compile(r"-?\d{1,9}(\.\d{1,9})?")
OPEN_LOOP = "open_loop.json"
CHANGES = "changes.jsonl"
"""A row for each time that a run went on with other settings: {"step", "changes": {key: [before, after]}}."""
WEIGHTS, SHARED = "model.safetensors", "config.json"
"""What a folder has of a model that was saved to be shared, ours or LeRobot's."""
MODELS = "the file or folder of a model (EDM, EDM2, DiT, diffusers, LeRobot, Diffusion Policy)"
STATE = "state.json"
"""What every checkpoint has."""

# These may change between the parts of a run; those of the device change the last bits of what is learnt.
FREE_KEYS = (
    "training.device",
    "training.threads",
    "training.logging",
    "training.compile",
    "training.capture",
    "training.deterministic",
    "training.channels_last",
    "training.accumulate",
    "training.reduce_precision",
    "training.shard",
    "evaluation.workers",
    "evaluation.camera",
    "evaluation.overlap",
    "run_dir",
)

HOW_LONG = ("training.steps", "training.validate_every", "training.checkpoint", "label", "plugins")
WHERE = tuple(f"task.{name}" for name in ("data", "layout", "filter_key", "episodes", "skip_bad_episodes"))
HOW_SCORED = (
    "training.evaluate_every",
    "evaluation",
    "sampling",
    *(f"task.environment{part}" for part in ("", "_module", "_options", "_from_data", "_keys")),
    "task.max_steps",
    "task.score",
    "task.autoencoder",
    "task.pixels",
)
"""These may change too, since no update follows from them: how long a run is, what is kept and how it is called, where
its data lie (what they hold for it is compared), and how it is scored. What was changed stands in `CHANGES`."""


def below(key: str, sections: Iterable[str]) -> bool:
    """Whether a dotted key is one of the `sections`, or in one."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def may_change(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether a run with these flat settings may go on with another value of `key`.

    A choice of noise that waits for a score follows from how that is made, and a student is taught at the times of its
    sampling.
    """
    if below(key, HOW_SCORED):
        waits = settings.get("acceleration.noise.start_score") is not None
        taught = bool(settings.get("distillation.teacher")) and below(key, ("sampling",))
        return below(key, FREE_KEYS) or not (waits or taught)
    return below(key, (*FREE_KEYS, *HOW_LONG, *WHERE))


def results_folder(run_dir: Path) -> Path:
    """Where scores and films of a run go: its directory, that of a policy that was saved to be shared, or a folder
    beside an exported policy, called as its file, or beside a folder of diffusers."""
    if run_dir.name == WEIGHTS and run_dir.with_name(SHARED).is_file():
        return run_dir.parent
    if not run_dir.is_file():
        return run_dir
    # A pipeline holds its network in a folder of its own; nothing is put into either.
    folders = (run_dir.parent.parent, run_dir.parent)
    home = next((folder for folder in folders if unet2d_file(folder) == run_dir), run_dir)
    return home.with_name(f"{home.name}.evaluation")


def record_of(run_dir: Path) -> Path:
    """The file that the configuration of a run, or of an exported policy, is in."""
    return run_dir if run_dir.is_file() else run_dir / CONFIG


def weights_file(path: Path) -> Path:
    """The weights in a folder that `save_pretrained`, LeRobot or diffusers wrote; any other path as it is."""
    for folder in (path, path / "pretrained_model"):
        if (folder / WEIGHTS).is_file() and (folder / SHARED).is_file() and not (folder / CONFIG).is_file():
            return folder / WEIGHTS
    return unet2d_file(path) or path


def located(path: Path, checkpoint: str = "last") -> tuple[Path, str]:
    """The run (or the file of a policy) and the checkpoint of it that are meant by a run, by a folder of a policy, by a
    folder of one of a run's checkpoints, or by such a folder that was taken out of it, with its config.yaml in it.

    Raises:
        UserError: a checkpoint without its run's config.yaml; one that is named twice.
    """
    path = weights_file(path)
    if not (path / STATE).is_file() or (path / CONFIG).is_file():
        return path, checkpoint
    if checkpoint != "last":
        raise UserError(f"{path} is a checkpoint already, so that checkpoint={checkpoint} has no effect; drop one.")
    folder = path.resolve()
    run_dir = folder.parent.parent
    if folder.parent.name != "checkpoints" or not folder.name.isdecimal() or not (run_dir / CONFIG).is_file():
        raise UserError(
            f"{path} is a checkpoint without its run: {CONFIG}, which says what network it is of, is neither in it nor "
            f"two folders above; put the run's {CONFIG} into it."
        )
    return run_dir, str(int(folder.name))


def read_config(run_dir: Path) -> dict[str, Any]:
    """The configuration of a run, or of an exported policy, which is a file.

    Raises:
        UserError: not a run directory, a damaged file, no permission.
    """
    if run_dir.is_file():
        if is_foreign(run_dir):
            from policy_accel.foreign.opened import foreign_config

            return foreign_config(run_dir)
        from policy_accel.robot.exporting.about import read_about

        values: dict[str, Any] = read_about(run_dir)["policy"]["config"]
        return values
    record = record_of(run_dir)
    with explained(record, "read"):
        if not record.is_file():
            _check_there(run_dir, str(run_dir))
            raise UserError(f"{run_dir} is not a run directory: it has no {CONFIG}; give one, or {MODELS}.")
    return read_record(record, "choose another run_dir")


def _check_there(path: Path, shown: str) -> None:
    if not path.exists():
        url = "a URL is not fetched: download it, and " if URL.match(str(path)) else ""
        raise UserError(f"{shown}: no such file or run; {url}give a run directory, or {MODELS}.")


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in `folder`, ascending, whole or not."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def check_checkpoint(run_dir: Path, checkpoint: str) -> None:
    """Raise UserError unless a run has the checkpoint "last", "best" (which takes a score too) or of a step."""
    steps = checkpoint_steps(run_dir / "checkpoints")
    if (run_dir / STATE).is_file() and checkpoint == "last":  # a checkpoint that was taken out of its run
        return
    if not steps:
        raise UserError(f"{run_dir} has no checkpoint yet; train it first.")
    if checkpoint not in ("last", "best") and (not checkpoint.isdecimal() or int(checkpoint) not in steps):
        raise UserError(f"{run_dir} has no checkpoint '{checkpoint}'; there are last, best and the steps {steps}.")


def begun_with(init_from: str) -> Path:
    """What `init_from` means: a run with a checkpoint, the folder of a checkpoint, or the file of a model, that or the
    one in a folder that was saved to be shared.

    Raises:
        UserError: it is neither.
    """
    path = weights_file(Path(init_from))
    _check_there(path, f"init_from={init_from}")
    if not path.is_file() and not (path / STATE).is_file() and not (path / CONFIG).is_file():
        raise UserError(
            f"init_from={init_from} is neither a run directory (no {CONFIG}) nor the folder of a checkpoint (no "
            f"{STATE}); give one of them, or {MODELS}."
        )
    if not path.is_file():
        check_checkpoint(path, "last")
    return path


def noise_levels(row: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(log SNR, loss) of a row of metrics, noisiest first; [] where it has none."""
    found = row.get("noise_levels")
    losses = found.get("loss") if isinstance(found, dict) else None
    if not isinstance(losses, dict):
        return []
    return sorted((float(at), float(loss)) for at, loss in losses.items() if NUMBER.fullmatch(at) and is_number(loss))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; a last line that a crash cut short is left out.

    Raises:
        UserError: another line is damaged, or is no row.
    """
    with explained(path, "read"):
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = from_json(line)
            if not isinstance(row, dict) or not is_number(row.get("step", 0)):
                raise ValueError("no row with a number as its step")
            rows.append(row)
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{path}: line {number} is damaged ({error}); remove that line.") from error
    return rows
