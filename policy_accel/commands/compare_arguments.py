"""The arguments of `policy-accel compare`. It imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.numbers import AT_LEAST_0, CONFIDENCE, POSITIVE
from policy_accel.commands.overview import Readable

DESCRIPTION = """\
Compare the scores of runs with those of a baseline. An arm is a method with its settings; its runs differ in the
training seed. Prints each arm's mean with an interval over training seeds and episodes, its difference from the
baseline on the same evaluation seeds with a p-value that is corrected for the number of arms (Holm), the smallest
difference that could be seen, and all that in words.
"""
EPILOG = """\
examples:
  policy-accel compare runs/sweeps/pusht_keypoints-method-seed
  policy-accel compare runs/a-seed1 runs/a-seed2 runs/b-seed1 runs/b-seed2 --baseline baseline
  policy-accel compare SWEEP --measure success --json comparison.json --png comparison.png
"""


def add_compare_arguments(compare: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel compare`."""
    compare.description = DESCRIPTION
    compare.epilog = EPILOG
    compare.formatter_class = Readable
    compare.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN|SWEEP", help="run directories, folders of sweeps, or both"
    )
    compare.add_argument("--baseline", metavar="ARM", help="that the others are compared with (default: baseline)")
    compare.add_argument("--task", metavar="NAME", help="leave out runs of other tasks")
    compare.add_argument(
        "--measure",
        default="score",
        metavar="NAME",
        help="score (default), success or a metric of the episodes; of images a measure of theirs",
    )
    compare.add_argument(
        "--checkpoint",
        type=AT_LEAST_0,
        metavar="STEP",
        help="take the scores of this step (default: the newest of each run)",
    )
    compare.add_argument(
        "--confidence", type=CONFIDENCE, default=0.95, metavar="C", help="of intervals (default: 0.95)"
    )
    compare.add_argument(
        "--difference",
        type=POSITIVE,
        metavar="D",
        help="say what it would take to see a true difference this large (default: 0.03 of score and success)",
    )
    compare.add_argument(
        "--pooled",
        action="store_true",
        help="take all arms to vary alike among training seeds: sees more, and errs where they do not",
    )
    compare.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    compare.add_argument("--csv", type=Path, metavar="FILE", help="write the table there")
    compare.add_argument("--png", type=Path, metavar="FILE", help="draw means and differences there")
    compare.set_defaults(run="compare:run_compare")
