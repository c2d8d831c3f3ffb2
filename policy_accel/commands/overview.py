"""What `policy-accel --help` says: the commands by what they are for, a line each. It imports nothing heavy."""

from __future__ import annotations

import argparse
import re
import textwrap
from typing import NoReturn

from policy_accel.errors import UserError, did_you_mean

GROUPS = {
    "Start": {
        "demo": "train and score a model on the data that ship",
        "doctor": "check this machine: what it has, what is missing",
        "data": "inspect, fetch, convert, encode or generate data",
        "list": "name the tasks, recipes, methods and models",
    },
    "Train": {
        "train": "train a policy or an image model, and score it",
        "sweep": "train many runs, here or on a cluster",
        "distill": "teach a copy of a model to sample in few steps",
        "tune-sampling": "choose the times of a policy's sampler",
        "diagnose": "measure on your data what each method would change",
    },
    "Judge": {
        "evaluate": "score a trained policy or image model",
        "compare": "tell which way to train is better, from runs",
        "report": "make one HTML page of runs or of a sweep",
        "benchmark": "measure speed, or what reaching a score costs",
    },
    "Use": {
        "sample": "draw, edit or in-paint images with an image model",
        "serve": "serve policies to robots over websockets",
        "export": "write a model to a file that other programs run",
        "completion": "print what makes your shell complete commands",
    },
}
"""Group -> command -> what it does, in at most 50 characters."""
SHORT = 4
"""Lines of a usage that is repeated with every mistake."""
SUMMARIES = {name: summary for commands in GROUPS.values() for name, summary in commands.items()}

_BEGINNING = """\
usage: policy-accel COMMAND ...

Train robot diffusion policies and image diffusion models, score and use them.
"""
_END = """
examples:
  policy-accel demo
  policy-accel train task=pusht_state training.steps=4000
  policy-accel evaluate runs/demo --episodes 50

`policy-accel COMMAND --help` explains a command; --version names this version.
"""


class Readable(argparse.RawDescriptionHelpFormatter):
    """Fills what is prose to the width of the terminal; of text with indented lines, such as examples, only commands
    that are longer are broken, as a shell takes them."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if any(line.startswith(" ") for line in text.splitlines()):
            lines = "\n".join(_broken(line, width) for line in text.splitlines())
            return super()._fill_text(lines, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


def _broken(line: str, width: int) -> str:
    """A line whose command goes on behind a backslash where it is too long."""
    if not line.startswith("  ") or len(line) <= width:
        return line
    parts = textwrap.wrap(line, width - 2, subsequent_indent=6 * " ", break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(parts)


class CommandParser(argparse.ArgumentParser):
    """The parser of a command, which answers a mistake with the mistake, and its usage only where that is short."""

    def error(self, message: str) -> NoReturn:
        """End with status 2; or raise UserError, of a number that is out of its range."""
        if out_of_range := re.fullmatch(r"argument (--[\w-]+): (\S+ must .*)", message):
            raise UserError(f"{out_of_range[1]} {out_of_range[2]}.")
        if self.format_usage().count("\n") <= SHORT:
            super().error(message)
        self.exit(2, f"{self.prog}: error: {message}\n`{self.prog} --help` explains its arguments.\n")


class OverviewParser(argparse.ArgumentParser):
    """The parser of `policy-accel` itself, whose help groups the commands."""

    def format_help(self) -> str:
        """The overview, at most 80 columns wide."""
        rows = []
        for group, commands in GROUPS.items():
            for place, (name, summary) in enumerate(commands.items()):
                rows.append(f"{'' if place else group:<7}{name:<15}{summary}")
        return "\n".join([_BEGINNING, *rows, _END])

    def error(self, message: str) -> NoReturn:
        """Name the command that was probably meant, in place of all."""
        unknown = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        super().error(
            message if unknown is None else f"no command '{unknown[1]}'; {did_you_mean(unknown[1], SUMMARIES)}"
        )
