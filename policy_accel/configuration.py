"""Composing a configuration from the shipped YAML files and the command line's overrides, with errors in a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import policy_accel.configs as shipped_configs
from policy_accel.errors import UserError, one_of
from policy_accel.groups import check_names, flatten, groups_of, register_variants, variants_of
from policy_accel.key_hints import key_hint, unknown_choice
from policy_accel.quoting import quoted
from policy_accel.task_variants import robosuite_variants
from policy_accel.typed_values import UnknownKeyError, check_form, put
from policy_accel.user_files import UserFile, chosen, user_files

CONFIG_DIR = Path(shipped_configs.__path__[0]).resolve()
SEARCH_PATH = f"hydra.searchpath=[{quoted(f'file://{CONFIG_DIR}')}]"


@dataclass(frozen=True)
class Source:
    """Where the settings of a track come from.

    Attributes:
        track: its name.
        trains: what it trains, in words.
        folder: its tasks, models and recipes; methods and presets of the training belong to all tracks.
        missing: how to find the value of a setting that must be given.
        open_sections: settings that are dictionaries and take any key.
    """

    track: str
    trains: str
    folder: Path
    missing: str
    open_sections: tuple[str, ...] = ()


SOURCES = {
    "robot": Source(
        "robot",
        "robot policies",
        CONFIG_DIR,
        "`policy-accel data inspect PATH` lists the keys of demonstrations",
        ("task.environment_options", "task.environment_keys", "task.image_ranges", "encoder.statistics"),
    ),
    "images": Source(
        "images", "images", CONFIG_DIR / "images", "`policy-accel data inspect PATH` says whether it is an image set"
    ),
}
GROUPS_OF_A_TRACK = ("task", "recipe", "model")
GROUPS_OF_ALL = ("method", "training")
register_variants("task", robosuite_variants(), track="robot")


def shipped(source: Source, group: str) -> dict[str, list[Path]]:
    """What ships for a track in a group, by name, with the YAML files that it is made of."""
    folder = (CONFIG_DIR if group in GROUPS_OF_ALL else source.folder) / group
    found = {path.stem: [path] for path in sorted(folder.glob("*.yaml"))}
    for name, node in variants_of(source.track).get(group, {}).items():
        found[name] = [folder / f"{part}.yaml" for part in node["defaults"] if part != "_self_"]
    return found


def choices(source: Source, files: Sequence[UserFile] = ()) -> dict[str, list[str]]:
    """The configuration groups of a track and what each offers, with the user's own `files`."""
    found = {group: set(shipped(source, group)) for group in (*GROUPS_OF_A_TRACK, *GROUPS_OF_ALL)}
    for group in groups_of(source.track):
        found.setdefault(group.name, set()).update(group.choices)
    for file in files:
        if file.track in (None, source.track):
            found[file.group].add(file.name)
    return {group: sorted(names) for group, names in sorted(found.items())}


def source_of(overrides: Sequence[str], config_dir: Path | None = None) -> Source:
    """Of the track that the overrides, or the files they choose, belong to; robots' when nothing says which.

    A track is named by `track=NAME`, by that line in a file of the user's, or by a shipped task or recipe.

    Raises:
        UserError: choices of two tracks, or a name that no track knows.
    """
    overrides, files = user_files(overrides, config_dir)
    named: dict[str, str] = {}
    for file in chosen(files, overrides):
        if file.track is not None:
            named.setdefault(one_of(f"{file.path}: track", file.track, SOURCES), f"{file.group}={file.path}")
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "track":
            named.setdefault(one_of("track", value, SOURCES), override)
        if key in ("task", "recipe") and override not in (f"{file.group}={file.name}" for file in files):
            known = {name: source.track for source in SOURCES.values() for name in shipped(source, key)}
            if value not in known:
                own = [file.name for file in files if file.group == key]
                raise unknown_choice(key, value, [*known, *own])
            named.setdefault(known[value], override)
    if len(named) > 1:
        first, second = (f"{choice} is for {SOURCES[track].trains}" for track, choice in named.items())
        raise UserError(f"{first} and {second}; choose both from one of the two (`policy-accel list` names all).")
    return SOURCES[next(iter(named), "robot")]


def compose_config(source: Source, overrides: Sequence[str], config_dir: Path | None = None) -> DictConfig:
    """Compose the track's train.yaml with Hydra `overrides` such as "training.steps=100".

    Args:
        source: of the track.
        overrides: choices, by name or by the path of a YAML file, and settings.
        config_dir: folder of the user's own task/, recipe/, method/ and model/.

    Raises:
        UserError: an override that cannot be read, an unknown key or choice (with the nearest name), a wrong type.
    """
    check_form(overrides)
    named, files = user_files(overrides, config_dir)
    _check_choices(source, named, files)
    _tell_hydra(source, files)
    GlobalHydra.instance().clear()
    groups = choices(source, files)
    last = dict(override.split("=", 1) for override in named)
    taken = [f"{key}={value}" for key, value in last.items() if key in groups]
    try:
        config = _compose(source, taken)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, source, taken, files)) from error
    for key, text in last.items():
        if key not in groups:
            _put(config, key, text, source, taken)
    try:
        plain(config)  # once: what is resolved in place would be resolved again
    except OmegaConfBaseException as error:
        raise UserError(_explain(error, source, taken, files)) from error
    check_names(config, source.track)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{', '.join(missing)} must be given, for example {missing[0]}=...; {source.missing}.")
    return config


def _compose(source: Source, taken: Sequence[str]) -> DictConfig:
    """The configuration with the choices `taken`, as "group=name"."""
    with initialize_config_dir(str(source.folder), version_base="1.3"):
        return compose("train", [SEARCH_PATH, *_for_hydra(taken)])


def _for_hydra(taken: Sequence[str]) -> list[str]:
    return [f"{group}={quoted(name)}" for group, name in (override.split("=", 1) for override in taken)]


def _put(config: DictConfig, key: str, text: str, source: Source, taken: Sequence[str]) -> None:
    try:
        put(config, key, text, source.open_sections)
    except UnknownKeyError as error:
        unknown = str(error)
        if elsewhere := _setting_of_another_choice(source, unknown, taken):
            raise UserError(elsewhere) from error
        keys = [*flatten(plain(config, resolve=False)), *choices(source)]
        raise UserError(f"The configuration has no key '{unknown}'; {key_hint(unknown, keys)}") from error
    except ValueError as error:
        raise UserError(f"{key}={text}{error}") from error


def _tell_hydra(source: Source, files: Sequence[UserFile]) -> None:
    """Put the choices of a track's groups where Hydra looks for them."""
    store = ConfigStore.instance()
    for group in groups_of(source.track):
        for name, node in group.choices.items():
            store.store(group=group.name, name=name, node=node, provider="policy_accel")
    for name_of_group, nodes in variants_of(source.track).items():
        for name, variant in nodes.items():
            store.store(group=name_of_group, name=name, node=variant, provider="policy_accel")
    for file in files:
        file.tell_hydra()


def _check_choices(source: Source, overrides: Sequence[str], files: Sequence[UserFile]) -> None:
    known = choices(source, files)
    paths = {group.replace("/", "."): group for group in known}
    for file in files:
        if file.name in choices(source)[file.group]:
            raise UserError(f"{file.path} has the name of a {file.group} of policy_accel; name it otherwise.")
    for override in overrides:
        key, value = override.split("=", 1)
        if "." in key and key in paths:
            raise UserError(f"{override}: write {paths[key]}={value} to choose it, with a slash.")
        if key in known and value not in known[key]:
            for other in SOURCES.values():
                if value in choices(other, files).get(key, ()):
                    raise UserError(f"{override} is for {other.trains}; choose a task of theirs too.")
            raise unknown_choice(key, value, known[key])


def _explain(error: Exception, source: Source, overrides: Sequence[str], files: Sequence[UserFile]) -> str:
    """Name the file that is wrong; without one, the first line of the library's message."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    kind, text = type(cause).__name__, str(cause).strip()
    if composing := re.match(r"In '.*': (\w+) raised while composing config:\s*", text):
        kind, text = composing[1], text[composing.end() :]
    message = re.sub(r"\s+", " ", text.splitlines()[0]).rstrip(".")
    found = re.search(r"full_key: (\S+)", text)
    full_key = found[1] if found else ""
    if elsewhere := _setting_of_another_choice(source, full_key, overrides):
        return elsewhere
    groups = choices(source, files)
    lost = re.match(r"In '.*': Could not find '(\S+)/(\S+)'", text)
    for file in chosen(files, overrides):
        if full_key and file.has(full_key):
            unknown = kind in ("ConfigAttributeError", "ConfigKeyError")
            return f"{file.path}: {_unknown_in_file(file, full_key, source) if unknown else message + '.'}"
        if lost and lost[2] in str(file.settings.get("defaults")):
            return f"{file.path}: {unknown_choice(lost[1], lost[2], groups.get(lost[1], []))}"
    return f"The configuration: {message}."


def _unknown_in_file(file: UserFile, key: str, source: Source) -> str:
    keys = flatten(plain(_compose(source, []), resolve=False))
    sentence = f"the configuration of {source.trains} has no key '{key}'; {key_hint(key, keys)}"
    if file.track is not None:
        return sentence
    others = " or ".join(f"`track: {other}`" for other in SOURCES if other != source.track)
    return f"{sentence} A file of another track has a line {others}."


def _setting_of_another_choice(source: Source, key: str, taken: Sequence[str]) -> str | None:
    """A sentence when `key` is a setting of another choice of its group than the one that the run has."""
    for group in groups_of(source.track):
        if key.startswith(f"{group.path}."):
            having = group.having(key[len(group.path) + 1 :].split(".")[0])
            choice = _taken(source, taken, group.name)
            if having and choice not in having:
                others = " or ".join(f"{group.name}={other}" for other in having)
                return f"{key} is a setting of {others}; this run has {group.name}={choice}."
    return None


def _taken(source: Source, taken: Sequence[str], group: str) -> str | None:
    """What the defaults of YAML files and the command line choose of a group, also where their settings do not fit."""
    with initialize_config_dir(str(source.folder), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list("train", [SEARCH_PATH, *_for_hydra(taken)], RunMode.RUN)
    choice = defaults.overrides.known_choices[group]
    return None if choice is None else str(choice)


def plain(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists and numbers."""
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
