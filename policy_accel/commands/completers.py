"""What a shell offers behind `policy-accel`: settings, their choices, and folders. It runs no code but ours.

Run directories and the user's own YAML files are only listed, never read; no plugin is imported, torch neither.
"""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from policy_accel.commands.known_settings import known_settings

GROUPS = ("task", "recipe", "method", "model")
SUFFIXES = (".yaml", ".yml")
"""As `policy_accel.user_files` has them, which imports Hydra."""
POLICIES = (".onnx", ".pt2", ".safetensors")
PATHS = ("data", "layout", "run_dir", "sweep_dir", "checkpoint", "autoencoder", "inception", "init_from")
"""Last names of settings that are paths."""
DEMOS = ("pusht", "images")


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that asked, and end the process; returns where no shell did."""
    import argcomplete

    for part in _parsers(parser):
        for action in part._actions:
            if (completer := _completer(action)) is not None:
                action.completer = completer  # type: ignore[attr-defined]
    nothing = argcomplete.completers.SuppressCompleter()
    argcomplete.autocomplete(parser, always_complete_options=False, default_completer=nothing)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from _parsers(part)


def _completer(action: argparse.Action) -> Any:
    if action.choices is not None:
        return None
    if action.dest == "overrides":
        return settings
    if action.dest in ("run_dir", "run_dirs", "runs", "guide", "status") or action.dest == "paths":
        return run_directories
    if action.dest == "kind":
        return kinds
    if action.dest == "name" and not action.option_strings:
        return sets
    if action.dest in ("checkpoint", "guide_checkpoint"):
        return lambda **_: ["last", "best"]
    if action.dest == "device":
        return lambda **_: ["auto", "cpu", "cuda"]
    takes_path = action.type is Path or action.metavar in ("PATH", "DATASET", "FILE")
    return files if takes_path else None


def settings(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """KEY= and KEY=VALUE: sections first, "training." before what is in it; values after "="."""
    known = known_settings()
    tracks = _tracks(getattr(parsed_args, "overrides", None) or [], known)
    groups = _groups(known, tracks, getattr(parsed_args, "config_dir", None))
    keys: dict[str, list[str]] = {}
    for track in tracks:
        keys |= known[track]["settings"]
    key, equals, value = prefix.partition("=")
    if equals:
        return [f"{key}={one}" for one in _values(key, value, groups, keys)]
    names = [f"{name}=" for name in (*groups, *keys)]
    demos = DEMOS if getattr(parsed_args, "command", "") == "demo" else ()
    return [*sections(prefix, names), *(name for name in demos if name.startswith(prefix))]


def sections(prefix: str, names: Iterable[str]) -> list[str]:
    """Names that begin with `prefix`, cut behind the next dot; a single section is opened."""
    cut = list(
        dict.fromkeys(name[: name.find(".", len(prefix)) + 1 or None] for name in names if name.startswith(prefix))
    )
    return sections(cut[0], names) if len(cut) == 1 and cut[0].endswith(".") and cut[0] != prefix else cut


def _tracks(overrides: Iterable[str], known: dict[str, Any]) -> list[str]:
    """The tracks that the words so far leave open."""
    words = set(overrides)
    for word in words:
        key, _, value = word.partition("=")
        owners = [name for name in known if key in ("task", "recipe") and value in known[name]["groups"][key]]
        owners += [value] if key == "track" and value in known else []
        if len(owners) == 1:
            return owners
    return ["images"] if "images" in words else list(known)


def _groups(known: dict[str, Any], tracks: Iterable[str], config_dir: Path | None) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for track in tracks:
        for group, names in known[track]["groups"].items():
            groups[group] = list(dict.fromkeys([*groups.get(group, []), *names]))
    if config_dir is not None:
        for group in GROUPS:
            groups[group] += sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
    return groups


def _values(key: str, value: str, groups: dict[str, list[str]], keys: dict[str, list[str]]) -> list[str]:
    """Values of a setting; of several, parted by commas as in a sweep, the last is completed."""
    if key in GROUPS and value.startswith((".", "/", "~")):
        return files(value, suffixes=SUFFIXES)
    if key not in groups and key.rpartition(".")[2] in PATHS:
        return files(value)
    before, comma, last = value.rpartition(",")
    choices = groups.get(key) or keys.get(key, [])
    return [f"{before}{comma}{choice}" for choice in choices if choice.startswith(last)]


def run_directories(prefix: str, **_: Any) -> list[str]:
    """Run directories and exported policies, NAME=RUN too, and the folders on the way to them."""
    name, equals, path = prefix.rpartition("=")
    return [f"{name}{equals}{one}" for one in files(path, suffixes=POLICIES)]


def files(prefix: str, suffixes: tuple[str, ...] = (), **_: Any) -> list[str]:
    """Paths that begin with `prefix`; a folder that is no run directory ends in a slash, since one goes on in it.

    Args:
        prefix: what was typed; "~" is kept.
        suffixes: of the files that are meant; () for all.
    """
    folder, _slash, start = prefix.rpartition("/")
    shown = prefix[: len(prefix) - len(start)]
    try:
        with os.scandir(os.path.expanduser(folder or ("/" if shown else "."))) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []
    paths = []
    for entry in found:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start.startswith(".")):
            continue
        if entry.is_dir():
            run = os.path.exists(os.path.join(entry.path, "config.yaml"))
            paths.append(f"{shown}{entry.name}{'' if run else '/'}")
        elif entry.name.endswith(suffixes or ""):
            paths.append(f"{shown}{entry.name}")
    return paths


def sets(prefix: str, **_: Any) -> list[str]:
    """What `policy-accel data fetch` fetches."""
    inside, beside = (Path(__file__).parents[up] / "datasets" / "manifest" for up in (1, 2))  # of a wheel, a checkout
    manifests = (inside if inside.is_dir() else beside).glob(f"{glob.escape(prefix)}*.json")
    return sorted(path.stem for path in manifests)


def kinds(prefix: str, **_: Any) -> list[str]:
    """What `policy-accel list` lists."""
    known = known_settings()
    groups = {group for track in known.values() for group in track["groups"] if "/" in group}
    named = ("tasks", "recipes", "methods", "models", "presets", "parameters", *sorted(groups))
    return [name for name in named if name.startswith(prefix)]
