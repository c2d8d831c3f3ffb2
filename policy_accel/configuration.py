"""Composing a configuration from the shipped YAML files and the command line's overrides, with errors in a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import policy_accel.configs as shipped_configs
from policy_accel.errors import UserError, did_you_mean
from policy_accel.groups import check_names, groups_of, register_variants, tell_hydra, variants_of
from policy_accel.task_variants import robosuite_variants
from policy_accel.training.run_directory import flatten

CONFIG_DIR = Path(shipped_configs.__path__[0]).resolve()
SEARCH_PATH = f"hydra.searchpath=[file://{CONFIG_DIR}]"


@dataclass(frozen=True)
class Track:
    """One kind of run: its own tasks, models and recipes lie in `folder`; the methods belong to all tracks.

    `name` is the provider under which the track's typed models are known to Hydra's ConfigStore, `runs` says what it
    trains, `missing` how to find the value of a setting that must be given, `open_sections` which settings are
    dictionaries that take any key.
    """

    name: str
    folder: Path
    runs: str
    missing: str
    open_sections: tuple[str, ...] = ()


ROBOT = Track(
    "robot",
    CONFIG_DIR,
    "robot policies",
    "`policy-accel data inspect PATH` lists the keys of demonstrations",
    ("task.environment_options", "task.environment_keys"),
)
IMAGES = Track(
    "images", CONFIG_DIR / "images", "images", "`policy-accel data inspect PATH` says whether it is an image set"
)
TRACKS = (ROBOT, IMAGES)
GROUPS_OF_A_TRACK = ("task", "recipe", "model")
register_variants("task", robosuite_variants(), track="robot")


def groups(track: Track = ROBOT) -> dict[str, list[str]]:
    """The configuration groups of a track and what each offers."""
    found = {group: {path.stem for path in track.folder.glob(f"{group}/*.yaml")} for group in GROUPS_OF_A_TRACK}
    found["method"] = {path.stem for path in CONFIG_DIR.glob("method/*.yaml")}
    for group in groups_of(track.name):
        found.setdefault(group.name, set()).update(group.choices)
    for name, nodes in variants_of(track.name).items():
        found[name].update(nodes)
    return {group: sorted(names) for group, names in sorted(found.items())}


def track_of(overrides: Sequence[str]) -> Track:
    """The track whose task or recipe the overrides choose; robots' when they choose none.

    Raises:
        UserError: a task of one track and a recipe of another, or a name that no track knows.
    """
    chosen: dict[Track, str] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in ("task", "recipe"):
            owners = [track for track in TRACKS if value in groups(track)[key]]
            if not owners:
                known = [name for track in TRACKS for name in groups(track)[key]]
                raise UserError(f"{override} is unknown; {did_you_mean(value, known)}")
            chosen.setdefault(owners[0], override)
    if len(chosen) > 1:
        robot, images = chosen[ROBOT], chosen[IMAGES]
        raise UserError(
            f"{robot} is for robot policies and {images} for images; choose both from one of the two "
            "(`policy-accel train --help` lists them)."
        )
    return next(iter(chosen), ROBOT)


def compose_config(track: Track, overrides: Sequence[str]) -> DictConfig:
    """Compose the track's train.yaml with Hydra `overrides` such as "training.steps=100".

    Raises:
        UserError: an override that cannot be read, an unknown key or choice (with the nearest name), a wrong type.
    """
    for override in overrides:
        if "=" not in override:
            raise UserError(f"'{override}' is not of the form key=value, for example training.steps=2000.")
        if override[0] in "+~":
            raise UserError(f"'{override}': keys cannot be added or removed; write key=value with a key that exists.")
    _check_choices(track, overrides)
    tell_hydra(track.name)
    GlobalHydra.instance().clear()
    try:
        config = _compose(track, overrides)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, track, overrides)) from error
    check_names(config, track.name)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{', '.join(missing)} must be given, for example {missing[0]}=...; {track.missing}.")
    return config


def _compose(track: Track, overrides: Sequence[str]) -> DictConfig:
    overrides = [f"++{override}" if _adds_keys(track, override) else override for override in overrides]
    with initialize_config_dir(str(track.folder), version_base="1.3"):
        return compose("train", [SEARCH_PATH, *overrides])


def _adds_keys(track: Track, override: str) -> bool:
    key = override.split("=", 1)[0]
    return any(key == section or key.startswith(f"{section}.") for section in track.open_sections)


def _check_choices(track: Track, overrides: Sequence[str]) -> None:
    known = groups(track)
    paths = {group.replace("/", "."): group for group in known}
    for override in overrides:
        key, value = override.split("=", 1)
        if "." in key and key in paths:
            raise UserError(f"{override}: write {paths[key]}={value} to choose it, with a slash.")
        if key in known and value not in known[key]:
            for other in TRACKS:
                if (other.folder / key / f"{value}.yaml").is_file():
                    raise UserError(
                        f"{override} is for {other.runs}; choose a task of theirs too (`policy-accel train --help` "
                        "lists them)."
                    )
            raise UserError(f"{key}={value} is unknown; {did_you_mean(value, known[key])}")


def _explain(error: Exception, track: Track, overrides: Sequence[str]) -> str:
    """Name the override that is wrong; without one, the first line of the library's message."""
    chosen = [override for override in overrides if override.split("=", 1)[0] in groups(track)]
    try:
        composed = _compose(track, chosen)
    except (HydraException, OmegaConfBaseException):
        composed = _compose(track, [])
    plain = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(plain, dict)
    keys = flatten({str(key): value for key, value in plain.items()})
    sections = {key.rsplit(".", i)[0] for key in keys for i in range(1, key.count(".") + 1)}
    for override in overrides:
        key = override.split("=", 1)[0]
        if key not in keys and key not in sections and key not in groups(track):
            if elsewhere := _setting_of_another_choice(track, key, overrides):
                return elsewhere
            return f"The configuration has no key '{key}'; {_nearest(key, [*keys, *groups(track)])}"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    message = re.sub(r"\s+", " ", str(cause).strip().splitlines()[0])
    full_key = re.search(r"full_key: (\S+)", str(cause))
    if full_key and (elsewhere := _setting_of_another_choice(track, full_key[1], overrides)):
        return elsewhere
    wrong = next((o for o in reversed(overrides) if full_key and o.split("=", 1)[0] == full_key[1]), None)
    return f"{wrong or 'The configuration'}: {message.rstrip('.')}."


def _setting_of_another_choice(track: Track, key: str, overrides: Sequence[str]) -> str | None:
    """A sentence when `key` is a setting of another choice of its group than the one that the run has."""
    for group in groups_of(track.name):
        if key.startswith(f"{group.path}."):
            chosen = _chosen(track, overrides, group.name)
            having = [choice for choice in group.having(key[len(group.path) + 1 :].split(".")[0]) if choice != chosen]
            if having:
                others = " or ".join(f"{group.name}={choice}" for choice in having)
                return f"{key} is a setting of {others}; this run has {group.name}={chosen}."
    return None


def _chosen(track: Track, overrides: Sequence[str], group: str) -> str | None:
    """What the defaults of YAML files and the command line choose of a group, also where their settings do not fit."""
    with initialize_config_dir(str(track.folder), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list("train", [SEARCH_PATH, *overrides], RunMode.RUN)
    choice = defaults.overrides.known_choices[group]
    return None if choice is None else str(choice)


def _nearest(key: str, known: list[str]) -> str:
    sentence = did_you_mean(key, known)
    if sentence.startswith("did you mean"):
        return sentence
    same_name = [name for name in known if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    return f"did you mean '{same_name[0]}'?" if same_name else "`policy-accel train --print-config` lists all keys."


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists and numbers."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
