"""Arguments of `policy-accel data convert`. It imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.numbers import POSITIVE
from policy_accel.written_formats import WRITTEN_FORMATS


def add_convert_arguments(convert: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel data convert`."""
    convert.add_argument(
        "input", metavar="IN", help="demonstrations of any known format; shipped:NAME is a set that ships"
    )
    convert.add_argument("output", type=Path, metavar="OUT", help="new file or folder; a zarr ending in .zip is a zip")
    convert.add_argument("--to", required=True, choices=WRITTEN_FORMATS, help="format to write")
    convert.add_argument("--keys", metavar="A,B", help="only these keys (default: all)")
    convert.add_argument("--layout", type=Path, metavar="YAML", help="where HDF5 of another make has its data")
    convert.add_argument("--filter", metavar="NAME", help="only the episodes of this filter, as robomimic's mask/NAME")
    convert.add_argument("--episodes", metavar="I,A:B", help="only these, by their number from 0: 0,2,10:50")
    convert.add_argument("--skip-bad-episodes", action="store_true", help="leave out what is damaged or not finite")
    convert.add_argument(
        "--absolute-actions",
        action="store_true",
        help="add action_abs to robosuite's demonstrations with relative actions",
    )
    lerobot = convert.add_argument_group("to lerobot")
    lerobot.add_argument("--lerobot-version", help=argparse.SUPPRESS)  # of earlier releases, to be refused in words
    lerobot.add_argument("--fps", type=POSITIVE, help="steps per second (default: as the input says)")
    lerobot.add_argument(
        "--video", choices=("lossless", "h264", "png"), help="how cameras are stored (default: lossless)"
    )
    convert.set_defaults(run="convert:run_convert")
