"""`policy-accel completion`: what a shell reads to complete our commands."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path

from argcomplete.shell_integration import shellcode

from policy_accel.errors import UserError


def run_completion(options: argparse.Namespace) -> int:
    """Print the script for a shell.

    It calls this very program, by its absolute path: a shell completes `./policy-accel` too, and a program of that
    name in somebody's folder must not be run for it.

    Raises:
        UserError: we were not started as `policy-accel`; a path that no script can hold.
    """
    program = Path(sys.argv[0]).absolute()
    if program.name != "policy-accel":
        raise UserError(f"{program} is not the program `policy-accel`, which a shell would complete; start that one.")
    if not re.fullmatch(r"[\w./@+ -]+", str(program)):
        raise UserError(
            f"{program} has characters in its path that a shell's script cannot hold; install it elsewhere."
        )
    script = shlex.quote(str(program)) if options.shell == "fish" else str(program)
    print(shellcode(["policy-accel"], shell=options.shell, argcomplete_script=script))
    return 0
