"""Every command and its arguments, from the parsers of the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from generators.markup import markdown
from policy_accel.cli import build_parser
from policy_accel.commands.overview import OverviewParser

WIDTH = 88
"""Characters of a line of the usage."""


def commands_page() -> str:
    """A heading for each command, with its usage, its arguments and its examples."""
    return "\n\n".join(_command(parser, help) for parser, help in every_command(build_parser(), ""))


def every_command(parser: argparse.ArgumentParser, help: str) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """(parser, its line in the list of commands) of the parser and of all commands inside of it."""
    yield parser, help
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, inner in action.choices.items():
                yield from every_command(inner, lines.get(name, ""))


def _command(parser: argparse.ArgumentParser, help: str) -> str:
    if isinstance(parser, OverviewParser):
        return f"## {parser.prog}\n\n{_fenced('text', parser.format_help().strip())}"
    formatter = argparse.HelpFormatter(parser.prog, width=WIDTH)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    parts = [f"## {parser.prog}", markdown(_sentence(parser.description or help))]
    parts += [_fenced("text", formatter.format_help().strip()), f"```{{program}} {parser.prog}\n```"]
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        shown = [
            action for action in shown if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
        ]
        named = group.title not in ("positional arguments", "options", "optional arguments")
        if shown and named:
            parts.append(f"**{markdown(_sentence(group.title or ''))[:-1]}**")
        parts += [_argument(action, formatter) for action in shown]
    if parser.epilog:
        parts.append(_fenced("text", parser.epilog))
    return "\n\n".join(part for part in parts if part)


def _argument(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    """The directive for an argument; options are in the index."""
    help = formatter._expand_help(action) if action.help else ""
    if not action.option_strings:
        return _directive("describe", str(action.metavar or action.dest), help)
    values = "" if action.nargs == 0 else f" {formatter._format_args(action, action.dest.upper())}"
    return _directive("option", ", ".join(option + values for option in action.option_strings), help)


def _directive(name: str, signature: str, text: str) -> str:
    return f"```{{{name}}} {signature}\n\n{markdown(text)}\n```"


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if re.search(r"[.:]$", text) or not text else ".")


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
