"""The arguments by which a user lets the modules of a run be imported. It imports nothing heavy."""

from __future__ import annotations

import argparse


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """--plugins."""
    parser.add_argument(
        "--plugins",
        type=lambda names: names.split(","),
        default=[],
        metavar="MODULES",
        help="modules of yours to import first, as plugins=[...] of train; a run's own are not imported unasked",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """--plugins and --trust, of a command that loads a run."""
    add_plugins(parser)
    parser.add_argument("--trust", action="store_true", help="import the modules that the run's config.yaml names")
