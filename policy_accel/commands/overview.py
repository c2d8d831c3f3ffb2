"""What `policy-accel --help` says: the commands by what they are for, a line each. It imports nothing heavy."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from policy_accel.errors import did_you_mean

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
    """Fills what is prose to the width of the terminal; text with indented lines, such as examples, stays as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if any(line.startswith(" ") for line in text.splitlines()):
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


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
