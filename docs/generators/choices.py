"""What can be chosen by name: tasks, recipes, methods, networks and the rest, as `policy-accel list` says it."""

from __future__ import annotations

from generators.markup import markdown
from policy_accel.commands.list import KINDS, described
from policy_accel.configuration import SOURCES
from policy_accel.groups import groups_of
from policy_accel.track import track


def choices_page() -> str:
    """A heading for each group and a table of its choices; one for each track where these differ."""
    for name in SOURCES:
        track(name).register()
    groups = dict.fromkeys([*KINDS.values(), *(group.name for name in SOURCES for group in groups_of(name))])
    return "\n\n".join(_group(group) for group in groups)


def _group(group: str) -> str:
    found = {source.trains: described(source, group, []) for source in SOURCES.values()}
    if len({tuple(lines.items()) for lines in found.values()}) == 1:
        found = {"": next(iter(found.values()))}
    tables = [_table(f"`{group}=` for {trains}" if trains else f"`{group}=`", lines) for trains, lines in found.items()]
    return "\n\n".join([f"## {group}", *tables])


def _table(heading: str, lines: dict[str, str]) -> str:
    rows = [f"| `{name}` | {markdown(lines[name])} |" for name in sorted(lines)]
    return "\n".join([f"| {heading} | |", "| --- | --- |", *rows])
