"""The command `policy-accel`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any

from policy_accel.commands.arguments import build_parser
from policy_accel.commands.early import check_named
from policy_accel.errors import UserError, close_to
from policy_accel.launched import rank, speaks

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 after a mistake that was named, 130 after Ctrl-C or SIGTERM."""
    before = _sigterm_as_ctrl_c()
    try:
        options = parse(arguments)
        check_named(options)
        return int(resolve_name(f"policy_accel.commands.{options.run}")(options))
    except UserError as error:
        if speaks():
            print(f"policy-accel: {error}", file=sys.stderr)
        elif not error.told:
            print(f"policy-accel: process {rank()}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if speaks():
            print("policy-accel: stopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return 0
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the words of a command line ask for; ends the process, status 2, where they are none.

    Raises:
        UserError: an empty word; a number that is out of its range.
    """
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could be typed next
        from policy_accel.commands.completers import complete

        complete(parser)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "" in words:
        raise UserError(
            f"argument {words.index('') + 1} is empty, as a variable of the shell that is not set; give a value or "
            "leave it out."
        )
    options, rest = parser.parse_known_args(words)
    if options.command is None and not rest:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    if rest and ("overrides" not in options or any(argument.startswith("-") for argument in rest)):
        asked = _parser_of(parser, words)
        known = [option for action in asked._actions for option in action.option_strings]
        setting = next((word.lstrip("-") for word in rest if word.startswith("--") and "=" in word), None)
        close = None if setting else close_to(rest[0], known, cutoff=0.7)
        value = [*words[words.index(rest[0]) + 1 :], "-"][0]
        if setting is None and rest[0].startswith("--") and not value.startswith("-") and "=" not in value:
            setting = f"{rest[0].lstrip('-')}={value}"
        hint = f"; a setting has no dashes: {setting}" if setting and "overrides" in options else ""
        asked.error(f"unrecognized arguments: {' '.join(rest)}{f'; did you mean {close}?' if close else hint}")
    if rest:  # settings after an option, which argparse leaves over
        options.overrides += rest
    return options


def _parser_of(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that the words name."""
    for word in words:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                parser = action.choices[word]
    return parser


def _sigterm_as_ctrl_c() -> Any:
    """Let SIGTERM stop a command as Ctrl-C does, with what it began cleaned up; returns what handled it before, None
    where nothing is changed: somebody handles it otherwise, or this is no main thread."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return None
    return signal.signal(signal.SIGTERM, signal.default_int_handler)
