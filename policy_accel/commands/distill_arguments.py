"""Arguments of `policy-accel distill`."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.numbers import AT_LEAST_1
from policy_accel.commands.overview import Readable
from policy_accel.commands.trust_arguments import add_trust


def add_distill_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.formatter_class = Readable
    parser.description = (
        "Train a student of a trained run: a copy of its averaged network that learns to make in one or two\n"
        "evaluations what the teacher's sampler makes in several. The student is a run of its own, which continues\n"
        "when the same command is started again, and is scored, loaded and compared like any other, without its\n"
        "teacher."
    )
    parser.epilog = (
        "examples:\n"
        "  policy-accel distill runs/mine --evaluations 1\n"
        "  policy-accel distill runs/mine --evaluations 2 training.steps=200 distillation.steps=4\n"
        "  policy-accel distill runs/demo-images --evaluations 1 distillation.guidance=2"
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run_dir of the teacher")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="settings of training, sampling, evaluation and distillation; seed, label and run_dir "
        "(default: RUN-distilledN)",
    )
    parser.add_argument(
        "--evaluations",
        type=AT_LEAST_1,
        required=True,
        metavar="N",
        help="evaluations of the student for a sample: 1, 2, ...",
    )
    parser.add_argument("--checkpoint", default="last", help="of the teacher: last (default), best, or a step")
    add_trust(parser)
    parser.add_argument("--print-config", action="store_true", help="print the student's configuration and stop")
    parser.set_defaults(run="distill:run_distill")
