"""A recipe with the published settings of one image set, taken to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from policy_accel.configuration import Source, shipped
from policy_accel.parsing import from_yaml
from policy_accel.user_files import user_files


def taken_elsewhere(source: Source, overrides: Sequence[str], config_dir: Path | None) -> str | None:
    """What to tell of overrides that compose, where their recipe names one task and they another; None of others."""
    named, files = user_files(overrides, config_dir)
    given, chosen = (dict(override.split("=", 1) for override in form) for form in (overrides, named))
    recipe, task = chosen.get("recipe"), chosen.get("task")
    if recipe is None or task is None:
        return None
    ships = shipped(source, "recipe")
    own_files = {file.name: file.settings for file in files if file.group == "recipe"}

    @cache
    def read(name: str) -> Mapping[str, Any]:  # a recipe alone: all of them take longer than the rest
        return from_yaml(ships[name][0].read_bytes()) if name in ships else own_files.get(name, {})

    own = _task_of(recipe, read)
    if own in (None, task):
        return None
    of_task = [name for name in ships if _task_of(name, read) == task]
    instead = f"recipes of {task}: {', '.join(of_task)}" if of_task else f"no recipe that ships is of {task}"
    return (
        f"recipe={given['recipe']} is made for task={own}: its network, dropout, augmentation, batch, learning rate "
        f"and average are taken to task={given['task']} as they are; {instead}."
    )


def _task_of(recipe: str, read: Callable[[str], Mapping[str, Any]]) -> str | None:
    """The task that a recipe names, or that it builds on; None for one that suits any."""
    defaults = read(recipe).get("defaults") or []
    own = [
        task for entry in defaults if isinstance(entry, Mapping) for key, task in entry.items() if key.endswith("/task")
    ]
    bases = (entry for entry in defaults if isinstance(entry, str) and entry not in (recipe, "_self_"))
    return own[-1] if own else next(filter(None, (_task_of(base, read) for base in bases)), None)
