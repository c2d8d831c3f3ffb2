"""The arguments of `policy-accel report`. It imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.numbers import NUMBER
from policy_accel.commands.overview import Readable

DESCRIPTION = """\
Make one HTML page of runs: learning curves, scores of every training seed, what a score costs, films, pictures,
settings that differ. Everything is inside the file, which loads nothing when it is looked at.
"""
EPILOG = """\
examples:
  policy-accel report runs/sweeps/pusht_keypoints-method-seed --baseline baseline
  policy-accel report runs/a runs/b --output a_and_b.html
"""


def add_report_arguments(report: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel report`."""
    report.description = DESCRIPTION
    report.epilog = EPILOG
    report.formatter_class = Readable
    report.add_argument("paths", nargs="+", type=Path, metavar="RUN|SWEEP", help="run directories, folders of sweeps")
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="the page (default: report.html in the first of the folders)"
    )
    report.add_argument(
        "--baseline",
        metavar="ARM",
        help="what the others are compared with (default: the arm called baseline, else the first)",
    )
    report.add_argument(
        "--target", type=NUMBER, metavar="SCORE", help="whose cost is shown (default: 0.9 of the baseline's best score)"
    )
    report.add_argument(
        "--time-to-score",
        type=Path,
        metavar="FILE.json",
        help="costs that the time-to-score instrument measured, in place of those from the runs' own scores",
    )
    report.add_argument(
        "--no-chunks",
        action="store_true",
        help="draw no action chunk being denoised, which takes the environment and seconds for each arm",
    )
    report.set_defaults(run="report:run_report")
