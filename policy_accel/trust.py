"""A run directory may be a stranger's: the modules that its config.yaml names are imported only at the user's word.

Those are `plugins`, `task.environment_module` and what stands before the colon of `task.environment`. Nothing else of a
run directory is code: weights are safetensors, everything else is read as data. An exported .pt2 is a whole program,
which torch unpickles.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.plugins import import_plugins
from policy_accel.run_files import read_config, record_of

OUR_ENVIRONMENTS = "policy_accel.envs"
PROGRAM = ".pt2"


def admit(run_dir: Path, plugins: Sequence[str] = (), *, trust: bool = False, environment: bool = True) -> None:
    """Import what the user lets a run import, before it is loaded.

    Args:
        run_dir: of the run.
        plugins: modules that the user named.
        trust: whether those that the run names are imported too, and a program is loaded.
        environment: whether the run's environment will be made.

    Raises:
        UserError: not a run directory; its environment is in a module that nobody named; a module that cannot be
            imported; a program that nobody trusts.
    """
    if run_dir.suffix == PROGRAM and run_dir.is_file() and not trust:
        raise UserError(
            f"{run_dir} is a program, whose code would run here; give --trust (from Python trust=True) when you trust "
            "it. An exported .onnx or .safetensors is data."
        )
    import_plugins(plugins)
    values = read_config(run_dir)
    needed = _environment_modules(values) if environment else []
    if trust:
        import_plugins(name for name in (*_plugins(values), *needed) if name not in sys.modules)
    for module in needed:
        if module not in sys.modules:
            raise UserError(
                f"{record_of(run_dir)} has its environment from the module '{module}', whose code would run here; give "
                f"--trust (from Python trust=True) to import it, or --plugins {module}, when you trust it."
            )


def _plugins(values: dict[str, Any]) -> list[str]:
    named = values.get("plugins")
    return [str(name) for name in named] if isinstance(named, list) else []


def _environment_modules(values: dict[str, Any]) -> list[str]:
    task = values.get("task")
    if not isinstance(task, dict):
        return []
    prefix = str(task.get("environment") or "").rpartition(":")[0]  # gymnasium imports it
    named = (str(task.get("environment_module") or OUR_ENVIRONMENTS), prefix)
    return [module for module in named if module not in (OUR_ENVIRONMENTS, "")]
