"""The directory of a run: one configuration, its metrics and its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.files import explained, replace_text

# These may change between the parts of a run: they do not change what is learnt.
FREE_KEYS = ("training.device", "training.logging", "training.compile", "evaluation.workers", "run_dir")


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, dict) and value else {name: value})
    return flat


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys whose values differ, as "key: old -> new", but for those that may change between the parts of a run."""
    before, after = flatten(old), flatten(new)
    keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in keys
        if not any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)
    ]


def open_run_directory(run_dir: Path, config: dict[str, Any]) -> None:
    """Make `run_dir` for `config`, or check that it belongs to the same configuration.

    Raises:
        UserError: the directory holds another configuration or other files, or cannot be written.
    """
    import yaml

    record = run_dir / "config.yaml"
    if record.is_file():
        try:
            old = yaml.safe_load(record.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{record} is damaged ({type(error).__name__}); choose another run_dir.") from error
        changed = differences(old if isinstance(old, dict) else {}, config)
        if changed:
            shown = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
            raise UserError(
                f"run_dir={run_dir} holds a run with another configuration ({shown}); choose another run_dir, or give "
                "the same configuration to continue it."
            )
        return
    with explained(run_dir):
        if run_dir.is_dir() and any(run_dir.iterdir()):
            raise UserError(f"run_dir={run_dir} is not empty and is not a run of ours; choose another run_dir.")
        run_dir.mkdir(parents=True, exist_ok=True)
    replace_text(record, yaml.safe_dump(config, sort_keys=False))
