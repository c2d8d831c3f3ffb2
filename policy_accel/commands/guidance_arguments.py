"""Arguments of guidance, of `policy-accel sample` and `evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.numbers import NUMBER, UPPER_BOUND


def add_guidance(parser: argparse._ActionsContainer) -> None:
    """Add them to `parser`, or to a group of it."""
    parser.add_argument("--guidance", type=NUMBER, metavar="W", help="weight of guidance: 1 for none")
    parser.add_argument(
        "--guidance-interval",
        type=_interval,
        metavar="LOW,HIGH",
        help="guide only at noise levels sigma / alpha above LOW and up to HIGH",
    )
    parser.add_argument(
        "--guide",
        type=Path,
        metavar="RUN",
        help="guide by a worse network, of this run, in place of the null class (default with --guide-checkpoint and "
        "--guide-average: the same run)",
    )
    parser.add_argument("--guide-checkpoint", metavar="STEP", help="of the guide: last (default), best, or a step")
    parser.add_argument("--guide-average", metavar="NAME", help="of the guide's weights (default: ema)")


def _interval(text: str) -> list[float]:
    try:
        low, high = text.split(",")
        return [NUMBER(low), UPPER_BOUND(high)]
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"'{text}' is not LOW,HIGH, two numbers such as 0.3,3 or 0.3,inf") from None
