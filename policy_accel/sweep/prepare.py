"""From a command line, or a YAML file, to a sweep all of whose configurations have been checked."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from policy_accel.configuration import SOURCES, source_of
from policy_accel.data_names import OF_ANY_DATA, data_name
from policy_accel.errors import UserError, did_you_mean, one_of
from policy_accel.plugins import import_plugins, named_plugins
from policy_accel.quoting import unquoted
from policy_accel.run_files import FREE_KEYS, below
from policy_accel.sweep.file import OWN, file_of, is_own, read_file
from policy_accel.sweep.folder import RECORD, Run, Sweep, read_sweep
from policy_accel.sweep.grid import ChoicesOf, Setting, label, product, read_settings, short_keys
from policy_accel.sweep.launcher import LAUNCHERS, LauncherConfig
from policy_accel.track import track
from policy_accel.typed_values import put
from policy_accel.user_files import user_files

SWEEPS = Path("runs", "sweeps")


@dataclass(frozen=True)
class Order:
    """A sweep that is asked for: its folder, its runs (name -> overrides), and who is to train them."""

    folder: Path
    runs: dict[str, list[str]]
    launcher: LauncherConfig
    config_dir: Path | None


def read_order(arguments: Sequence[str], config_dir: Path | None = None) -> Order:
    """Read the arguments of `policy-accel sweep`: settings, behind the path of a YAML file if there is one.

    Raises:
        UserError: something that cannot be read, an unknown setting of the sweep, two runs of one name.
    """
    file = file_of(arguments)
    given = list(arguments[1:] if file else arguments)
    if file is not None:
        keys = {argument.partition("=")[0] for argument in given}
        given = [line for line in read_file(file) if line.partition("=")[0] not in keys] + given
    own = [argument for argument in given if is_own(argument)]
    choices_of = _choices_of([argument for argument in given if argument not in own], config_dir)
    settings = read_settings([argument for argument in given if argument not in own], choices_of)
    for setting in settings:
        if near := difflib.get_close_matches(setting.key, OWN, n=1, cutoff=0.8):
            raise UserError(f"neither a run nor the sweep has a setting '{setting.key}'; did you mean '{near[0]}'?")
        if setting.key == "run_dir":
            raise UserError(f"run_dir={setting.values[0]}: each run of a sweep has its own; give sweep_dir=FOLDER.")
    launcher, folder = own_settings(own)
    runs = product(settings, choices_of)
    folder = folder or (SWEEPS / file.stem if file is not None else _default_folder(settings))
    return Order(folder, runs, launcher, config_dir)


def _default_folder(settings: Sequence[Setting]) -> Path:
    """Of a sweep that has no name: its task, if it has one, with its data if it is of any, and the keys that vary.
    Earlier versions left the data out; a folder of theirs is gone on with where its runs are of the same data."""
    given = {setting.key: setting.values[0] for setting in settings if not setting.varies}
    task = [Path(given["task"]).stem] if "task" in given else []
    name = data_name(unquoted(given.get("task.data", ""))) if given.get("task") in OF_ANY_DATA else ""
    data = [label("", name)] if name else []
    keys = short_keys([setting.key for setting in settings if setting.varies])
    older = SWEEPS / ("-".join([*task, *keys]) or "sweep")
    if data and (older / RECORD).is_file():
        own = f"task.data={given['task.data']}"
        if all(own in run.overrides for run in read_sweep(older).runs.values()):
            return older
    return SWEEPS / ("-".join([*task, *data, *keys]) or "sweep")


def own_settings(given: Sequence[str]) -> tuple[LauncherConfig, Path | None]:
    """Launcher and folder of settings such as "launcher=ray" and "launcher.cpus=4".

    Raises:
        UserError: an unknown one, a value of a wrong type or out of range.
    """
    values = dict(argument.partition("=")[::2] for argument in given)
    folder = values.pop("sweep_dir", None)
    if folder == "":
        raise UserError("sweep_dir= is empty; give the folder of the sweep.")
    schema = LAUNCHERS[one_of("launcher", values.pop("launcher", "local"), LAUNCHERS)]
    known = {f"launcher.{field.name}" for field in fields(schema)} - {"launcher.name"}
    for key in values:
        if key not in known:
            others = [name for name, other in LAUNCHERS.items() if key[9:] in {field.name for field in fields(other)}]
            if others and key != "launcher.name":
                raise UserError(f"{key} is a setting of launcher={others[0]}; this sweep has launcher={schema.name}.")
            raise UserError(f"the sweep has no setting '{key}'; {did_you_mean(key, known)}")
    config: Any = OmegaConf.structured(schema)
    for key, value in values.items():
        try:
            put(config, key.removeprefix("launcher."), value)
        except ValueError as error:
            raise UserError(f"{key}={value}{error}") from error
    launcher = OmegaConf.to_object(config)
    assert isinstance(launcher, LauncherConfig)
    launcher.check()
    return launcher, None if folder is None else Path(folder).expanduser()


def _choices_of(overrides: Sequence[str], config_dir: Path | None) -> ChoicesOf:
    """What a key's group offers, of all tracks, with what the user's own files and plugins add."""
    named, files = user_files(overrides, config_dir)

    @cache
    def choices() -> dict[str, set[str]]:
        import_plugins(named_plugins(named, (file.settings for file in files)))
        found: dict[str, set[str]] = {}
        for name in SOURCES:
            for group, names in track(name).choices().items():
                found.setdefault(group, set()).update(names)
        for file in files:
            found[file.group].add(file.name)
        return found

    return lambda key: sorted(choices().get(key, ()))


def check(order: Order) -> dict[str, Any]:
    """Compose every configuration and refuse whatever can be refused before a run starts.

    Returns:
        The configuration of each run.

    Raises:
        UserError: names the run and the key.
    """
    configs, seen = {}, set()
    for name, overrides in order.runs.items():
        try:
            chosen = track(source_of(overrides, order.config_dir).track)
            config = chosen.config(overrides, order.config_dir)
            if config.training.device.startswith("cuda:"):
                raise UserError(
                    f"training.device={config.training.device}: a sweep chooses the GPU of each run; use "
                    "training.device=cuda, and CUDA_VISIBLE_DEVICES for the GPUs that it may choose from."
                )
            chosen.check(config)
            chosen.check_weights(config)
            data = json.dumps(chosen.record(config)["task"], sort_keys=True)
            if data not in seen:
                _check_data(lambda: chosen.check_data(config), str(config.task.data))  # noqa: B023 (called at once)
                seen.add(data)
        except UserError as error:
            listed = [override for override in overrides if "=[" in override and str(error).startswith(override)]
            hint = f" Several values are written {listed[0].partition('=')[0]}=a,b." if listed else ""
            where = f"run {name}: " if len(order.runs) > 1 else ""
            raise UserError(f"{where}{error}{hint} Nothing was started.") from error
        configs[name] = config
    return configs


def _check_data(read: Callable[[], None], path: str) -> None:
    try:
        read()
    except UserError as error:
        message = str(error)
        raise UserError(f"task.data={message if message.startswith(path) else f'{path}: {message}'}") from error


def sweep_of(order: Order, configs: dict[str, Any], old: Sweep | None, threads: int) -> Sweep:
    """The sweep to work on: the one that is there, perhaps with more runs, or a new one.

    Args:
        order: what is asked for.
        configs: of its runs.
        old: the sweep of the folder, if there is one.
        threads: of each run of a new sweep where the settings do not say; an old one keeps its own, and so its bits.

    Raises:
        UserError: the folder has another sweep.
    """
    threads = max(config.training.threads for config in configs.values()) or (old.threads if old else threads)
    runs = {}
    for name, overrides in order.runs.items():
        config, added = configs[name], []
        if config.training.threads == 0:
            added.append(f"training.threads={threads}")
        if getattr(config.evaluation, "workers", 0) < 0:  # one for each core, in every run
            added.append(f"evaluation.workers={threads}")
        runs[name] = Run([*overrides, *added], config.training.steps)
    config_dir = None if order.config_dir is None else str(order.config_dir.resolve())
    sweep = Sweep(order.folder, runs, threads, config_dir, os.getcwd())
    if old is not None and (difference := _difference(old, sweep)):
        raise UserError(
            f"sweep_dir={order.folder} holds another sweep ({difference}); choose another sweep_dir, or give the same "
            "settings to go on with it."
        )
    return sweep


def _difference(old: Sweep, new: Sweep) -> str:
    """What keeps the runs of `old` from being those of `new`, which may have more."""
    if old.config_dir != new.config_dir:
        return f"--config-dir {old.config_dir} -> {new.config_dir}"
    for name, run in old.runs.items():
        if name not in new.runs:
            return f"its run {name} is missing here"
        before, after = _settings(run), _settings(new.runs[name])
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                return f"{name}: {key}: {before.get(key)} -> {after.get(key)}"
    return ""


def _settings(run: Run) -> dict[str, str]:
    """Its overrides, but for those that may change between the parts of a run."""
    pairs = dict(override.partition("=")[::2] for override in run.overrides)
    return {key: value for key, value in pairs.items() if not below(key, FREE_KEYS)}
