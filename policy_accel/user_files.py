"""A user's own YAML files: `task=./mine.yaml`, and the folders task, recipe, method and model of `--config-dir DIR`.

They are written like the shipped ones. A file belongs to every track, or to the one that its line `track: NAME` names;
where nothing else says which track a run belongs to, it trains a robot policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from policy_accel.errors import UserError
from policy_accel.parsing import from_yaml
from policy_accel.typed_values import LARGEST

GROUPS = ("task", "recipe", "method", "model")
OF_ALL_SETTINGS = ("recipe", "method")
NAMES = {"task": "name", "recipe": "label", "method": "method"}
"""The setting that names a file of the group; without it a file is named as it is on the disk."""
SUFFIXES = (".yaml", ".yml")
GIVEN = "given_by_its_path"


@dataclass(frozen=True)
class UserFile:
    """One file: its group, the name that chooses it, and its settings; `track` is None where it names none."""

    group: str
    name: str
    path: Path
    settings: DictConfig
    track: str | None

    def has(self, key: str) -> bool:
        """Whether it gives the setting with this full name, such as "task.data"."""
        inside = key if self.group in OF_ALL_SETTINGS else key.removeprefix(f"{self.group}.")
        return OmegaConf.select(self.settings, inside) is not None

    def tell_hydra(self) -> None:
        """Put it where Hydra looks for the choices of its group."""
        package = "_global_" if self.group in OF_ALL_SETTINGS else None
        ConfigStore.instance().store(self.name, self.settings, self.group, package, provider=str(self.path))


def user_files(overrides: Sequence[str], config_dir: Path | None) -> tuple[list[str], list[UserFile]]:
    """The overrides, with names for paths, and the files that they may choose.

    Raises:
        UserError: a file or folder that is not there, or that does not hold settings.
    """
    files = [] if config_dir is None else _folder(config_dir)
    named = []
    for override in overrides:
        group, _, value = override.partition("=")
        if group in GROUPS and value.endswith(SUFFIXES):
            files.append(_read(group, GIVEN, Path(value).expanduser()))
            override = f"{group}={GIVEN}"
        named.append(override)
    return named, files


def chosen(files: Iterable[UserFile], overrides: Sequence[str]) -> list[UserFile]:
    """Those of the files that the overrides choose."""
    return [file for file in files if f"{file.group}={file.name}" in overrides]


def _folder(folder: Path) -> list[UserFile]:
    paths = [(group, path) for group in GROUPS for path in sorted((folder / group).glob("*.yaml"))]
    if not paths:
        raise UserError(f"--config-dir {folder} has no YAML file in a folder {', '.join(GROUPS[:-1])} or {GROUPS[-1]}.")
    return [_read(group, path.stem, path) for group, path in paths]


def _read(group: str, name: str, path: Path) -> UserFile:
    if not path.is_file():
        raise UserError(f"{group}={path}: there is no such file.")
    try:
        from_yaml(path.read_bytes())
        settings: Any = OmegaConf.load(path)
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise UserError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(settings, DictConfig):
        raise UserError(f"{path} holds no settings; write key: value, as in the files that `policy-accel list` names.")
    _make_whole(settings)
    track = settings.pop("track", None)
    if group in NAMES:
        settings.setdefault(NAMES[group], path.stem)
    return UserFile(group, name, path, settings, None if track is None else str(track))


def _make_whole(settings: DictConfig) -> None:
    """Make 10000 of 1e4 and 10000.0, which YAML reads as decimals and `training.steps` would not take; what goes to an
    environment stays as it is."""
    for key in settings:
        if not OmegaConf.is_missing(settings, key) and not OmegaConf.is_interpolation(settings, str(key)):
            value = settings[key]
            if isinstance(value, DictConfig) and key != "environment_options":
                _make_whole(value)
            elif isinstance(value, float) and value.is_integer() and abs(value) < LARGEST:
                settings[key] = int(value)
