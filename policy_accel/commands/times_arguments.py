"""The argument for the times of a sampler's steps."""

from __future__ import annotations

import argparse


def add_times(parser: argparse._ActionsContainer) -> None:
    """Add it to `parser`, or to a group of it."""
    parser.add_argument(
        "--sampling-times",
        type=_times,
        metavar="T,T,...",
        help="times of the steps, noisy to clean, as sampling.times of train: 99,25",
    )


def _times(text: str) -> list[int | float]:
    try:
        return [int(part) if part.strip().isdigit() else float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a list of times; write them as 99,25") from None
