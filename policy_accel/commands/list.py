"""`policy-accel list`: what can be chosen, a line each, from the first sentence of each file or class."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path

from policy_accel.configuration import SOURCES, Source, shipped
from policy_accel.errors import UserError, did_you_mean
from policy_accel.groups import groups_of
from policy_accel.plugins import import_plugins
from policy_accel.user_files import UserFile, user_files

PARAMETERS = "parameters"
KINDS = {"tasks": "task", "recipes": "recipe", "methods": "method", "models": "model", "presets": "training"}


def run_list(options: argparse.Namespace) -> int:
    """Print the tasks, recipes, methods or models of every track, or the choices of a group such as
    acceleration/noise; or the parameters of a network."""
    kind, files = options.kind, user_files([], options.config_dir)[1]
    import_plugins(options.plugins)
    if kind == PARAMETERS:
        from policy_accel.commands.parameters import run_parameters  # which imports torch

        return run_parameters(options)
    if options.overrides:
        raise UserError(f"{options.overrides[0]}: only `policy-accel list {PARAMETERS}` takes settings; drop it.")
    if kind not in ("tasks", "recipes", "methods"):
        _register_classes()
    group = KINDS.get(kind, kind)
    groups = [group.name for source in SOURCES.values() for group in groups_of(source.track)]
    if group not in (*KINDS.values(), *groups):
        raise UserError(f"there is no list of {kind}; {did_you_mean(kind, [*KINDS, PARAMETERS, *groups])}")
    lines = {source.trains: _lines(source, group, files) for source in SOURCES.values()}
    if len(set(map(tuple, lines.values()))) == 1:
        lines = {" and ".join(lines): next(iter(lines.values()))}
    for trains, found in lines.items():
        print(f"for {trains} ({group}=NAME)")
        print("\n".join(f"  {line}" for line in found))
    return 0


def _register_classes() -> None:
    """Import the tracks, which register the choices that are classes (and import torch)."""
    from policy_accel.track import track

    for name in SOURCES:
        track(name).choices()


def described(source: Source, group: str, files: list[UserFile]) -> dict[str, str]:
    """The choices of a group of a track by name, with a sentence each; classes only where the track has registered
    them."""
    found = {name: " ".join(map(of_file, paths)) for name, paths in shipped(source, group).items()}
    found |= {
        file.name: of_file(file.path) for file in files if file.group == group and file.track in (None, source.track)
    }
    for typed in groups_of(source.track):
        if typed.name == group:
            found |= {name: of_class(node) for name, node in typed.choices.items()}
    return found


def _lines(source: Source, group: str, files: list[UserFile]) -> list[str]:
    found = described(source, group, files)
    width = max(map(len, found), default=0)
    return [f"{name:<{width}}  {found[name]}".rstrip() for name in sorted(found)]


def of_file(path: Path) -> str:
    """The first sentence of a YAML file's leading comment."""
    comment = []
    for line in path.read_text().strip().splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            comment.append(line.removeprefix("#").strip())
    return _first_sentence(" ".join(comment))


def of_class(node: type) -> str:
    """The first sentence of a class's docstring."""
    return _first_sentence(" ".join((inspect.getdoc(node) or "").split()))


def _first_sentence(text: str) -> str:
    found = re.match(r".*?[.](?=\s+[A-Z`]|$)", text)
    return found[0] if found else text
